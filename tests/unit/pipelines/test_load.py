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
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"motion_adapter": [None, None]}))

    with pytest.raises(
        CheckpointError,
        match=r"model is a .*; supported: AnimateDiffPipeline, and StableDiffusionPipeline or StableDiffusionXL",
    ):
        load_pipeline(folder)


def test_the_request_names_the_model_as_it_was_asked_for(saved_pipeline: Path) -> None:
    loaded = load_pipeline(str(saved_pipeline))
    loaded.set_progress_bar_config(disable=True)

    video = loaded("a red circle", num_frames=2, num_inference_steps=1, seed=1)
    again = load_pipeline(video.request["model"]["model"])
    again.set_progress_bar_config(disable=True)

    assert video.request["model"]["model"] == str(saved_pipeline)
    assert np.array_equal(video.frames, again("a red circle", num_frames=2, num_inference_steps=1, seed=1).frames)


def test_the_package_offers_it() -> None:
    assert muybridge.load_pipeline is load_pipeline
    assert muybridge.AnimateDiffPipeline is AnimateDiffPipeline


def test_a_motion_adapter_takes_the_place_of_the_models_own(folder: Path) -> None:
    adapter = folder.parent / "adapter"
    shutil.copytree(folder / "motion_adapter", adapter)
    loaded = load_pipeline(folder, motion_adapter=adapter)
    video = loaded("a red circle", num_frames=2, num_inference_steps=1, seed=0)
    assert video.request["model"]["motion_adapter"] == str(adapter)
    assert video.request["made"]["unrecorded"] == []


def test_a_still_image_model_is_opened_with_a_motion_adapter(folder: Path) -> None:
    set_family(folder, "StableDiffusionPipeline")
    adapter = folder.parent / "adapter"
    shutil.move(folder / "motion_adapter", adapter)
    index = json.loads((folder / "model_index.json").read_text())
    del index["motion_adapter"]
    (folder / "model_index.json").write_text(json.dumps(index))
    loaded = load_pipeline(folder, motion_adapter=adapter)
    assert loaded.scheduler.config["beta_schedule"] == "linear"
    assert loaded.unet.motion_adapter is not None


def test_a_file_that_is_no_motion_module_is_refused(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="is a VAE; its place is vae of load_pipeline"):
        load_pipeline(folder, motion_adapter=folder / "vae" / "diffusion_pytorch_model.safetensors")


def test_an_adapter_put_in_by_hand_is_said_not_to_be_recorded(saved_pipeline: Path) -> None:
    loaded = load_pipeline(saved_pipeline)
    loaded.remove_motion_adapter()
    video = loaded("a red circle", num_frames=1, num_inference_steps=1, seed=0)
    assert video.request["made"]["unrecorded"] == ["another motion_adapter"]
