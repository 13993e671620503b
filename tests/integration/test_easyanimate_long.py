"""Long videos of EasyAnimate at tiny size: continued from pictures or from latents, resumed, redone, streamed."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import Tensor

from muybridge.debug.tensor_memory import TensorMemory
from muybridge.errors import ConfigError, InputFileError, ShapeError
from muybridge.longvideo import (
    Carry,
    ContinuationSettings,
    PipelineSegments,
    Segment,
    Strategy,
    continue_video,
    segment_seed,
)
from muybridge.pipelines import EasyAnimatePipeline
from muybridge.request import GenerateRequest, Request
from muybridge.request.flat import request_of_call
from muybridge.request.generate_request import repeated
from muybridge.service.generation import open_inputs
from muybridge.service.long_generation import Redo, check_redo, continue_to_file, is_long, segments_folder
from muybridge.video import read_video

Frames = npt.NDArray[np.uint8]
PipelineMaker = Callable[..., EasyAnimatePipeline]
PROMPT = "a red circle moving left"
SETTINGS: dict[str, Any] = {"prompt": PROMPT, "num_inference_steps": 1, "guidance_scale": 1.0}


def segments_of(
    arguments: dict[str, Any],
    strategy: Any = "crossfade",
    segment_frames: int | None = None,
    overlap_frames: int | None = None,
) -> Request:
    """A request out of arguments of a call; nothing of it is checked."""
    asked = {"overlap_strategy": strategy, "segment_frames": segment_frames, "overlap_frames": overlap_frames}
    return request_of_call({**arguments, **asked})


@pytest.fixture(scope="module")
def pipeline(make_easyanimate: PipelineMaker) -> EasyAnimatePipeline:
    return make_easyanimate()


class Sink:
    """Keeps all frames."""

    def __init__(self) -> None:
        self.pieces: list[Frames] = []

    def write(self, frames: Frames, /) -> None:
        self.pieces.append(frames.copy())

    @property
    def frames(self) -> Frames:
        return np.concatenate(self.pieces)


class Watched(PipelineSegments):
    """Notes what goes in and out, and may be interrupted."""

    def __init__(self, pipeline: EasyAnimatePipeline, strategy: Strategy, stops_at: int | None = None) -> None:
        super().__init__(pipeline, segments_of(SETTINGS, strategy, 16))
        self.stops_at = stops_at
        self.noted: list[tuple[Segment, Carry | None, Tensor | None]] = []

    def __call__(self, segment: Segment, carried: Carry | None, seed: int, /) -> tuple[Frames, Tensor | None]:
        if segment.index == self.stops_at:
            raise KeyboardInterrupt
        frames, latents = super().__call__(segment, carried, seed)
        self.noted.append((segment, carried, latents))
        return frames, latents


def run(segments: PipelineSegments, folder: Path, num_frames: int = 40) -> Frames:
    sink = Sink()
    continue_video(segments, segments.plan(num_frames), folder, sink, ContinuationSettings(seed=7))
    return sink.frames


def test_latents_are_carried_as_they_are(pipeline: EasyAnimatePipeline, tmp_path: Path) -> None:
    segments = Watched(pipeline, "latent")
    assert run(segments, tmp_path / "latent").shape == (40, 32, 32, 3)
    made = [(segment.num_frames, segment.num_known) for segment, *_ in segments.noted]
    assert made == [(16, 0), (16, 8), (16, 8), (16, 8)]
    for (_, _, before), (segment, carried, after) in itertools.pairwise(segments.noted):
        assert carried is not None
        assert before is not None
        assert after is not None
        assert torch.equal(after[:, :, :2], before[:, :, -2:])
        assert not torch.equal(after[:, :, 2:], before[:, :, -2:])
        assert segment.num_known == len(carried.frames) == 8


def test_latent_and_crossfade_differ_and_repeat(pipeline: EasyAnimatePipeline, tmp_path: Path) -> None:
    latent, again = (run(Watched(pipeline, "latent"), tmp_path / name, 24) for name in ("one", "two"))
    crossfade = run(Watched(pipeline, "crossfade"), tmp_path / "three", 24)
    assert np.array_equal(latent, again)
    assert np.array_equal(latent[:8], crossfade[:8])  # the same first segment, before what the two share
    assert not np.array_equal(latent[16:], crossfade[16:])


@pytest.mark.parametrize("stops_at", [1, 3])
def test_latent_continuation_resumes_as_if_undisturbed(
    pipeline: EasyAnimatePipeline, tmp_path: Path, stops_at: int
) -> None:
    expected = run(Watched(pipeline, "latent"), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(Watched(pipeline, "latent", stops_at), tmp_path / "work")
    rest = Watched(pipeline, "latent")
    assert np.array_equal(run(rest, tmp_path / "work"), expected)
    assert [segment.index for segment, *_ in rest.noted] == list(range(stops_at, 4))


def test_both_ends_are_kept(pipeline: EasyAnimatePipeline, tmp_path: Path) -> None:
    keyframes = {0: Image.new("RGB", (32, 32), (200, 30, 30)), -1: Image.new("RGB", (32, 32), (30, 30, 200))}
    # 17 frames: the segment before leaves some to the last, which has room to come to its keyframe.
    cases: tuple[tuple[Strategy, int], ...] = (("crossfade", 17), ("latent", 24))
    for strategy, num_frames in cases:
        segments = PipelineSegments(pipeline, segments_of({**SETTINGS, "keyframes": keyframes}, strategy, 16))
        frames = run(segments, tmp_path / strategy, num_frames)
        alone = PipelineSegments(pipeline, segments_of(SETTINGS, strategy, 16))
        other = run(alone, tmp_path / f"{strategy}-alone", num_frames)
        assert len(frames) == num_frames
        assert not np.array_equal(frames[0], other[0])
        assert not np.array_equal(frames[-1], other[-1])
    segments = PipelineSegments(pipeline, segments_of({**SETTINGS, "keyframes": keyframes}, "latent", 16))
    with pytest.raises(ShapeError, match="nearest num_frames: 32 or 40"):
        segments.plan(36)


def test_models_without_channels_for_pictures_continue_from_latents(
    make_easyanimate: PipelineMaker, tmp_path: Path
) -> None:
    pipeline = make_easyanimate(in_channels=4)
    with pytest.raises(ConfigError, match=r"4 channels.*'latent'"):
        Watched(pipeline, "crossfade")
    segments = Watched(pipeline, "latent")
    run(segments, tmp_path / "work", 24)
    first, second = (latents for *_, latents in segments.noted)
    assert first is not None
    assert second is not None
    assert torch.equal(second[:, :, :2], first[:, :, -2:])


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ({"init_video": np.zeros((8, 32, 32, 3), np.uint8)}, {}, "source video cannot be longer"),
        ({"keyframes": {0: "a", 3: "b"}}, {}, "keyframes 0 and -1; given 3"),
        ({"latents": torch.zeros(1)}, {}, "latents cannot apply"),
        ({"prompt": ["a", "b"]}, {}, "prompt: must be text"),
        ({"prompt": {0: "a"}}, {}, "one video of one prompt"),
        ({}, {"strategy": "blend"}, "crossfade, latent; given 'blend'"),
        ({}, {"overlap_frames": 1}, "single picture for 3 frames"),
    ],
)
def test_what_a_long_video_cannot_have(
    pipeline: EasyAnimatePipeline, arguments: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        PipelineSegments(pipeline, segments_of({**SETTINGS, **arguments}, **options))


@pytest.mark.parametrize(
    ("segment_frames", "overlap_frames", "message"),
    [
        (16, 4, r"overlap_frames must be a multiple of 8; given 4. The nearest is 8"),
        (16, 16, r"8 to 8, fewer than the 16 frames of a segment; given 16. The nearest is 8"),
        (8, None, r"segment_frames must be more than 8.*The nearest is 16"),
    ],
)
def test_latents_are_shared_in_whole_pieces(
    pipeline: EasyAnimatePipeline, segment_frames: int, overlap_frames: int | None, message: str
) -> None:
    with pytest.raises(ShapeError, match=message):
        PipelineSegments(pipeline, segments_of(SETTINGS, "latent", segment_frames, overlap_frames)).plan(100)


def test_segments_that_left_no_latents_are_named(pipeline: EasyAnimatePipeline) -> None:
    segments = Watched(pipeline, "latent")
    _, second = segments.plan(24)
    with pytest.raises(ConfigError, match="Segment 0 left no latents"):
        segments(second, Carry(np.zeros((8, 32, 32, 3), np.uint8), None), 1)


@pytest.mark.parametrize("strategy", ["crossfade", "latent"])
def test_no_tensor_stays_behind(pipeline: EasyAnimatePipeline, tmp_path: Path, strategy: Strategy) -> None:
    class Counter:
        num_frames = 0

        def write(self, frames: Frames, /) -> None:
            self.num_frames += len(frames)

    def peak(num_frames: int) -> int:
        counter, segments = Counter(), PipelineSegments(pipeline, segments_of(SETTINGS, strategy, 16))
        with TensorMemory() as memory:
            settings = ContinuationSettings(seed=7)
            continue_video(segments, segments.plan(num_frames), tmp_path / str(num_frames), counter, settings)
        assert counter.num_frames == num_frames
        return memory.peak_bytes

    assert peak(64) == peak(40)


def request_of(**changes: Any) -> GenerateRequest:
    values = {**SETTINGS, "model": "tiny", "num_frames": 24, "segment_frames": 16, "overlap_frames": 4, "seed": 3}
    return GenerateRequest.from_flat(
        {name: value for name, value in {**values, **changes}.items() if value is not None}
    )


def to_file(pipeline: EasyAnimatePipeline, output: Path, redo: set[int] | None = None, **changes: Any) -> Frames:
    request = request_of(**changes)
    written = continue_to_file(pipeline, request, output, open_inputs(request), redo=Redo(redo or ()))
    video = read_video(written.path)
    assert video.request == json.loads(json.dumps(written.settings))  # which makes text of the frames of keyframes
    assert written.size == video.frames.shape[:3]
    return video.frames


def test_one_segment_of_a_file_is_made_anew(pipeline: EasyAnimatePipeline, tmp_path: Path) -> None:
    output = tmp_path / "long.png"
    before = to_file(pipeline, output)
    assert np.array_equal(to_file(pipeline, output), before)
    after = to_file(pipeline, output, redo={1})
    assert np.array_equal(after[:8], before[:8])
    assert not np.array_equal(after[16:], before[16:])
    assert f'"seed": {segment_seed(3, 1, attempt=1)}' in (segments_folder(output) / "00001.json").read_text()
    with pytest.raises(ConfigError, match=r"Segment 5 .* those there are: 0 to 1"):
        to_file(pipeline, output, redo={5})


def test_segments_of_another_picture_are_not_gone_on_from(pipeline: EasyAnimatePipeline, tmp_path: Path) -> None:
    picture, output = tmp_path / "start.png", tmp_path / "long.png"
    keyframes = {0: str(picture)}
    Image.fromarray(np.full((32, 32, 3), 200, np.uint8)).save(picture)
    before = to_file(pipeline, output, keyframes=keyframes)
    assert np.array_equal(to_file(pipeline, output, keyframes=keyframes), before)
    Image.fromarray(np.full((32, 32, 3), 20, np.uint8)).save(picture)
    with pytest.raises(ConfigError, match=r"made with other settings: request\.inputs was .*start\.png"):
        to_file(pipeline, output, keyframes=keyframes)


def test_a_request_without_a_seed_goes_on(pipeline: EasyAnimatePipeline, tmp_path: Path) -> None:
    output = tmp_path / "long.png"
    before = to_file(pipeline, output, seed=None, num_frames=28)
    longer = to_file(pipeline, output, seed=None, num_frames=40, fps=12)
    assert np.array_equal(longer[:24], before[:24])
    (segments_folder(output) / "settings.json").write_text("{}")
    with pytest.raises(InputFileError, match="names no seed"):
        to_file(pipeline, output, seed=None, num_frames=28)


def test_the_machine_is_no_setting_of_a_long_video(pipeline: EasyAnimatePipeline, tmp_path: Path) -> None:
    output = tmp_path / "long.png"
    before = to_file(pipeline, output, num_frames=20)
    assert np.array_equal(to_file(pipeline, output, num_frames=20, device="cpu", memory="12GB"), before)
    record = read_video(output).request
    assert record is not None
    assert record["model"] == {"model": "tiny", "dtype": "float32"}
    assert repeated(record).model.dtype == record["made"]["dtype"] == "float32"


def test_redo_needs_segments(pipeline: EasyAnimatePipeline) -> None:
    short = request_of(num_frames=8)
    assert not is_long(short, pipeline.can.is_continued, pipeline.frames_at_once)
    for redo, following in (({0}, False), (set(), True)):
        with pytest.raises(ConfigError, match="made at once"):
            check_redo(short, pipeline, redo, following)
    check_redo(short, pipeline, (), False)
    check_redo(request_of(), pipeline, {0}, False)
