"""Keyframes and sketches through a SparseCtrl; windows, FreeNoise, FreeInit; positions and strengths by frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import nn

from muybridge.backbones.unet.sparse_control import SparseControlModel
from muybridge.errors import ConfigError, InputFileError, ShapeError
from muybridge.pipelines import AnimateDiffPipeline
from muybridge.sampling import FreeInit, WindowSettings

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PROMPT, OTHER = "a red circle moving left", "a large blue heart"
WINDOWS = WindowSettings(size=4, overlap=2)


def latents_of(pipeline: Any, prompt: Any = PROMPT, **options: Any) -> torch.Tensor:
    settings = {"num_frames": 4, "seed": 1, "num_inference_steps": 2, "output_type": "latent", **options}
    return pipeline(prompt, **settings)


def make_picture(seed: int = 0, size: tuple[int, int] = (16, 16)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8))


def give_controls(pipeline: Any) -> Any:
    """SparseCtrls of both kinds whose last convolutions are not zero."""
    torch.manual_seed(0)
    for kind in ("rgb", "scribble"):
        model = SparseControlModel.from_unet(pipeline.unet, kind).eval()
        for name, module in model.named_modules():
            if name.startswith("controlnet_") and isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.2)
        pipeline.set_sparse_control(model)
    return pipeline


@pytest.fixture(scope="module")
def controlled(make_pipeline: Any) -> Any:
    # A SparseCtrl for drawings makes them eight times smaller, as Stable Diffusion's VAE makes pictures.
    levels = 4
    settings: dict[str, Any] = {
        "block_out_channels": (16,) * levels,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "norm_num_groups": 8,
    }
    return give_controls(make_pipeline(vae=AutoencoderKL(**settings).eval()))


@pytest.mark.parametrize("argument", ["keyframes", "sketches"])
def test_pictures_change_the_video_as_much_as_they_count(controlled: Any, argument: str) -> None:
    pictures = {0: make_picture(), -1: make_picture(1)}

    plain = latents_of(controlled)
    full = latents_of(controlled, **{argument: pictures})
    weak = latents_of(controlled, **{argument: pictures}, control_strength=0.1)
    none = latents_of(controlled, **{argument: pictures}, control_strength=0.0)
    other = latents_of(controlled, **{argument: {0: make_picture(2), -1: make_picture(1)}})

    assert torch.equal(none, plain)
    assert 0 < float((weak - plain).std()) < float((full - plain).std())
    assert not torch.allclose(other, full, atol=1e-3)


def test_pictures_count_in_their_steps_only(controlled: Any) -> None:
    kept: list[list[torch.Tensor]] = []
    for end in (0.5, 1.0):
        steps: list[torch.Tensor] = []

        def keep(
            _pipe: Any, _step: int, _time: Any, tensors: dict[str, Any], steps: list[torch.Tensor] = steps
        ) -> None:
            steps.append(tensors["latents"].clone())

        latents_of(controlled, keyframes={0: make_picture()}, control_end=end, callback_on_step_end=keep)
        kept.append(steps)
    assert torch.equal(kept[0][0], kept[1][0])
    assert not torch.allclose(kept[0][1], kept[1][1], atol=1e-4)


def test_a_pipeline_with_sparse_controls_is_saved_and_loaded(controlled: Any, tmp_path: Path) -> None:
    controlled.save_pretrained(tmp_path / "model")
    loaded = AnimateDiffPipeline.from_pretrained(tmp_path / "model")
    loaded.set_progress_bar_config(disable=True)

    keyframes = {0: make_picture()}

    assert torch.equal(latents_of(loaded, keyframes=keyframes), latents_of(controlled, keyframes=keyframes))


def test_keyframes_need_a_sparse_control(pipeline: Any) -> None:
    with pytest.raises(ConfigError, match="no SparseCtrl for keyframes; give it one"):
        latents_of(pipeline, keyframes={0: make_picture()})


@pytest.mark.parametrize(
    ("pictures", "error", "message"),
    [
        ({}, ConfigError, "There are no pictures"),
        ({4: make_picture()}, ShapeError, "Frame 4 is outside the video"),
        ({0: make_picture(), -4: make_picture()}, ConfigError, "both mean frame 0"),
        ({0: make_picture(size=(16, 32))}, ShapeError, "aspect ratio"),
        ({0: "nowhere.png"}, InputFileError, "nowhere.png"),
    ],
)
def test_refused_keyframes(controlled: Any, pictures: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        latents_of(controlled, keyframes=pictures)


def test_one_window_is_none(pipeline: Any) -> None:
    assert torch.equal(latents_of(pipeline, windows=WINDOWS), latents_of(pipeline))


def test_windows_take_everything_that_frames_have(controlled: Any) -> None:
    settings: dict[str, Any] = {
        "num_frames": 8,
        "keyframes": {0: make_picture(), -1: make_picture(1)},
        "motion_strength": [1.0] * 4 + [0.5] * 4,
    }
    prompts = {0: PROMPT, 7: OTHER}

    windowed = latents_of(controlled, prompts, windows=WINDOWS, **settings)

    assert torch.isfinite(windowed).all()
    whole = latents_of(controlled, prompts, windows=WindowSettings(size=8, overlap=2), **settings)
    assert torch.equal(whole, latents_of(controlled, prompts, **settings))
    assert not torch.allclose(windowed, whole, atol=1e-3)


def test_without_motion_windows_change_nothing(pipeline: Any) -> None:
    settings: dict[str, Any] = {"num_frames": 8, "motion_strength": 0.0}

    assert torch.allclose(
        latents_of(pipeline, windows=WINDOWS, **settings), latents_of(pipeline, **settings), atol=1e-4
    )


def test_related_noise_repeats(pipeline: Any) -> None:
    settings: dict[str, Any] = {"num_frames": 8, "windows": WINDOWS, "motion_strength": 0.0, "num_inference_steps": 1}

    frames = latents_of(pipeline, free_noise=True, **settings)[0].transpose(0, 1)

    # Without motion a frame is what its noise makes it: the first four come again, two by two in another order.
    assert sorted(float(f.sum()) for f in frames[4:6]) == pytest.approx(sorted(float(f.sum()) for f in frames[:2]))
    assert sorted(float(f.sum()) for f in frames[6:8]) == pytest.approx(sorted(float(f.sum()) for f in frames[2:4]))


def test_free_init_of_one_pass_is_none(pipeline: Any) -> None:
    assert torch.equal(latents_of(pipeline, free_init=FreeInit(passes=1)), latents_of(pipeline))
    assert not torch.allclose(latents_of(pipeline, free_init=FreeInit(passes=2)), latents_of(pipeline), atol=1e-3)


def test_strength_by_frame(pipeline: Any) -> None:
    assert torch.allclose(latents_of(pipeline, motion_strength=[1.0] * 4), latents_of(pipeline), atol=1e-5)
    assert torch.allclose(
        latents_of(pipeline, motion_strength=[0.0] * 4), latents_of(pipeline, motion_strength=0.0), atol=1e-5
    )


@pytest.mark.filterwarnings("ignore:6 frames at once")
def test_positions_beyond_those_of_training(make_pipeline: Any) -> None:
    pipeline = make_pipeline()
    for _, module in pipeline.motion_adapter.motion_modules():
        module.config = module.config.with_changes(trained_frames=4)

    plain, stretched, capped = (
        latents_of(pipeline, num_frames=6, positions=positions) for positions in ("plain", "stretched", "capped")
    )

    assert not torch.allclose(plain, stretched, atol=1e-4)
    assert not torch.allclose(stretched, capped, atol=1e-4)
    within = latents_of(pipeline, positions="stretched")
    assert torch.allclose(within, latents_of(pipeline), atol=1e-5)


def test_what_made_a_long_video_is_recorded(pipeline: Any) -> None:
    video = pipeline(PROMPT, num_frames=8, windows=WINDOWS, free_noise=True, num_inference_steps=1, seed=0)

    assert video.request["sampling"]["windows"]["size"] == 4
    assert video.request["sampling"]["free_noise"] is True


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"windows": WindowSettings(size=8, overlap=2)}, ShapeError, "larger than the video of 4"),
        ({"free_noise": True}, ConfigError, "give windows too"),
        ({"positions": "folded"}, ConfigError, "positions must be one of"),
        ({"positions": "capped", "windows": WINDOWS}, ConfigError, "leave positions or windows out"),
        ({"motion_strength": [1.0, 2.0]}, ConfigError, "or 4, one a frame; given 2"),
        ({"free_init": FreeInit(), "init_video": np.zeros((4, 16, 16, 3), np.uint8)}, ConfigError, "noise alone"),
    ],
)
def test_refused_before_any_work(pipeline: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        latents_of(pipeline, **options)
