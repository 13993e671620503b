"""One call for any model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import muybridge
from muybridge.errors import CheckpointError
from muybridge.pipelines import AnimateDiffPipeline, load_pipeline


@pytest.fixture
def folder(saved_pipeline: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved_pipeline, tmp_path / "model"))


def set_family(folder: Path, family: Any) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"_class_name": family}))


def test_the_family_is_read_from_the_folder(saved_pipeline: Path) -> None:
    loaded = load_pipeline(saved_pipeline)

    assert type(loaded) is AnimateDiffPipeline
    assert loaded.unet.dtype == torch.float32
    assert load_pipeline(str(saved_pipeline), torch_dtype=torch.bfloat16).unet.dtype == torch.bfloat16


@pytest.mark.parametrize("family", ["StableDiffusionPipeline", None, ["AnimateDiffPipeline"]])
def test_an_unknown_family_lists_the_known(folder: Path, family: Any) -> None:
    set_family(folder, family)

    with pytest.raises(CheckpointError, match=r"model is a .*; supported: AnimateDiffPipeline\. A Stable Diffusion"):
        load_pipeline(folder)


def test_the_request_names_the_model_as_it_was_asked_for(saved_pipeline: Path) -> None:
    loaded = load_pipeline(str(saved_pipeline))
    loaded.set_progress_bar_config(disable=True)

    video = loaded("a red circle", num_frames=2, num_inference_steps=1, seed=1)
    again = load_pipeline(video.request["model"])
    again.set_progress_bar_config(disable=True)

    assert video.request["model"] == str(saved_pipeline)
    assert np.array_equal(video.frames, again("a red circle", num_frames=2, num_inference_steps=1, seed=1).frames)


def test_the_package_offers_it() -> None:
    assert muybridge.load_pipeline is load_pipeline
    assert muybridge.AnimateDiffPipeline is AnimateDiffPipeline
