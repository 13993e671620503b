"""Which clip is trained at which size and number of frames."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from muybridge.data.buckets import (
    BucketPlan,
    BucketSettings,
    Clip,
    crop_loss,
    place,
    plan_buckets,
    shown_shape,
    size_table,
)
from muybridge.data.record import Record, Refusal
from muybridge.errors import ConfigError

SETTINGS = BucketSettings((8, 16), 8.0, size_table(256 * 256, 16))


def video(name: str = "a", width: int = 640, height: int = 360, seconds: float = 3.0, fps: float = 24.0) -> Record:
    frames = round(seconds * fps)
    extra = {"duration": seconds}
    return Record(name, f"{name}.mp4", "video", "", 0.0, None, width, height, fps, frames, extra)


def image(name: str = "i", width: int = 512, height: int = 512) -> Record:
    return Record(name, f"{name}.png", "image", width=width, height=height, frames=1)


def names(plan: BucketPlan) -> dict[str, int]:
    return {shown_shape(shape): len(clips) for shape, clips in plan.buckets.items()}


@pytest.mark.parametrize(("area", "multiple"), [(512 * 512, 16), (256 * 256, 64), (64 * 64, 8)])
def test_a_table_has_one_area_and_whole_multiples(area: int, multiple: int) -> None:
    sizes = size_table(area, multiple)
    side = round(math.sqrt(area))
    assert (side, side) in sizes
    assert all(height % multiple == width % multiple == 0 for height, width in sizes)
    assert {(w, h) for h, w in sizes} == set(sizes)
    assert max(abs(math.log(h * w / area)) for h, w in sizes) < 0.3
    with pytest.raises(ConfigError, match="multiples of 16"):
        size_table(100, 16)


def test_the_nearest_ratio_and_the_longest_number_of_frames() -> None:
    clip = place(video(), SETTINGS)
    assert isinstance(clip, Clip)
    assert shown_shape(clip.shape) == "336x192x16"
    assert clip.spacing_s == 1 / 8
    assert clip.crop_loss == pytest.approx(1 - (336 / 192) / (640 / 360))
    shorter = place(video(seconds=1.5), SETTINGS)
    assert isinstance(shorter, Clip)
    assert shorter.shape.num_frames == 8
    exact = place(video(seconds=16 / 8, fps=8.0), SETTINGS)
    assert isinstance(exact, Clip)
    assert exact.shape.num_frames == 16
    still = place(image(), SETTINGS)
    assert isinstance(still, Clip)
    assert still.shape.num_frames == 1


@pytest.mark.parametrize(("short", "outcome"), [("drop", None), ("slow", (8, 0.5 / 8)), ("image", (1, 1 / 8))])
def test_short_ones(short: str, outcome: tuple[int, float] | None) -> None:
    clip = place(video(seconds=0.5), replace(SETTINGS, short=short))
    if outcome is None:
        assert isinstance(clip, Refusal)
        assert clip.rule == "too-short"
        assert clip.reason == "it lasts 0.5 s; 8 frames at 8 a second take 0.876 s"
    else:
        assert isinstance(clip, Clip)
        assert (clip.shape.num_frames, clip.spacing_s) == outcome


def test_slow_needs_as_many_frames_as_it_gives() -> None:
    clip = place(video(seconds=0.2), replace(SETTINGS, short="slow"))
    assert isinstance(clip, Refusal)
    assert "5 frames" in clip.reason


def test_small_ones_are_not_enlarged_beyond_the_limit() -> None:
    small = video(width=240, height=140)
    clip = place(small, SETTINGS)
    assert isinstance(clip, Refusal)
    assert clip.rule == "too-small"
    assert clip.reason == "240x140 would be enlarged 1.4 times to 336x192; 1.2 times is allowed"
    assert isinstance(place(small, replace(SETTINGS, upscale=1.5)), Clip)
    assert isinstance(place(Record("a", "a.mp4", "video"), SETTINGS), Refusal)


def test_small_buckets_join_a_neighbour_where_that_costs_little() -> None:
    wide = [video(f"w{number}") for number in range(5)]
    near = [video(f"n{number}", 580, 360) for number in range(2)]  # between 3:2 and 16:9
    tall = [video("t", 360, 640)]
    plan = plan_buckets([[*wide, *near, *tall]], replace(SETTINGS, sizes=((192, 336), (208, 320), (336, 192))))
    assert names(plan) == {"192x336x16": 1, "336x192x16": 7}
    assert plan.notes[0].startswith("2 clips of 320x208x16 joined 336x192x16, which cuts")
    assert plan.notes[1].startswith("192x336x16 has only 1 of the 4 clips")
    assert crop_loss((360, 580), (192, 336)) < 0.15


def test_small_buckets_of_another_number_of_frames_do_not_join() -> None:
    plan = plan_buckets([[video(f"a{n}") for n in range(4)], [video("b", seconds=1.0), image()]], SETTINGS)
    assert names(plan) == {"256x256x1": 1, "336x192x8": 1, "336x192x16": 4}
    assert [clip.source for clip in plan.clips] == [1, 1, 0, 0, 0, 0]


def test_numbers_of_frames_that_no_clip_lasts_for_are_told() -> None:
    two_seconds = [[video(seconds=2.0)] * 4 + [image()] * 4]
    (note,) = plan_buckets(two_seconds, replace(SETTINGS, num_frames=(8, 200))).notes
    assert note == (
        "no clip is trained with 200 frames: at 8 a second they need 24.88 s, and the longest clip lasts 2 s"
    )
    (note,) = plan_buckets(two_seconds, replace(SETTINGS, num_frames=(8, 16, 24, 32))).notes
    assert note.startswith("no clip is trained with 24 and 32 frames: at 8 a second they need 2.876 s and more, and")
    assert plan_buckets(two_seconds, SETTINGS).notes == ()
    assert plan_buckets([[image()] * 4], SETTINGS).notes == ()
    slowed = plan_buckets([[video(seconds=0.5)] * 4], replace(SETTINGS, num_frames=(8,), short="slow"))
    assert slowed.notes == ()


def test_clips_are_not_enlarged_to_join() -> None:
    few = [video(f"s{n}", 280, 200, seconds=2.5) for n in range(2)]
    many = [video(f"w{n}") for n in range(4)]
    settings = replace(SETTINGS, sizes=((192, 272), (192, 304)))
    assert names(plan_buckets([[*few, *many]], settings)) == {"304x192x16": 6}
    assert names(plan_buckets([[*few, *many]], replace(settings, upscale=1.05))) == {"272x192x16": 2, "304x192x16": 4}


def test_settings_that_no_clip_meets() -> None:
    with pytest.raises(ConfigError, match="numbers of frames from 1 on"):
        plan_buckets([[]], replace(SETTINGS, num_frames=()))
