"""Hostile and odd files, each with what becomes of it."""

from __future__ import annotations

import pickle
import wave
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import ColorTrc
from PIL import Image

from muybridge.data.clips import Draw, read_clip
from muybridge.data.probe import ProbeSettings, probe, probe_all
from muybridge.data.readers import read_dataset
from muybridge.data.record import Record, Refusal
from muybridge.errors import InputFileError
from muybridge.types import VideoShape

ClipMaker = Callable[..., Path]


def record_of(path: Path, **values: object) -> Record:
    kind = "image" if path.suffix == ".png" else "video"
    return replace(Record("x", str(path), kind), **values)


def rule_of(path: Path, settings: ProbeSettings | None = None) -> str:
    found = probe(record_of(path), settings)
    assert isinstance(found, Refusal), found
    assert str(path) in found.where
    assert str(path) not in found.reason
    return found.rule


def sound(path: Path, **values: object) -> Record:
    found = probe(record_of(path, **values))
    assert isinstance(found, Record), found
    return found


def test_whole_files(clips: Path) -> None:
    found = read_dataset(clips)
    kept, refused = probe_all(found.records)
    assert not refused
    assert [(r.width, r.height, r.fps, r.frames, r.duration_s) for r in kept] == [
        (32, 32, 24.0, 24, 1.0),
        (48, 32, 24.0, 12, pytest.approx(0.5, abs=2e-3)),
        (32, 48, None, 1, None),
    ]
    assert [r.id for r in kept] == [r.id for r in found.records]
    assert all(probe(r, ProbeSettings(every_frame=True)) == r for r in kept)


def test_parts(clips: Path) -> None:
    found = sound(clips / "a.mp4", start=0.25, end=0.75)
    assert (found.frames, found.duration_s) == (12, 0.5)
    past = probe(record_of(clips / "a.mp4", start=0.5, end=1.5))
    assert isinstance(past, Refusal)
    assert past.rule == "broken-tail"
    assert "[0.5-1.5 s]" in past.where
    beyond = probe(record_of(clips / "a.mp4", start=2.0))
    assert isinstance(beyond, Refusal)
    assert beyond.rule == "empty-part"


def test_what_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("a playlist?\nfile other.mp4\n" * 20)
    with wave.open(str(tmp_path / "sound.mp4"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(1600))
    (tmp_path / "p.png").write_bytes(b"\x89PNG no more")
    assert rule_of(tmp_path / "empty.mp4") == "unreadable"
    assert rule_of(tmp_path / "text.mp4") == "unreadable"
    assert rule_of(tmp_path / "sound.mp4") == "no-video"
    with av.open(str(tmp_path / "none.mp4"), "w") as file:
        file.add_stream("libx264", rate=24)
    assert rule_of(tmp_path / "gone.mp4") == "unreadable"
    assert rule_of(tmp_path / "none.mp4") in ("no-video", "unreadable")
    assert rule_of(tmp_path / "p.png") == "unreadable"


def test_whatever_bytes_there_are_a_file_is_read_or_refused(tmp_path: Path, clips: Path) -> None:
    rng = np.random.default_rng(0)
    rules: set[str] = set()
    for number in range(60):
        source = clips / ("a.mp4", "b.mkv", "c.png")[number % 3]
        data = bytearray(source.read_bytes())
        place = int(rng.integers(len(data)))
        if number % 4:
            data[place : place + int(rng.integers(1, 200))] = rng.bytes(int(rng.integers(1, 200)))
        else:
            del data[place:]
        path = tmp_path / f"{number}{source.suffix}"
        path.write_bytes(bytes(data))
        found = probe(record_of(path), ProbeSettings(every_frame=number % 2 == 0))
        if isinstance(found, Refusal):
            rules.add(found.rule)
            continue
        try:
            assert len(read_clip(found, VideoShape(1, 8, 8), 0.1, Draw(0.9))) == 1
        except InputFileError as error:
            rules.add(f"read: {error.fault}")
    assert {"unreadable", "broken-tail"} <= rules


def test_files_cut_short(tmp_path: Path, make_clip: ClipMaker, clips: Path) -> None:
    whole = make_clip(tmp_path / "front.mp4", 48, container={"movflags": "faststart"}, qp="0").read_bytes()
    for name, data, rule in (
        ("front.mp4", whole[: len(whole) * 6 // 10], "broken-tail"),
        ("back.mp4", (clips / "a.mp4").read_bytes()[:600], "unreadable"),  # its index stands at the end
    ):
        (tmp_path / name).write_bytes(data)
        assert rule_of(tmp_path / name) == rule
    whole = make_clip(tmp_path / "m.mkv", 48, qp="0").read_bytes()
    (tmp_path / "m.mkv").write_bytes(whole[: len(whole) * 6 // 10])
    assert rule_of(tmp_path / "m.mkv") == "broken-tail"


def test_damage_in_the_middle_is_found_by_decoding(tmp_path: Path, make_clip: ClipMaker) -> None:
    path = make_clip(tmp_path / "a.mp4", 24, g="1", noise=60)
    data = bytearray(path.read_bytes())
    box = data.index(b"mdat")
    third = int.from_bytes(data[box - 4 : box], "big") // 3
    data[box + third : box + 2 * third] = np.random.default_rng(0).bytes(third)
    path.write_bytes(bytes(data))
    assert isinstance(probe(record_of(path)), Record)
    assert rule_of(path, ProbeSettings(every_frame=True)) in ("damaged", "broken-tail")


def test_variable_rates_are_noted(tmp_path: Path, make_clip: ClipMaker) -> None:
    times = [0, 40, 80, 400, 440, 900]
    found = sound(make_clip(tmp_path / "v.mkv", 6, times_ms=times))
    assert found.extra["variable_rate"] is True
    assert found.duration_s == pytest.approx(0.9, abs=0.1)
    assert found.frames == 6


def test_turned_videos_have_the_size_they_are_shown_in(tmp_path: Path, make_clip: ClipMaker) -> None:
    one = 65536
    matrix = [0, one, 0, -one, 0, 0, 0, 0, 1 << 30]
    found = sound(make_clip(tmp_path / "r.mp4", 3, (48, 32), matrix=matrix))
    assert (found.width, found.height, found.extra["rotation"]) == (32, 48, 90)


def test_high_range_is_refused_unless_asked_for(tmp_path: Path, make_clip: ClipMaker) -> None:
    path = make_clip(tmp_path / "hdr.mp4", 3, kind="yuv420p10le", context={"color_trc": ColorTrc.SMPTE2084})
    assert rule_of(path) == "hdr"
    found = probe(record_of(path), ProbeSettings(allow_high_range=True))
    assert isinstance(found, Record)
    assert found.extra["high_range"] == "PQ"
    assert isinstance(probe(record_of(make_clip(tmp_path / "ten.mp4", 3, kind="yuv420p10le"))), Record)


def test_large_ones_are_refused_before_they_are_decoded(clips: Path) -> None:
    small = ProbeSettings(max_pixels=1000)
    assert rule_of(clips / "a.mp4", small) == "too-large"
    assert rule_of(clips / "c.png", small) == "too-large"


def test_pictures_with_holes_are_refused(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (1, 2, 3, 9)).save(tmp_path / "p.png")
    assert rule_of(tmp_path / "p.png") == "unusable"


def test_folders_of_pictures_need_a_rate(tmp_path: Path) -> None:
    for index in range(4):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{index}.png")
    assert rule_of(tmp_path) == "no-times"
    assert sound(tmp_path, fps=8.0).duration_s == 0.5


def test_what_is_wrong_gets_from_process_to_process() -> None:
    error = pickle.loads(pickle.dumps(InputFileError("It is cut short.", "broken-tail")))
    assert (str(error), error.fault) == ("It is cut short.", "broken-tail")


def test_bad_rows_of_a_manifest_say_what_is_wrong() -> None:
    with pytest.raises(InputFileError, match="fps must be a number from 0 on; given 'x'"):
        Record.from_json({"id": "a", "media": "b", "kind": "video", "fps": "x"})
    with pytest.raises(InputFileError, match="media must be text; given None"):
        Record.from_json({"id": "a", "kind": "video"})
