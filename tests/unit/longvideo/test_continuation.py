"""Runs of long videos: streaming, going on after an interruption, making segments anew."""

from __future__ import annotations

import itertools
import tracemalloc
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from muybridge.errors import ConfigError, InputFileError, OutputError, ShapeError
from muybridge.longvideo import ContinuationSettings, Segment, continue_video, plan_segments, segment_seed
from muybridge.video import VideoWriter, read_video

Frames = npt.NDArray[np.uint8]
Generator = Callable[..., Any]
SETTINGS = ContinuationSettings(seed=7, request={"prompt": "a red circle", "size": (16, 16)})


class Sink:
    """Keeps all frames."""

    def __init__(self) -> None:
        self.pieces: list[Frames] = []

    def write(self, frames: Frames) -> None:
        self.pieces.append(frames.copy())

    @property
    def frames(self) -> Frames:
        return np.concatenate(self.pieces)


def plan(num_frames: int | None = 40, **settings: Any) -> Any:
    return plan_segments(num_frames, **{"segment_frames": 16, "overlap_frames": 4, "frame_multiple": 8, **settings})


def run(generate: Any, folder: Path, segments: Any = None, settings: Any = SETTINGS, **options: Any) -> Frames:
    sink = Sink()
    segments = plan() if segments is None else segments
    continue_video(generate, segments, folder, sink, settings, **options)
    return sink.frames


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("join", ["crossfade", "cut"])
def test_the_video_is_the_original_loop(tmp_path: Path, moving_gradient: Generator, join: Any) -> None:
    segments = list(plan(49, policy="reference"))
    assert [s.num_frames for s in segments] == [16, 16, 16, 8]
    settings = replace(SETTINGS, join=join)
    found = run(moving_gradient(with_latents=False), tmp_path / "work", segments, settings)

    generate, video = moving_gradient(with_latents=False), np.empty((0, 16, 16, 3), np.uint8)
    for segment in segments:
        carried = None if segment.index == 0 else Carried(video[-4:].copy())
        frames, _ = generate(segment, carried, segment_seed(7, segment.index))
        if segment.index and join == "crossfade":
            ramp = (np.arange(4) / 4).reshape(-1, 1, 1, 1)
            video[-4:] = np.rint(video[-4:] * (1 - ramp) + frames[:4] * ramp)
        video = np.concatenate([video, frames[4 if segment.index else 0 :]])
    assert len(video) == 44
    assert np.array_equal(found, video)


class Carried:
    latents = None

    def __init__(self, frames: Frames) -> None:
        self.frames = frames


@pytest.mark.parametrize("num_frames", [5, 16, 17, 23, 40, 57])
@pytest.mark.parametrize("settings", [{}, {"known_multiple": 4}, {"overlap_frames": 13}, {"has_last_keyframe": True}])
def test_the_video_has_the_length_asked_for(
    tmp_path: Path, moving_gradient: Generator, num_frames: int, settings: dict[str, Any]
) -> None:
    sink = Sink()
    segments = list(plan(num_frames, **settings))
    result = continue_video(moving_gradient(), segments, tmp_path / "work", sink, SETTINGS)
    assert len(sink.frames) == result.num_frames == num_frames
    assert result.num_segments == result.num_made == len(segments)
    assert [s.num_frames for s in result.drift.segments] == [s.num_added for s in segments]


def test_the_file_is_written_as_segments_come(tmp_path: Path, moving_gradient: Generator) -> None:
    with VideoWriter(tmp_path / "out.png") as writer:
        continue_video(moving_gradient(), plan(), tmp_path / "work", writer, SETTINGS)
    assert np.array_equal(read_video(writer.path).frames, run(moving_gradient(), tmp_path / "other"))


@pytest.mark.parametrize("with_latents", [True, False])
@pytest.mark.parametrize("stops_at", [0, 1, 3])
def test_an_interrupted_run_goes_on(
    tmp_path: Path, moving_gradient: Generator, stops_at: int, with_latents: bool
) -> None:
    expected = run(moving_gradient(with_latents=with_latents), tmp_path / "whole", plan(60))
    first = moving_gradient(stops_at=stops_at, with_latents=with_latents)
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "out.mp4") as writer:
        continue_video(first, plan(60), tmp_path / "work", writer, SETTINGS)
    assert not (tmp_path / "out.mp4").exists()
    second = moving_gradient(with_latents=with_latents)
    assert np.array_equal(run(second, tmp_path / "work", plan(60)), expected)
    assert second.made == list(range(stops_at, 5))
    assert files(tmp_path / "work") == files(tmp_path / "whole")
    third = moving_gradient()
    assert np.array_equal(run(third, tmp_path / "work", plan(60)), expected)
    assert third.made == []


def test_a_segment_counts_only_once_its_note_is_there(tmp_path: Path, moving_gradient: Generator) -> None:
    expected = run(moving_gradient(), tmp_path / "work")
    (tmp_path / "work" / "00001.json").unlink()
    (tmp_path / "work" / "00001.npz").write_bytes(b"half of it")
    (tmp_path / "work" / ".muybridge-0123456789abcdef.part").write_bytes(b"killed while writing")
    again = moving_gradient()
    assert np.array_equal(run(again, tmp_path / "work"), expected)
    assert again.made == [1]
    assert not list((tmp_path / "work").glob("*.part"))


def test_a_longer_plan_goes_on(tmp_path: Path, moving_gradient: Generator) -> None:
    endless = run(moving_gradient(), tmp_path / "work", itertools.islice(plan(None), 3))
    assert len(endless) == 40
    longer = moving_gradient()
    frames = run(longer, tmp_path / "work", plan(64))
    assert longer.made == [3, 4]
    assert np.array_equal(frames, run(moving_gradient(), tmp_path / "other", plan(64)))
    assert np.array_equal(frames[:36], endless[:36])


def test_another_plan_is_named(tmp_path: Path, moving_gradient: Generator) -> None:
    run(moving_gradient(), tmp_path / "work", plan(32))
    with pytest.raises(ConfigError, match=r"Segment 2 .* num_frames=8 \(now 16\).*redo=\{2\}"):
        run(moving_gradient(), tmp_path / "work", plan(60))
    with pytest.raises(ConfigError, match=r"Segment 0 .*num_frames=16 \(now 24\).*redo=\{0\}"):
        run(moving_gradient(), tmp_path / "work", plan(60, segment_frames=24))
    again = moving_gradient()
    assert len(run(again, tmp_path / "work", plan(60), redo={2})) == 60
    assert again.made == [2, 3, 4]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (replace(SETTINGS, seed=8), "seed was 7, now 8"),
        (replace(SETTINGS, join="cut"), 'join was "crossfade", now "cut"'),
        (replace(SETTINGS, request={"prompt": "a blue circle", "size": [16, 16]}), "request.prompt was .*blue"),
        (replace(SETTINGS, request={"prompt": "a red circle"}), r"request.size was \[16, 16\], now absent"),
        (replace(SETTINGS, request={**SETTINGS.request, "steps": 4}), "request.steps was absent, now 4"),
    ],
)
def test_another_setting_is_named(
    tmp_path: Path, moving_gradient: Generator, settings: ContinuationSettings, message: str
) -> None:
    run(moving_gradient(), tmp_path / "work")
    before = files(tmp_path / "work")
    with pytest.raises(ConfigError, match=message):
        run(moving_gradient(), tmp_path / "work", settings=settings)
    assert files(tmp_path / "work") == before


def test_one_segment_is_made_anew(tmp_path: Path, moving_gradient: Generator) -> None:
    before = run(moving_gradient(), tmp_path / "work", plan(60))
    again = moving_gradient()
    after = run(again, tmp_path / "work", plan(60), redo={2})
    assert again.made == [2]
    assert again.seeds == [segment_seed(7, 2, attempt=1)]
    changed = np.flatnonzero((before != after).any((1, 2, 3)))
    # Segment 2 adds frames 28 to 39 and fades in over the 4 before; the one after it fades in from 36 on.
    assert set(changed) <= set(range(24, 40))
    assert set(range(28, 36)) <= set(changed)
    assert np.array_equal(run(moving_gradient(), tmp_path / "work", plan(60)), after)
    assert not np.array_equal(run(moving_gradient(), tmp_path / "work", plan(60), redo={2}), after)


def test_those_after_it_are_made_anew_by_choice(tmp_path: Path, moving_gradient: Generator) -> None:
    run(moving_gradient(), tmp_path / "work", plan(60))
    again = moving_gradient(stops_at=3)
    with pytest.raises(KeyboardInterrupt):
        run(again, tmp_path / "work", plan(60), redo={1}, is_following_redone=True)
    rest = moving_gradient()
    frames = run(rest, tmp_path / "work", plan(60))
    assert (again.made, rest.made) == ([1, 2], [3, 4])
    assert again.seeds + rest.seeds == [segment_seed(7, 1, 1), *(segment_seed(7, index) for index in (2, 3, 4))]
    undisturbed = moving_gradient()
    run(undisturbed, tmp_path / "other", plan(60))
    expected = run(moving_gradient(), tmp_path / "other", plan(60), redo={1}, is_following_redone=True)
    assert np.array_equal(frames, expected)


def test_several_are_made_anew_with_those_after_the_first(tmp_path: Path, moving_gradient: Generator) -> None:
    run(moving_gradient(), tmp_path / "work", plan(60))
    again = moving_gradient()
    run(again, tmp_path / "work", plan(60), redo={3, 1}, is_following_redone=True)
    assert again.made == [1, 2, 3, 4]
    assert again.seeds == [segment_seed(7, index, attempt) for index, attempt in ((1, 1), (2, 0), (3, 1), (4, 0))]


def test_a_redo_that_was_interrupted_is_not_lost(tmp_path: Path, moving_gradient: Generator) -> None:
    run(moving_gradient(), tmp_path / "work")
    for _ in range(2):  # asking twice is not asking for a second other one
        with pytest.raises(KeyboardInterrupt):
            run(moving_gradient(stops_at=1), tmp_path / "work", redo={1})
    again = moving_gradient()
    run(again, tmp_path / "work")
    assert (again.made, again.seeds) == ([1], [segment_seed(7, 1, 1)])


def test_wrong_redo(tmp_path: Path, moving_gradient: Generator) -> None:
    with pytest.raises(ConfigError, match="there are none yet"):
        run(moving_gradient(), tmp_path / "work", redo={0})
    run(moving_gradient(), tmp_path / "work")
    with pytest.raises(ConfigError, match=r"Segment 9 .* not made; those there are: 0 to 2"):
        run(moving_gradient(), tmp_path / "work", redo={1, 9})
    with pytest.raises(ConfigError, match="no effect without segments in redo"):
        run(moving_gradient(), tmp_path / "work", is_following_redone=True)
    again = moving_gradient()
    run(again, tmp_path / "work")
    assert again.made == []


def test_seeds() -> None:
    seeds = {segment_seed(seed, index, attempt) for seed in range(9) for index in range(9) for attempt in range(9)}
    assert len(seeds) == 9**3
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert segment_seed(43, 0) == 43
    assert segment_seed(43, 1) == 9180227594613981899
    for wrong in (-1, 2**63):
        with pytest.raises(ConfigError, match="between 0 and"):
            segment_seed(wrong, 0)


def test_a_generator_that_makes_something_else(tmp_path: Path, moving_gradient: Generator) -> None:
    inner = moving_gradient()
    cases: list[tuple[Callable[[Frames], Any], str]] = [
        (lambda frames: frames[:-1], r"Segment 1 must be \[16, 16, 16, 3\]; .* \[15,"),
        (lambda frames: frames[:, :8], r"made \[16, 8, 16, 3\]"),
        (lambda frames: frames / 255, "uint8"),
        (lambda frames: frames.tolist(), "numpy array"),
    ]
    for index, (change, message) in enumerate(cases):

        def generate(segment: Segment, carried: Any, seed: int, change: Any = change) -> Any:
            frames, latents = inner(segment, carried, seed)
            return (change(frames) if segment.index == 1 else frames), latents

        folder = tmp_path / str(index)
        with pytest.raises(ShapeError, match=message):
            run(generate, folder)
        assert sorted(files(folder)) == ["00000.json", "00000.npz", "00000.safetensors", "settings.json"]


def test_plans_that_leave_a_gap(tmp_path: Path, moving_gradient: Generator) -> None:
    first, second, third = plan()
    for wrong, message in (
        ([second], "index 1"),
        ([first, replace(second, index=5)], "index 5"),
        ([first, replace(second, start=13)], "goes on at frame 17, and the video has 16"),
        ([first, replace(second, num_known=0)], "0 known"),
        ([first, second, replace(third, num_known=40, start=-12, add_start=40)], "leaves 16 frames"),
    ):
        with pytest.raises(ConfigError, match=message):
            run(moving_gradient(), tmp_path / "work", wrong)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("00001.npz", lambda data: data[: len(data) // 2], r"00001\.npz cannot be read.*Delete .*00001\.json"),
        ("00001.npz", lambda data: data.replace(b"frames", b"framed"), "cannot be read"),
        ("00001.json", lambda data: data[:20], r"00001\.json cannot be read"),
        ("00001.json", lambda _: b"[1]", "holds a list"),
        ("00001.json", lambda _: b"{}", "no note of a segment"),
        ("00001.json", lambda data: data.replace(b'"index": 1', b'"index": 2'), "no note of segment 1"),
        ("settings.json", lambda _: b"{", r"settings\.json cannot be read"),
    ],
)
def test_damaged_files(tmp_path: Path, moving_gradient: Generator, name: str, damage: Any, message: str) -> None:
    run(moving_gradient(), tmp_path / "work")
    path = tmp_path / "work" / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputFileError, match=message):
        run(moving_gradient(), tmp_path / "work")


def test_damaged_latents(tmp_path: Path, moving_gradient: Generator) -> None:
    expected = run(moving_gradient(), tmp_path / "work")
    (tmp_path / "work" / "00001.safetensors").write_bytes(b"1234")
    # They are read only where the next segment needs them.
    assert np.array_equal(run(moving_gradient(), tmp_path / "work"), expected)
    with pytest.raises(InputFileError, match=r"00001\.safetensors cannot be read"):
        run(moving_gradient(), tmp_path / "work", redo={2})


def test_latents_come_back_as_they_were(tmp_path: Path) -> None:
    carried: list[Any] = []
    latents = torch.randn(1, 4, 2, 3, 3, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)

    def generate(segment: Segment, carry: Any, seed: int) -> Any:
        carried.append(None if carry is None else carry.latents)
        return np.full((segment.num_frames, 2, 2, 3), seed % 256, np.uint8), latents.transpose(3, 4)

    run(generate, tmp_path / "work", itertools.islice(plan(None), 2))
    run(generate, tmp_path / "work", itertools.islice(plan(None), 3))
    assert [index for index, value in enumerate(carried) if value is None] == [0]
    for value in carried[1:]:
        assert value.dtype == torch.bfloat16
        assert torch.equal(value, latents.transpose(3, 4))


def test_a_folder_of_something_else(tmp_path: Path, moving_gradient: Generator) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    (tmp_path / "mine" / ".muybridge-0.part").write_text("another program's")
    (tmp_path / "file").write_text("keep")
    run(moving_gradient(), tmp_path / "other")
    for folder, message in (("mine", "holds other things"), ("file", "could not be"), ("no/where", "could not be")):
        with pytest.raises(OutputError, match=message):
            run(moving_gradient(), tmp_path / folder)
    assert sorted(files(tmp_path / "mine")) == [".muybridge-0.part", "notes.txt"]
    # A note of another video that was put there by hand.
    run(moving_gradient(), tmp_path / "work", settings=replace(SETTINGS, seed=8))
    (tmp_path / "work" / "00002.json").write_bytes((tmp_path / "other" / "00002.json").read_bytes())
    with pytest.raises(ConfigError, match="with other settings"):
        run(moving_gradient(), tmp_path / "work", settings=replace(SETTINGS, seed=8))


def test_wrong_settings() -> None:
    with pytest.raises(ConfigError, match="join must be"):
        ContinuationSettings(seed=1, join="fade")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="between 0 and"):
        ContinuationSettings(seed=-1)


def test_a_request_that_is_no_json(tmp_path: Path, moving_gradient: Generator) -> None:
    for value in (float("nan"), {1, 2}, b"bytes"):
        with pytest.raises(ConfigError, match="JSON"):
            run(moving_gradient(), tmp_path / "work", settings=ContinuationSettings(1, request={"value": value}))
    assert not (tmp_path / "work").exists()


def test_no_finished_segment_stays_in_memory(tmp_path: Path, moving_gradient: Generator) -> None:
    inner, made = moving_gradient(), []

    def generate(segment: Segment, carried: Any, seed: int) -> Any:
        assert [index for index, frames in enumerate(made) if frames() is not None] == []
        frames, latents = inner(segment, carried, seed)
        made.append(weakref.ref(frames))
        return frames, latents

    continue_video(generate, plan(100), tmp_path / "work", None, SETTINGS)
    assert len(made) == 8


def test_memory_does_not_grow_with_the_video(tmp_path: Path, moving_gradient: Generator) -> None:
    size, segment_frames = 24, 400
    segment_bytes = segment_frames * size * size * 3

    class Counter:
        num_frames = 0

        def write(self, frames: Frames) -> None:
            self.num_frames += len(frames)

    def peak(num_frames: int) -> int:
        counter, generate = Counter(), moving_gradient(size)
        segments = plan(num_frames, segment_frames=segment_frames)
        tracemalloc.start()
        continue_video(generate, segments, tmp_path / str(num_frames), counter, SETTINGS)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert counter.num_frames == num_frames
        return used

    peak(1000)  # what is imported on first use
    assert peak(8000) - peak(1000) < segment_bytes // 10
