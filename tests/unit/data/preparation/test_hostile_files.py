"""Files that nobody would train on, each with how it ends in the stages that decode."""

from __future__ import annotations

import wave
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import ColorTrc
from tests.films import scene

from muybridge.data.preparation.recipe import Recipe
from muybridge.data.preparation.stage import Refused
from muybridge.data.record import Record

FilmMaker = Callable[..., Path]
SIZE = (48, 32)
DECODED = ["probe.min_side=0", "probe.min_seconds=0", "split.min_seconds=0", "duplicates=off"]


def ended(path: Path, *changes: str) -> str:
    """Status and rule of a record by the quick recipe, or how many records come of it."""
    records = [Record("x", str(path), "video")]
    for stage in Recipe.load("quick", [*DECODED, *changes]).stages:
        stage.load()
        try:
            records = [found for record in records for found in stage.run(record, path.parent)]
        except Refused as refused:
            return f"{refused.status}: {refused.rule}"
    return f"ok: {len(records)}"


def test_what_is_no_video(tmp_path: Path) -> None:
    for name, data in {"empty": b"", "text": b"no video\n" * 40, "zeros": bytes(4000)}.items():
        path = tmp_path / f"{name}.mp4"
        path.write_bytes(data)
        assert ended(path) == "unreadable: unreadable", name
    assert ended(tmp_path / "gone.mp4") == "unreadable: unreadable"
    with wave.open(str(tmp_path / "sound.mp4"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(1600))
    assert ended(tmp_path / "sound.mp4") == "unreadable: no-video"
    with av.open(str(tmp_path / "none.mp4"), "w") as file:
        file.add_stream("libx264", rate=24)
    assert ended(tmp_path / "none.mp4") in ("unreadable: no-video", "unreadable: unreadable")


def test_what_is_cut_short_or_damaged(tmp_path: Path, make_film: FilmMaker) -> None:
    for name in ("a.mp4", "a.mkv"):
        path = make_film(tmp_path / name, scene(1, 48, SIZE), g="1", qp="1")
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) * 6 // 10])
        assert ended(path) in ("unreadable: broken-tail", "unreadable: unreadable"), name
    path = make_film(tmp_path / "b.mp4", scene(1, 48, SIZE), g="1", qp="1")
    data = bytearray(path.read_bytes())
    box = data.index(b"mdat")
    third = int.from_bytes(data[box - 4 : box], "big") // 3
    data[box + third : box + 2 * third] = np.random.default_rng(0).bytes(third)
    path.write_bytes(bytes(data))
    assert ended(path) in ("unreadable: damaged", "unreadable: broken-tail")


def test_what_plays_and_is_not_wanted(tmp_path: Path, make_film: FilmMaker) -> None:
    path = make_film(
        tmp_path / "hdr.mp4", scene(1, 12, SIZE), kind="yuv420p10le", context={"color_trc": ColorTrc.ARIB_STD_B67}
    )
    assert ended(path) == "dropped: hdr"
    assert ended(path, "probe.hdr=true") == "ok: 1"
    assert ended(path, "probe.hdr=true", "probe.max_pixels=1000") == "dropped: too-large"


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("odd.mkv", (49, 33), {"codec": "ffv1", "kind": "yuv444p"}),
        ("deep.mp4", SIZE, {"kind": "yuv420p10le"}),
        ("full.mp4", SIZE, {"kind": "yuv444p"}),
        ("rgb.mkv", SIZE, {"codec": "ffv1", "kind": "bgr0"}),
        ("grey.mkv", SIZE, {"codec": "ffv1", "kind": "gray"}),
        ("motion.avi", SIZE, {"codec": "mjpeg", "kind": "yuvj420p"}),
        ("one.mp4", (16, 16), {}),
    ],
)
def test_what_is_only_unusual_goes_through(
    tmp_path: Path, make_film: FilmMaker, name: str, size: tuple[int, int], options: dict[str, str]
) -> None:
    assert ended(make_film(tmp_path / name, scene(1, 1 if name == "one.mp4" else 12, size), **options)) == "ok: 1"


def test_whatever_bytes_there_are_a_file_ends_as_something(tmp_path: Path, make_film: FilmMaker) -> None:
    whole = make_film(tmp_path / "a.mp4", scene(1, 12, SIZE)).read_bytes()
    rng = np.random.default_rng(0)
    ends = set()
    for _ in range(24):
        data = bytearray(whole)
        place = int(rng.integers(len(data)))
        data[place : place + int(rng.integers(1, 300))] = rng.bytes(int(rng.integers(0, 300)))
        (tmp_path / "b.mp4").write_bytes(bytes(data))
        ends.add(ended(tmp_path / "b.mp4").partition(":")[0])
    assert ends <= {"ok", "unreadable"}
    assert "unreadable" in ends
