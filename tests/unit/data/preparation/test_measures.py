"""What is measured of clips, on films of which it is known."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.films import Pixels, scene, texture

from muybridge.data.clips import Draw, frames_of, read_clip
from muybridge.data.preparation.flow import FlowMethod, flow
from muybridge.data.preparation.stage import Refused, Stage, apply_changes, changes_of
from muybridge.data.preparation.stages.black import Black
from muybridge.data.preparation.stages.blur import Blur
from muybridge.data.preparation.stages.crop import Crop
from muybridge.data.preparation.stages.duplicates import Duplicates
from muybridge.data.preparation.stages.motion import Motion, MotionSettings
from muybridge.data.preparation.stages.static import Static
from muybridge.data.preparation.stages.trim import Trim
from muybridge.data.probe import probe
from muybridge.data.record import Record
from muybridge.types import VideoShape

FilmMaker = Callable[..., Path]
SIZE = (128, 96)


def record_of(path: Path, **values: object) -> Record:
    kind = "image" if path.suffix == ".png" else "video"
    found = probe(replace(Record(path.stem, str(path), kind), **values))
    assert isinstance(found, Record), found
    return found


def ran(stage: Stage, record: Record) -> Record:
    stage.load()
    (found,) = stage.run(record, Path())
    assert apply_changes(record, changes_of(record, [found])) == [found]
    assert found.extra.keys() - record.extra.keys() <= stage.gives
    return found


def test_motion_means_the_same_at_any_size_and_rate(tmp_path: Path, make_film: FilmMaker) -> None:
    wide = texture(np.random.default_rng(1), 300, 500)

    def pan(size: tuple[int, int], fps: float) -> Iterator[Pixels]:
        for index in range(round(fps)):
            left = 60 * index / fps  # pixels of 320 a second
            window = Image.fromarray(wide.astype(np.uint8)).resize(
                size, Image.Resampling.BICUBIC, (left, 0, left + 320, 180)
            )
            yield np.asarray(window)

    truth = 100 * 60 / np.hypot(320, 180)
    for size, fps in (((320, 180), 12), ((160, 90), 25)):
        record = record_of(make_film(tmp_path / f"{size[0]}-{fps}.mp4", pan(size, fps), fps=fps, qp="10"))
        motion = ran(Motion(), record).extra["motion"]
        assert motion["mean"] == pytest.approx(truth, rel=0.08), (size, fps)
        assert motion["camera"] == pytest.approx(truth, rel=0.08)
        assert motion["object"] < 0.1 * truth
        assert motion["pixels"] == pytest.approx(30 * size[0] / 320, rel=0.08)


@pytest.mark.parametrize("method", ["blocks", "dis"])
def test_what_moves_by_itself_is_told_from_the_camera(method: FlowMethod) -> None:
    if method == "dis":
        pytest.importorskip("cv2")
    wide = texture(np.random.default_rng(1), 300, 500).mean(2).astype(np.uint8)
    thing = texture(np.random.default_rng(2), 60, 80).mean(2).astype(np.uint8)
    before, after = wide[50:230, 50:370].copy(), wide[50:230, 54:374].copy()
    before[60:120, 60:140], after[60:120, 66:146] = thing, thing
    found = flow(before, after, method)
    camera = found.camera()
    assert np.median(camera[:, 0]) == pytest.approx(-4, abs=0.3)
    rest = np.hypot(*(found.moves - camera).T)
    assert np.median(rest) < 0.3
    assert rest.max() == pytest.approx(10, abs=1.5)
    assert np.hypot(*flow(before, before, method).moves.T).max() < 0.05


def test_stills_black_ones_and_those_of_one_shade_are_dropped(tmp_path: Path, make_film: FilmMaker) -> None:
    still = next(scene(1, 1, SIZE))
    for name, frames, rules in (
        ("still", [still] * 24, {"motion", "static"}),
        ("moving", scene(1, 24, SIZE), set()),
        ("black", [np.zeros_like(still)] * 24, {"motion", "static", "black"}),
        ("grey", [np.full_like(still, 120)] * 24, {"motion", "static", "black"}),
    ):
        record = record_of(make_film(tmp_path / f"{name}.mp4", frames, qp="10"))
        found = set()
        for stage in (Motion(), Static(), Black()):
            record = ran(stage, record)
            verdict = stage.verdict(record)
            found |= {verdict.rule} if verdict else set()
        assert found == rules, name


def test_bounds_may_be_those_of_easyanimate() -> None:
    record = Record("a", "a.mp4", "video", extra={"motion": {"mean": 5.0, "pixels": 1.5}})
    verdict = Motion(MotionSettings(min_pixels=2)).verdict(record)
    assert verdict is not None
    assert (verdict.rule, verdict.value, verdict.limit) == ("motion", 1.5, 2)
    assert verdict.reason == "motion, pixels in half a second: 1.5, below 2"
    assert Motion().verdict(record) is None


def test_blur_is_reported(tmp_path: Path, make_film: FilmMaker) -> None:
    sharp = list(scene(1, 8, SIZE))
    blurred = [np.asarray(Image.fromarray(f).resize((32, 24)).resize(SIZE, Image.Resampling.BICUBIC)) for f in sharp]
    details = [
        ran(Blur(), record_of(make_film(tmp_path / f"{name}.mp4", frames, qp="10"))).extra["detail"]
        for name, frames in (("sharp", sharp), ("blurred", blurred))
    ]
    assert details[0] > 3 * details[1]
    assert Blur().verdict(Record("a", "a.mp4", "video", extra={"detail": 0.0})) is None


def barred() -> Iterator[Pixels]:
    for pixels in scene(1, 24, (128, 72)):
        framed = np.zeros((96, 128, 3), np.uint8)
        framed[12:84] = np.maximum(pixels, 40)
        yield framed


def test_bars_are_left_out_to_the_pixel_and_training_sees_none(tmp_path: Path, make_film: FilmMaker) -> None:
    path = make_film(tmp_path / "a.mp4", barred(), qp="10")
    found = ran(Crop(), record_of(path))
    assert found.extra["crop"] == [0, 12, 128, 72, 128, 96]
    assert (found.width, found.height) == (128, 72)
    assert ran(Crop(), found) == found
    (frame,) = frames_of(found, [0.0])
    assert frame.shape == (72, 128, 3)
    clip = read_clip(found, VideoShape(2, 36, 64), 0.25, Draw(0))
    assert clip.shape == (2, 36, 64, 3)
    assert clip.min() > 20
    again = probe(found)
    assert isinstance(again, Record)
    assert (again.width, again.height) == (128, 72)
    other = probe(replace(found, media=str(make_film(tmp_path / "b.mp4", scene(1, 3, (64, 64))))))
    assert "the part of its picture is one of 128x96" in str(other)


def test_pictures_without_bars_stay_whole(tmp_path: Path, make_film: FilmMaker) -> None:
    record = record_of(make_film(tmp_path / "a.mp4", scene(1, 12, SIZE)))
    assert ran(Crop(), record) == record
    Image.fromarray(next(barred())).save(tmp_path / "p.png")
    assert ran(Crop(), record_of(tmp_path / "p.png")).height == 72


def test_of_doubles_the_largest_is_kept(tmp_path: Path, make_film: FilmMaker) -> None:
    def half(frames: Iterator[Pixels]) -> Iterator[Pixels]:
        return (np.asarray(Image.fromarray(f).resize((64, 48), Image.Resampling.BOX)) for f in frames)

    films = {
        "large": scene(1, 24, SIZE, (0.3, 0)),
        "small": half(scene(1, 24, SIZE, (0.3, 0))),
        "other": scene(2, 24, SIZE),
        "plain": [np.full((96, 128, 3), 90, np.uint8)] * 8,
        "plain-too": [np.full((96, 128, 3), 180, np.uint8)] * 8,
    }
    stage = Duplicates()
    records = [ran(stage, record_of(make_film(tmp_path / f"{name}.mp4", f))) for name, f in films.items()]
    verdicts = stage.run_all(records)
    assert list(verdicts) == ["small"]
    assert "the same as large" in verdicts["small"].reason
    assert stage.run_all(records[::-1]) == verdicts


def test_many_records_are_compared_in_parts() -> None:
    rng = np.random.default_rng(0)
    hashes = [rng.bytes(24).hex() for _ in range(1500)]
    records = [
        Record(f"{i:05}", "a", "video", extra={"look": h}) for i, h in enumerate([*hashes, hashes[3], hashes[9]])
    ]
    assert list(Duplicates().run_all(records)) == ["01500", "01501"]


def test_ends_where_scenes_were_cut_are_trimmed(tmp_path: Path, make_film: FilmMaker) -> None:
    times = [0, 40, 80, 200, 240, 300, 400, 430, 480, 600, 650, 700]
    record = record_of(make_film(tmp_path / "v.mkv", scene(1, 12), times_ms=times))
    assert ran(Trim(), record) == record
    part = replace(record, start=0.08, end=0.6, frames=7)
    found = ran(Trim(), part)
    assert (found.start, found.end, found.frames) == (0.24, 0.43, 3)
    assert found.id not in (part.id, record.id)
    from_start = ran(Trim(), replace(record, start=0.0, end=0.6))
    assert (from_start.start, from_start.end) == (0, 0.43)
    with pytest.raises(Refused, match="Nothing is left"):
        Trim().run(replace(record, start=0.2, end=0.4), tmp_path)


def test_damage_met_while_measuring_is_refused(tmp_path: Path, make_film: FilmMaker) -> None:
    path = make_film(tmp_path / "a.mp4", scene(1, 24, SIZE))
    record = record_of(path)
    path.write_bytes(b"gone")
    for stage in (Motion(), Static(), Black(), Crop(), Duplicates(), Blur()):
        with pytest.raises(Refused) as caught:
            stage.run(record, tmp_path)
        assert caught.value.status == "unreadable"


def test_keys_change_with_what_results_depend_on() -> None:
    record = Record("a", "a.mp4", "video", width=8, height=8, fps=8.0, extra={"duration": 1.0})
    keys = [
        Motion().key(record),
        Motion(MotionSettings(method="dis")).key(record),
        Static().key(record),
        Motion().key(replace(record, id="b")),
        Motion().key(replace(record, extra={"duration": 1.0, "crop": [0, 0, 4, 4, 8, 8]})),
    ]
    assert all(one != other for one, other in itertools.combinations(keys, 2))
    assert Motion(MotionSettings(max_speed=3)).key(record) == keys[0]
    assert Motion().key(replace(record, media="c.mp4", extra={"duration": 1.0, "change": 3})) == keys[0]
