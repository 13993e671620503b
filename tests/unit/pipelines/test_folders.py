"""Pipelines as folders."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

from muybridge.errors import ConfigError
from muybridge.pipelines import AnimateDiffPipeline
from muybridge.sampling import make_scheduler

PROMPT = "a red circle moving left"


def run(pipeline: Any, **options: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(PROMPT, **{"num_frames": 4, "seed": 1, **options})


@pytest.fixture
def folder(saved_pipeline: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved_pipeline, tmp_path / "model"))


def make_image_folder(folder: Path, pipeline: AnimateDiffPipeline) -> None:
    """Turn the folder into a Stable Diffusion model with the same image network."""
    pipeline.remove_motion_adapter()
    names = inspect.signature(UNet2DConditionModel.__init__).parameters
    image = UNet2DConditionModel(**{k: v for k, v in pipeline.unet.config.items() if k in names})
    image.load_state_dict(pipeline.unet.state_dict())
    image.save_pretrained(folder / "unet")
    shutil.rmtree(folder / "motion_adapter")
    index = json.loads((folder / "model_index.json").read_text())
    for name in ("motion_adapter", "default_steps", "default_guidance"):
        del index[name]
    index |= {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    index |= {"safety_checker": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(index))


def test_a_saved_pipeline_makes_the_same_video(pipeline: Any, saved_pipeline: Path) -> None:
    loaded = AnimateDiffPipeline.from_pretrained(saved_pipeline)

    assert torch.equal(run(loaded, output_type="pt"), run(pipeline, output_type="pt"))
    assert not any(part.training for part in (loaded.unet, loaded.vae, loaded.text_encoder))


def test_the_network_and_the_adapter_lie_side_by_side(saved_pipeline: Path) -> None:
    weights = "diffusion_pytorch_model.safetensors"
    unet, adapter = load_file(saved_pipeline / "unet" / weights), load_file(saved_pipeline / "motion_adapter" / weights)

    assert not any("motion_modules" in name for name in unet)
    assert all("motion_modules" in name for name in adapter)
    assert json.loads((saved_pipeline / "unet" / "config.json").read_text())["motion_adapter"] is None


def test_saving_leaves_the_pipeline_as_it_was(make_pipeline: Any, tmp_path: Path) -> None:
    pipeline = make_pipeline()
    before, adapter = run(pipeline).frames, pipeline.motion_adapter

    pipeline.save_pretrained(tmp_path / "model")

    assert pipeline.motion_adapter is adapter
    assert pipeline.unet.motion_adapter is adapter
    assert np.array_equal(run(pipeline).frames, before)


def test_failing_to_save_leaves_the_pipeline_as_it_was(make_pipeline: Any, tmp_path: Path) -> None:
    pipeline = make_pipeline()
    adapter = pipeline.motion_adapter
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "scheduler").write_text("in the way")

    with pytest.raises((OSError, AssertionError)):
        pipeline.save_pretrained(tmp_path / "model")

    assert pipeline.motion_adapter is adapter
    assert pipeline.unet.motion_adapter is adapter


def test_defaults_travel_with_the_model(make_pipeline: Any, tmp_path: Path) -> None:
    make_pipeline(default_steps=2, default_guidance=2.5).save_pretrained(tmp_path / "model")

    request = run(AnimateDiffPipeline.from_pretrained(tmp_path / "model")).request["sampling"]

    assert (request["num_inference_steps"], request["guidance_scale"]) == (2, 2.5)


def test_the_norm_scopes_travel_with_the_adapter(make_pipeline: Any, tmp_path: Path) -> None:
    pipeline = make_pipeline()
    plain = run(pipeline).frames
    pipeline.motion_adapter.set_numerics("official-v1")
    pipeline.save_pretrained(tmp_path / "model")

    loaded = AnimateDiffPipeline.from_pretrained(tmp_path / "model")

    assert loaded.motion_adapter.numerics == "official-v1"
    assert np.array_equal(run(loaded).frames, run(pipeline).frames)
    assert not np.array_equal(run(loaded).frames, plain)


def test_a_pipeline_without_adapter_is_saved_without(make_pipeline: Any, tmp_path: Path) -> None:
    pipeline = make_pipeline()
    pipeline.remove_motion_adapter()
    stills = run(pipeline).frames
    pipeline.save_pretrained(tmp_path / "model")

    loaded = AnimateDiffPipeline.from_pretrained(tmp_path / "model")

    assert not (tmp_path / "model" / "motion_adapter").exists()
    assert loaded.motion_adapter is None
    assert np.array_equal(run(loaded).frames, stills)


def test_an_image_model_gives_stills_until_it_gets_an_adapter(make_pipeline: Any, folder: Path) -> None:
    pipeline = make_pipeline()
    expected, stills = (run(pipeline, motion_strength=strength).frames for strength in (1.0, 0.0))
    adapter = pipeline.motion_adapter
    make_image_folder(folder, pipeline)
    settings = {"num_inference_steps": 3, "guidance_scale": 5.0}

    alone = AnimateDiffPipeline.from_pretrained(folder)
    moving = AnimateDiffPipeline.from_pretrained(folder, motion_adapter=adapter, scheduler=make_scheduler("ddim"))

    assert alone.motion_adapter is None
    assert np.array_equal(run(alone, **settings).frames, stills)
    assert np.array_equal(run(moving, **settings).frames, expected)


def test_parts_given_are_used_instead_of_the_folders(pipeline: Any, folder: Path) -> None:
    shutil.rmtree(folder / "vae")

    loaded = AnimateDiffPipeline.from_pretrained(folder, vae=pipeline.vae, motion_adapter=None)

    assert loaded.vae is pipeline.vae
    assert loaded.motion_adapter is None
    assert run(loaded).request["model"]["model"] is None  # the folder alone would not make this video


def test_an_unknown_part_is_refused(saved_pipeline: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"motion_adaptor is no part of this pipeline; its parts: .*keyframe_control, motion_adapter"
    ):
        AnimateDiffPipeline.from_pretrained(saved_pipeline, motion_adaptor=None)


def test_precision_is_chosen_when_loading(saved_pipeline: Path) -> None:
    loaded = AnimateDiffPipeline.from_pretrained(saved_pipeline, torch.bfloat16)

    parts = (loaded.unet, loaded.vae, loaded.text_encoder, loaded.motion_adapter)
    assert {part.dtype for part in parts} == {torch.bfloat16}
    assert run(loaded).frames.shape == (4, 16, 16, 3)


def test_every_network_has_its_turn_when_they_are_offloaded(make_pipeline: Any) -> None:
    # The adapter's modules move with the U-Net, which holds them. The hooks are real; only the device is the CPU.
    pipeline = make_pipeline()
    expected = run(pipeline, output_type="pt")
    networks = {name for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    assert set(pipeline.model_cpu_offload_seq.split("->")) == {*networks, "text_encoder_2"} - {"motion_adapter"}

    pipeline.enable_model_cpu_offload(device="cpu")

    assert torch.equal(run(pipeline, output_type="pt"), expected)
