"""Frames at exact times, cut and never stretched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from muybridge.data.clips import Draw, clip_times, draw_clip, read_clip
from muybridge.data.probe import probe
from muybridge.data.record import Record
from muybridge.errors import ConfigError, InputFileError
from muybridge.types import VideoShape
from muybridge.video.moments import frames_at

ClipMaker = Callable[..., Path]
FIRST = Draw(start=0.0)


def probed(path: Path, **values: object) -> Record:
    kind = "image" if path.suffix == ".png" else "video"
    found = probe(replace(Record("x", str(path), kind), **values))
    assert isinstance(found, Record), found
    return found


def levels(frames: np.ndarray) -> list[int]:
    """Numbers of the frames of `make_clip`."""
    return (frames.reshape(len(frames), -1).mean(axis=1) / 8).round().astype(int).tolist()


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts", "gif"])
@pytest.mark.parametrize("start", [0.0, 0.55])
def test_frames_are_taken_by_time(tmp_path: Path, make_clip: ClipMaker, suffix: str, start: float) -> None:
    codec = {"avi": "mpeg4", "gif": "gif"}.get(suffix, "libx264")
    kind = "rgb8" if suffix == "gif" else "yuv420p"
    path = make_clip(tmp_path / f"a.{suffix}", codec=codec, kind=kind, fps=20)
    times = [start + index / 8 for index in range(4)]
    shown = np.stack(list(frames_at(path, times)))
    # The middle of a frame is asked for where no time is the border of two.
    assert np.abs(np.array(levels(shown)) - [int((time + 1e-3) * 20) for time in times]).max() <= (suffix == "gif")


@pytest.mark.parametrize("name", ["a.mp4", "b.mkv"])
def test_rounded_times_do_not_show_the_frame_before(clips: Path, name: str) -> None:
    assert levels(np.stack(list(frames_at(clips / name, [index / 24 for index in range(12)])))) == list(range(12))


def test_variable_rates_keep_their_speed(tmp_path: Path, make_clip: ClipMaker) -> None:
    path = make_clip(tmp_path / "v.mkv", 6, times_ms=[0, 40, 80, 400, 440, 900])
    assert levels(np.stack(list(frames_at(path, [0.0, 0.125, 0.25, 0.375, 0.5, 0.625])))) == [0, 2, 2, 2, 4, 4]
    assert levels(read_clip(probed(path), VideoShape(3, 32, 32), 0.2, FIRST)) == [0, 2, 3]


def test_a_clip_of_a_part(clips: Path) -> None:
    record = probed(clips / "a.mp4", start=0.25, end=0.75)
    shape = VideoShape(3, 32, 32)
    assert levels(read_clip(record, shape, 1 / 8, FIRST)) == [6, 9, 12]
    last = read_clip(record, shape, 1 / 8, Draw(start=1.0))
    assert levels(last) == [11, 14, 17]  # frame 17 is the last before the part's end
    with pytest.raises(ConfigError, match="too short for 9 frames"):
        read_clip(record, VideoShape(9, 32, 32), 1 / 8, FIRST)
    with pytest.raises(ConfigError, match="probe it first"):
        clip_times(Record("x", "a.mp4", "video"), 1, 0.1, FIRST)


def test_every_draw_stays_inside(clips: Path) -> None:
    record = probed(clips / "a.mp4")
    for start in np.linspace(0, 1, 9):
        frames = read_clip(record, VideoShape(2, 16, 16), 1 / 24, Draw(start=float(start)))
        first, second = levels(frames)
        assert second - first == 1


def test_what_lies_in_a_tar_or_a_folder(tmp_path: Path, clips: Path) -> None:
    from muybridge.data.readers import read_dataset
    from muybridge.data.writers import write_webdataset

    record = probed(clips / "a.mp4")
    write_webdataset([record], tmp_path / "shards")
    packed = probe(read_dataset(tmp_path / "shards").records[0])
    assert isinstance(packed, Record)
    shape = VideoShape(4, 16, 32)
    assert np.array_equal(read_clip(packed, shape, 0.1, FIRST), read_clip(record, shape, 0.1, FIRST))
    for index in range(5):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 8 * index, np.uint8)).save(tmp_path / f"pictures/{index}.png")
    folder = probed(tmp_path / "pictures", fps=10.0)
    assert levels(read_clip(folder, VideoShape(2, 8, 8), 0.3, FIRST)) == [0, 3]


def test_pictures_are_cut_to_cover(tmp_path: Path) -> None:
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :10], pixels[:, 30:] = (250, 0, 0), (0, 0, 250)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    record = probed(tmp_path / "p.png")
    shape = VideoShape(1, 20, 20)
    assert np.array_equal(read_clip(record, shape, 1, Draw())[0], pixels[:, 10:30])
    assert np.array_equal(read_clip(record, shape, 1, Draw(left=0.0))[0], pixels[:, :20])
    assert np.array_equal(read_clip(record, shape, 1, Draw(left=1.0, mirrored=True))[0], pixels[:, :19:-1])
    half = read_clip(record, VideoShape(1, 10, 20), 1, Draw())[0]
    assert half.shape == (10, 20, 3)
    assert abs(int(half[5, 2, 0]) - 250) < 3
    with pytest.raises(ConfigError, match="has one frame, not 2"):
        read_clip(record, VideoShape(2, 20, 20), 1, Draw())


def test_files_that_end_too_early_are_said(tmp_path: Path, clips: Path) -> None:
    with pytest.raises(InputFileError, match=r"ends at 1 s, before 1.2 s") as caught:
        list(frames_at(clips / "a.mp4", [0.5, 1.2]))
    assert caught.value.fault == "broken-tail"
    for times in ([], [-0.1], [0.2, 0.1]):
        with pytest.raises(ConfigError, match="from 0 on and ascending"):
            frames_at(clips / "a.mp4", times)
    record = probed(clips / "a.mp4")
    (tmp_path / "a.mp4").write_bytes(b"no")
    with pytest.raises(InputFileError, match="cannot be read"):
        read_clip(replace(record, media=str(tmp_path / "a.mp4")), VideoShape(2, 8, 8), 0.1, FIRST)


def test_draws_depend_on_the_key_and_the_record_alone() -> None:
    draws = {draw_clip(name, key, True, True) for name in ("a", "b") for key in ((0, 0), (0, 1), (1, 0))}
    assert len(draws) == 6
    assert draw_clip("a", (0, 1), True, True) in draws
    many = [draw_clip("a", (0, epoch), True, True) for epoch in range(400)]
    assert 0.4 < np.mean([draw.mirrored for draw in many]) < 0.6
    assert abs(np.mean([draw.left for draw in many]) - 0.5) < 0.05
    plain = draw_clip("a", (0, 0))
    assert (plain.left, plain.top, plain.mirrored) == (0.5, 0.5, False)
    assert 0 <= plain.start < 1


@pytest.mark.parametrize("matrix", [None, [0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30]], ids=["upright", "turned"])
def test_frames_of_large_videos_are_scaled_as_they_are_converted(
    tmp_path: Path, make_clip: ClipMaker, matrix: list[int] | None
) -> None:
    """The fast way and the plain one give the same picture, but for what two filters differ in."""
    path = make_clip(tmp_path / "a.mp4", 2, (96, 64), matrix=matrix, noise=100, qp="0")
    record = probed(path)
    shape = VideoShape(1, 36, 36)
    (whole,) = frames_at(path, [0.0])
    (least,) = frames_at(path, [0.0], cover=(36, 36))
    assert whole.shape[:2] == (record.height, record.width) == ((96, 64) if matrix else (64, 96))
    assert least.shape[:2] == ((54, 36) if matrix else (36, 54))
    fast = read_clip(record, shape, 1, FIRST)[0].astype(int)
    plain = np.asarray(Image.fromarray(whole).resize((least.shape[1], least.shape[0]), Image.Resampling.BICUBIC))
    plain = plain[9:45] if matrix else plain[:, 9:45]
    assert np.abs(fast - plain).mean() < 2
    assert np.abs(fast - plain[::-1]).mean() > 5
    (enlarged,) = frames_at(path, [0.0], cover=(200, 200))
    assert np.array_equal(enlarged, whole)
