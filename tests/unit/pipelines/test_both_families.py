"""What both families can be asked for alike: windows, FreeInit, travel, masks, known latents, segments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests import tiny_models

from muybridge.backbones.unet.sparse_control import SparseControlModel
from muybridge.errors import ConfigError, InterruptedRunError, ShapeError
from muybridge.longvideo import ContinuationSettings, PipelineSegments, continue_video
from muybridge.motion import TemporalConfig
from muybridge.pipelines import EasyAnimatePipeline
from muybridge.request import FreeInit, Request, Sampling, Segments, Shape, WindowSettings
from muybridge.request.sizes import fit_size
from muybridge.sampling.windows import ContextWindows

PROMPT, OTHER = "a red circle moving left", "a blue square"
BLACK = np.zeros((32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def easyanimate() -> EasyAnimatePipeline:
    return tiny_models.make_easyanimate(drawn=("adapter", "transformer"))


@pytest.fixture(scope="module", params=["animatediff", "easyanimate"])
def pipe(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def animatediff(make_pipeline: Callable[..., Any]) -> Any:
    return make_pipeline()


def latents(pipe: Any, prompt: Any = PROMPT, **settings: Any) -> torch.Tensor:
    usual = {"num_frames": 16, "num_inference_steps": 2, "seed": 1, "output_type": "latent"}
    return pipe(prompt, **{**usual, **settings})


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-3, atol=1e-4)


def test_a_window_over_all_frames_is_none(pipe: Any) -> None:
    assert torch.equal(latents(pipe), latents(pipe, windows=WindowSettings(size=16)))


def test_windows_make_longer_videos_of_any_kind(pipe: Any) -> None:
    windows = WindowSettings(size=8, overlap=0)
    found = latents(pipe, num_frames=24, windows=windows, free_noise=True)
    assert found.shape[2] == 24 * pipe.codec.latents_per_piece // pipe.codec.frame_multiple
    assert not close(found, latents(pipe, num_frames=24, windows=windows))
    pinned = {"keyframes": {0: BLACK}} if "picture channels" in pipe.can.takes else {}
    travelled = latents(pipe, {0: PROMPT, 16: OTHER}, num_frames=24, windows=windows, **pinned)
    assert travelled.isfinite().all()


def test_windows_cut_between_pieces_only() -> None:
    seen: list[list[int]] = []

    def predict(some: torch.Tensor, _: Any, /) -> torch.Tensor:
        seen.append(some[0, 0, :, 0, 0].int().tolist())
        return some

    places = torch.arange(8.0)[None, None, :, None, None]
    windows = ContextWindows(predict, WindowSettings(size=2, overlap=1, schedule="uniform"), frames_per_piece=2)
    for step in range(3):
        windows.begin_step(step)
        torch.testing.assert_close(windows(places, torch.tensor(0)), places)
    assert all(frames[0] % 2 == 0 and frames == list(range(frames[0], frames[0] + 4)) for frames in seen)


@pytest.mark.parametrize(("size", "overlap"), [(12, 0), (16, 4)])
def test_windows_of_no_whole_pieces_are_refused(easyanimate: Any, size: int, overlap: int) -> None:
    with pytest.raises(ShapeError, match="must be a multiple of 8; given"):
        latents(easyanimate, num_frames=24, windows=WindowSettings(size, overlap))


def test_free_init_of_one_pass_is_none_and_of_more_is_another_video(pipe: Any) -> None:
    plain = latents(pipe)
    assert torch.equal(latents(pipe, free_init=FreeInit(passes=1)), plain)
    assert not close(latents(pipe, free_init=FreeInit(passes=2)), plain)


def test_a_journey_from_a_prompt_to_itself_is_none(pipe: Any) -> None:
    assert close(latents(pipe, {0: PROMPT, 8: PROMPT}), latents(pipe))
    assert not close(latents(pipe, {0: PROMPT, 8: OTHER}), latents(pipe))


def test_motion_strengths_by_frame(pipe: Any) -> None:
    assert close(latents(pipe, motion_strength=[0.5] * 16), latents(pipe, motion_strength=0.5))
    assert not close(latents(pipe, motion_strength=[0.0] * 8 + [1.0] * 8), latents(pipe))
    with pytest.raises(ConfigError, match="one number, or 16, one a frame; given 3"):
        latents(pipe, motion_strength=[1.0] * 3)


def test_positions_in_time(pipe: Any) -> None:
    assert not close(latents(pipe, positions="capped", num_frames=24), latents(pipe, num_frames=24)) or (
        pipe.backbone.motion_adapter.trained_frames >= 24
    )


def test_what_a_mask_keeps_is_kept(pipe: Any) -> None:
    source = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), np.uint8)
    mask = np.zeros((32, 32), bool)
    mask[:, 16:] = True
    size = {"height": 32, "width": 32}
    made, other = (latents(pipe, init_video=source, mask=mask, seed=seed, **size) for seed in (1, 2))
    kept, anew = (float((made - other).abs()[..., part].mean()) for part in (slice(0, 4), slice(-4, None)))
    if "picture channels" not in pipe.can.takes:  # those with channels are told, and may disobey
        whole = latents(pipe, init_video=source, strength=0.01, num_inference_steps=50, **size)
        assert float((made - whole).abs()[..., :4].mean()) < 0.2 * float((made - whole).abs()[..., -4:].mean())
        assert kept < 0.05 * anew
    assert anew > 0.01


def test_known_latents_come_back(pipe: Any) -> None:
    piece = pipe.codec.latents_per_piece
    size = latents(pipe).shape
    known = torch.randn(1, size[1], piece, *size[3:], generator=torch.Generator().manual_seed(1))
    found = latents(pipe, known_latents={0: known})
    assert torch.equal(found[:, :, :piece], known)
    assert not close(found[:, :, piece:], latents(pipe)[:, :, piece:])


class Sink:
    """Keeps all frames."""

    def __init__(self) -> None:
        self.frames: list[np.ndarray] = []

    def write(self, frames: np.ndarray, /) -> None:
        self.frames.append(frames.copy())


def continued(pipe: Any, strategy: Any, folder: Path, redo: set[int] | None = None) -> np.ndarray:
    request = Request(
        prompt=PROMPT,
        shape=Shape(num_frames=40),
        sampling=Sampling(num_inference_steps=1, guidance_scale=1.0),
        segments=Segments(frames=16, overlap=8, strategy=strategy),
    )
    sink, segments = Sink(), PipelineSegments(pipe, request)
    continue_video(segments, segments.plan(40), folder, sink, ContinuationSettings(3), redo or ())
    return np.concatenate(sink.frames)


def test_long_videos_by_latents_and_redo(pipe: Any, tmp_path: Path) -> None:
    frames = continued(pipe, "latent", tmp_path / "a")
    assert len(frames) == 40
    assert np.array_equal(continued(pipe, "latent", tmp_path / "b"), frames)
    again = continued(pipe, "latent", tmp_path / "a", {1})
    assert np.array_equal(again[:8], frames[:8])
    assert not np.array_equal(again[16:24], frames[16:24])


def test_an_interrupted_segment_is_not_kept(pipe: Any, tmp_path: Path) -> None:
    whole = continued(pipe, "latent", tmp_path / "whole")
    calls: list[int] = []

    def interrupt(*_: object) -> None:
        calls.append(1)
        if len(calls) == 2:  # in the second segment
            pipe.interrupt()

    handle = pipe.backbone.register_forward_hook(interrupt)
    try:
        with pytest.raises(InterruptedRunError, match="Interrupted in segment 1, which is not kept"):
            continued(pipe, "latent", tmp_path / "work")
    finally:
        handle.remove()
    assert np.array_equal(continued(pipe, "latent", tmp_path / "work"), whole)


def test_long_videos_by_pictures_need_a_place_for_pictures(
    animatediff: Any, make_pipeline: Any, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"takes no pictures.*'latent'"):
        continued(animatediff, "crossfade", tmp_path / "a")
    pipe = make_pipeline()
    pipe.set_sparse_control(SparseControlModel.from_unet(pipe.unet, "rgb", TemporalConfig(num_heads=4)))
    assert len(continued(pipe, "crossfade", tmp_path / "b")) == 40


def test_free_init_starts_from_noise_alone(pipe: Any) -> None:
    source = np.zeros((16, 32, 32, 3), np.uint8)
    with pytest.raises(ConfigError, match="free_init starts from noise alone"):
        latents(pipe, init_video=source, free_init=FreeInit(), height=32, width=32)


def test_a_request_with_segments_is_no_single_call(pipe: Any) -> None:
    with pytest.raises(ConfigError, match=r"muybridge\.longvideo\.PipelineSegments"):
        pipe.make(Request(prompt=PROMPT, segments=Segments()))


@pytest.mark.filterwarnings("ignore:This model is made for", "ignore:The source video is")
def test_a_size_to_fit_follows_the_source(pipe: Any) -> None:
    source = np.zeros((8, 32, 64, 3), np.uint8)
    video = pipe(PROMPT, init_video=source, fit=64, num_frames=8, num_inference_steps=1)
    assert (video.height, video.width) == fit_size(32, 64, 64, pipe.size_multiple)
