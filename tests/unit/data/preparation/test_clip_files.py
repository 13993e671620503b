"""Clips as files: without loss where that can be, upright, and with the times of their source."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from av.codec.codec import Codec, UnknownCodecError
from av.video.reformatter import ColorTrc
from tests.films import scene

from muybridge.data.clips import frames_of
from muybridge.data.crop import Box, crop_extra
from muybridge.data.preparation.stage import Refused
from muybridge.data.preparation.stages.probe import Probe, ProbeStageSettings
from muybridge.data.preparation.stages.write import Write, WriteSettings
from muybridge.data.probe import ProbeSettings, probe
from muybridge.data.record import Record
from muybridge.errors import InputFileError
from muybridge.video.cutting import MOST_MISSING, copy_part
from muybridge.video.moments import frames_at
from muybridge.video.raw_frames import RawFrames

FilmMaker = Callable[..., Path]
SIZE = (64, 48)
VARIABLE = [0, *np.cumsum(np.random.default_rng(0).choice([20, 33, 50, 90], 119)).tolist()]
B_FRAMES = {"preset": "medium", "bf": "3", "g": "24"}
KINDS = {
    "h264.mp4": {"codec": "libx264", **B_FRAMES},
    "h264.mkv": {"codec": "libx264", **B_FRAMES},
    "variable.mp4": {"codec": "libx264", "times_ms": VARIABLE, **B_FRAMES},
    "hevc.mp4": {
        "codec": "libx265",
        "preset": "fast",
        "x265-params": "log-level=none:pools=1:frame-threads=1:keyint=24:bframes=4",
    },
    "mpeg4.mp4": {"codec": "mpeg4", "bf": "2", "g": "24"},
}


def film(folder: Path, name: str, make_film: FilmMaker, num_frames: int) -> Path:
    options = KINDS[name]
    try:
        Codec(options["codec"], "w")
    except UnknownCodecError:
        pytest.skip(f"FFmpeg is here without {options['codec']}")
    return make_film(folder / name, scene(3, num_frames, SIZE, (1.5, 0.5)), **options)


def probed(path: Path, settings: ProbeSettings | None = None, **values: object) -> Record:
    found = probe(replace(Record(path.stem, str(path), "video"), **values), settings)
    assert isinstance(found, Record), found
    return found


def written(record: Record, folder: Path, **settings: str) -> Record:
    (found,) = Write(WriteSettings.model_validate(settings)).run(record, folder)
    return found


def check_cut(path: Path, target: Path, times: list[float], first: int, after: int) -> bool:
    """Whether a part could be copied; where it was, its frames are those of the source at the same times."""
    try:
        count = copy_part(path, target, times[first], times[after])
    except InputFileError as error:
        if error.fault == "not-copied":
            return False
        raise
    assert 0 <= after - first - count <= MOST_MISSING
    found = list(RawFrames(target))
    part = list(RawFrames(path, times[first], times[after]))[:count]
    assert len(found) == count
    for (time, frame), (wanted, expected) in zip(found, part, strict=True):
        assert time == pytest.approx(wanted - times[first], abs=2e-3)
        assert np.array_equal(frame.to_ndarray(), expected.to_ndarray())
    shown = frames_at(target, [time for time, _ in found])
    wanted_frames = frames_at(path, [time for time, _ in part])
    assert all(np.array_equal(a, b) for a, b in zip(shown, wanted_frames, strict=True))
    return True


@pytest.mark.parametrize("name", ["h264.mp4", "h264.mkv", "variable.mp4", "hevc.mp4"])
def test_copied_parts_are_those_of_the_source(tmp_path: Path, make_film: FilmMaker, name: str) -> None:
    path = film(tmp_path, name, make_film, 40)
    times = [time for time, _ in RawFrames(path)]
    assert check_cut(path, tmp_path / "out.mp4", times, 11, 36)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(KINDS))
def test_forty_random_parts(tmp_path: Path, make_film: FilmMaker, name: str) -> None:
    path = film(tmp_path, name, make_film, 120)
    times = [time for time, _ in RawFrames(path)]
    rng = np.random.default_rng(1)
    spans = [sorted(rng.choice(120, 2, replace=False).tolist()) for _ in range(40)]
    copied = [(b - a, check_cut(path, tmp_path / "out.mp4", times, a, b)) for a, b in spans]
    long = [done for length, done in copied if length > MOST_MISSING]
    assert sum(long) >= 0.9 * len(long)  # the others are encoded


def test_a_clip_written_stands_for_its_part(tmp_path: Path, make_film: FilmMaker) -> None:
    record = probed(film(tmp_path, "h264.mp4", make_film, 48), start=0.5, end=1.5)
    found = written(record, tmp_path, clips="copy")
    assert (found.id, found.start, found.end) == (record.id, 0, None)
    assert Path(found.media).parent == tmp_path
    assert found.extra["written"] == {"how": "copied", "from": {"media": record.media, "start": 0.5, "end": 1.5}}
    assert found.frames in range(20, 25)
    assert found.duration_s == pytest.approx((found.frames or 0) / 24, abs=0.01)
    again = probe(found)
    assert isinstance(again, Record)
    assert (again.frames, again.width, again.height) == (found.frames, *SIZE)
    assert written(record, tmp_path, clips="copy") == found
    assert written(record, tmp_path, clips="none") == record
    assert "write.clips=copy" in (Write().idle_reason() or "")


def test_what_cannot_be_copied_is_encoded(tmp_path: Path, make_film: FilmMaker) -> None:
    record = probed(make_film(tmp_path / "a.avi", scene(3, 24, SIZE), codec="mjpeg", kind="yuvj420p"), end=0.5)
    record = replace(record, extra={**record.extra, **crop_extra(Box(8, 4, 40, 32, *SIZE))}, width=40, height=32)
    found = written(record, tmp_path, clips="copy")
    assert found.extra["written"]["how"] == "encoded"
    assert "crop" not in found.extra
    assert (found.width, found.height, found.frames) == (40, 32, 12)
    times = [0.1, 0.3]
    for one, other in zip(frames_of(found, times), frames_of(record, times), strict=True):
        assert np.abs(one.astype(int) - other).mean() < 6


def test_encoded_clips_have_even_times_or_those_of_their_source(tmp_path: Path, make_film: FilmMaker) -> None:
    record = probed(film(tmp_path, "variable.mp4", make_film, 40), start=VARIABLE[5] / 1000, end=VARIABLE[30] / 1000)
    own = written(record, tmp_path, clips="encode", rate="variable")
    times = [time for time, _ in RawFrames(Path(own.media))]
    assert times == pytest.approx([(each - VARIABLE[5]) / 1000 for each in VARIABLE[5:30]], abs=1e-3)
    even = written(record, tmp_path, clips="encode")
    steps = np.diff([time for time, _ in RawFrames(Path(even.media))])
    assert steps == pytest.approx([1 / (record.fps or 0)] * len(steps), abs=2e-3)
    assert even.duration_s == pytest.approx(record.duration_s, abs=0.05)


@pytest.mark.parametrize("how", ["copy", "encode"])
def test_turned_videos_are_upright(tmp_path: Path, make_film: FilmMaker, how: str) -> None:
    one = 65536
    matrix = [0, one, 0, -one, 0, 0, 0, 0, 1 << 30]
    record = probed(make_film(tmp_path / "r.mp4", scene(3, 24, SIZE), matrix=matrix, g="6"), end=0.75)
    found = written(record, tmp_path, clips=how)
    assert (found.width, found.height) == (48, 64)
    assert found.extra["written"]["how"] == {"copy": "copied", "encode": "encoded"}[how]
    (frame,), (wanted,) = frames_of(found, [0.2]), frames_of(record, [0.2])
    assert np.abs(frame.astype(int) - wanted).mean() < 6


def test_deep_colours_keep_their_range_and_high_range_is_not_paled(tmp_path: Path, make_film: FilmMaker) -> None:
    deep = probed(make_film(tmp_path / "ten.mp4", scene(3, 12, SIZE), kind="yuv420p10le", qp="4"), end=0.4)
    encoded = written(deep, tmp_path, clips="encode")
    (frame,), (wanted,) = frames_of(encoded, [0.2]), frames_of(deep, [0.2])
    assert np.abs(frame.astype(int) - wanted).mean() < 6
    path = make_film(
        tmp_path / "hdr.mp4", scene(3, 12, SIZE), kind="yuv420p10le", context={"color_trc": ColorTrc.SMPTE2084}
    )
    high = probed(path, ProbeSettings(allow_high_range=True), end=0.4)
    with pytest.raises(Refused, match="high dynamic range") as caught:
        written(high, tmp_path, clips="encode")
    assert caught.value.rule == "hdr"
    copied = probe(written(high, tmp_path, clips="copy"), ProbeSettings(allow_high_range=True))
    assert isinstance(copied, Record)
    assert copied.extra["high_range"] == "PQ"


def names() -> Iterator[str]:
    yield from (
        "two\nlines.mp4",
        "\"quoted\" 'too'.mp4",
        "film 🎬.mp4",
        b"not-\xff-utf8.mp4".decode(errors="surrogateescape"),
    )


def test_any_name_is_one(tmp_path: Path, make_film: FilmMaker) -> None:
    data = film(tmp_path, "h264.mp4", make_film, 24).read_bytes()
    for index, name in enumerate(names()):
        path = tmp_path / name
        path.write_bytes(data)
        record = replace(probed(path, end=0.5), id=f"{index:016}")
        found = [written(record, tmp_path, clips=how) for how in ("copy", "encode")]
        assert all(Path(each.media).is_file() for each in found)
        assert len(list(itertools.islice(frames_of(record, [0.0]), 2))) == 1


@pytest.mark.parametrize("settings", [{"clips": "copy"}, {"clips": "encode"}, {"clips": "encode", "rate": "variable"}])
def test_a_source_that_is_gone_is_a_failure_of_its_own(
    tmp_path: Path, make_film: FilmMaker, settings: dict[str, str]
) -> None:
    record = probed(make_film(tmp_path / "a.mp4", scene(3, 12, SIZE)), end=0.4)
    Path(record.media).unlink()
    with pytest.raises(Refused, match="No such file") as caught:
        written(record, tmp_path, **settings)
    assert caught.value.status == "unreadable"
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputFileError, match="No such file"):
        copy_part(record.source, tmp_path / "out.mp4", 0.0, 0.4)


def test_how_long_a_file_was_stays_when_a_clip_is_another(tmp_path: Path, make_film: FilmMaker) -> None:
    path = make_film(tmp_path / "a.mp4", scene(3, 36, SIZE))
    stage = Probe(ProbeStageSettings(min_side=0, min_seconds=1.0))
    (record,) = stage.run(Record("a", str(path), "video"), tmp_path)
    clip = written(replace(record, start=0.5, end=1.0), tmp_path, clips="copy")
    assert (clip.extra["file_seconds"], clip.extra["duration"]) == (1.5, pytest.approx(0.5, abs=0.1))
    assert stage.verdict(clip) is None
    assert Probe(ProbeStageSettings(min_side=0, min_seconds=2.0)).verdict(clip) is not None
