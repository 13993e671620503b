"""What only the caller can say: what a motion file is, which motion is wanted, when a control counts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import LCMScheduler
from PIL import Image

from muybridge.backbones.unet.sparse_control import SparseControlModel
from muybridge.checkpoints.motion_export import write_motion
from muybridge.conditioning.sparse_control import read_sparse_control
from muybridge.errors import CheckpointError, ConfigError, ShapeError
from muybridge.motion import MotionAdapter, TemporalConfig
from muybridge.motion.integration import integrate_motion
from muybridge.pipelines import load_pipeline
from muybridge.request import GenerateRequest
from muybridge.request.generate_request import repeated
from muybridge.sampling import FreeInit, WindowSettings
from muybridge.service.generation import generate_file
from muybridge.video import read_request, read_video

PROMPT = "a red circle"
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def motion_file(make_pipeline: Callable[..., Any], tmp_path: Path) -> Path:
    """With a module in the middle, position tables, and a name that says nothing."""
    sites = make_pipeline().unet.motion_sites().values()
    return write_motion(MotionAdapter.for_sites(sites, config=TemporalConfig()), tmp_path / "motion.ckpt", "original")


def test_a_guessed_variant_is_warned_of_and_can_be_said(saved_pipeline: Path, motion_file: Path) -> None:
    with pytest.warns(
        UserWarning, match=r"motion\.ckpt has keys and shapes that animatediff-v2, animatelcm and"
    ) as all_:
        guessed = load_pipeline(saved_pipeline, motion_adapter=motion_file)
    assert len(all_) == 1
    assert not isinstance(guessed.scheduler, LCMScheduler)
    said = load_pipeline(saved_pipeline, motion_adapter=motion_file, motion_variant="animatelcm")
    assert isinstance(said.scheduler, LCMScheduler)
    assert said.config["default_steps"] == 6
    with pytest.raises(ConfigError, match="Unknown motion variant 'lcm'"):
        load_pipeline(saved_pipeline, motion_adapter=motion_file, motion_variant="lcm")
    with pytest.raises(ConfigError, match="give motion_adapter too"):
        load_pipeline(saved_pipeline, motion_variant="animatelcm")


def test_what_was_said_is_recorded_and_repeated(saved_pipeline: Path, motion_file: Path, tmp_path: Path) -> None:
    values = {"model": str(saved_pipeline), "prompt": PROMPT, "num_frames": 2, "num_inference_steps": 1, "seed": 1}
    given = {"motion_adapter": str(motion_file), "motion_variant": "animatelcm"}
    generate_file(GenerateRequest.from_flat({**values, **given}), tmp_path / "a.png", show_progress=False)
    embedded = read_request(tmp_path / "a.png")
    assert embedded is not None
    assert (embedded["model"]["motion_variant"], embedded["sampling"]["guidance_scale"]) == ("animatelcm", 2.0)
    generate_file(repeated(embedded), tmp_path / "b.png", show_progress=False)
    assert np.array_equal(read_video(tmp_path / "a.png").frames, read_video(tmp_path / "b.png").frames)


def test_a_motion_condition_reaches_modules_that_read_one(make_pipeline: Callable[..., Any]) -> None:
    pipe = make_pipeline()
    options = {"num_frames": 4, "num_inference_steps": 2, "seed": 1}
    with pytest.raises(ConfigError, match="No motion module here reads a motion_condition"):
        pipe(PROMPT, motion_condition=torch.ones(1, 6), **options)
    config = {"motion_rank": 8, "motion_condition_width": 6}
    adapter = integrate_motion(pipe, "low_rank", mode="replace", config=config).adapter
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.3)

    def latents(condition: torch.Tensor, **more: Any) -> torch.Tensor:
        return pipe(PROMPT, motion_condition=condition, output_type="latent", **{**options, **more})

    one, other = latents(torch.ones(1, 6)), latents(-torch.ones(1, 6))
    assert (one - other).abs().max() > 1e-3
    both = latents(torch.stack([torch.ones(6), -torch.ones(6)]), num_videos_per_prompt=2)
    torch.testing.assert_close(both[:1], one, rtol=1e-3, atol=1e-4)
    assert latents(torch.ones(1, 6), windows=WindowSettings(size=2, overlap=1)).isfinite().all()
    assert (
        pipe(PROMPT, motion_condition=torch.ones(1, 6), **options).request["made"]["unrecorded"][0]
        == "motion_condition"
    )
    with pytest.raises(ShapeError, match=r"motion_condition must be \[1, d\], one a video"):
        latents(torch.ones(3, 6))


def test_a_control_that_a_short_pass_would_miss(make_pipeline: Callable[..., Any]) -> None:
    pipe = make_pipeline()
    control = SparseControlModel.from_unet(pipe.unet, "rgb", TemporalConfig(num_heads=4, attentions_per_block=1))
    pipe.set_sparse_control(control)
    picture = np.full((16, 16, 3), 200, np.uint8)

    def make(**options: Any) -> torch.Tensor:
        free_init = FreeInit(passes=3, coarse_to_fine=True)
        arguments = {"num_frames": 2, "num_inference_steps": 9, "seed": 1, "output_type": "latent"}
        return pipe(PROMPT, keyframes={0: picture}, free_init=free_init, **arguments, **options)

    with pytest.raises(ConfigError, match=r"Pass 1 of 3 of FreeInit has 3 of 9 steps.*Widen the range"):
        make(control_start=0.1, control_end=0.23)
    assert make(control_end=0.5).isfinite().all()


def test_strengths_are_in_the_record(make_pipeline: Callable[..., Any], tmp_path: Path) -> None:
    pipe = make_pipeline()
    pipe.set_sparse_control(SparseControlModel.from_unet(pipe.unet, "rgb", TemporalConfig(num_heads=4)))
    picture = str(tmp_path / "a.png")
    Image.new("RGB", (16, 16), "white").save(picture)
    options = {"num_frames": 2, "num_inference_steps": 2, "seed": 1}
    request = pipe(PROMPT, keyframes={0: picture}, control_strength=0.5, control_end=0.5, **options).request
    assert request["conditions"] == [{"kind": "keyframes", "pictures": {0: picture}, "strength": 0.5, "end": 0.5}]
    assert list(request["inputs"]) == [picture]
    assert pipe(PROMPT, **options).request["conditions"] == []


def test_a_sparse_control_and_an_image_prompt_adapter_can_lie_on_the_hub(saved_pipeline: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"There is no nobody/none/control\.ckpt here.*HF_HUB_OFFLINE"):
        read_sparse_control("nobody/none/control.ckpt", torch.float32)
    pipe: Any = load_pipeline(Path(shutil.copytree(saved_pipeline, tmp_path / "model")))
    with pytest.raises(CheckpointError, match=r"There is no nobody/none/ip\.safetensors here.*HF_HUB_OFFLINE"):
        pipe.load_image_prompt_adapter("nobody/none/ip.safetensors")
