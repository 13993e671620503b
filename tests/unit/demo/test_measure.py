from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from muybridge.demo import measure, render, world
from muybridge.demo.world import Scene
from muybridge.errors import ConfigError, ShapeError

CLIPS = 60
Outline = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Distance to a unit shape, negative inside."""


def rendered(
    count: int, seed: int, frame_indices: np.ndarray | None = None, size: int = render.FRAME_SIZE
) -> tuple[list[Scene], np.ndarray]:
    rng = np.random.default_rng(seed)
    scenes = world.sample_scenes(count, rng, tuple(world.valid_triples()))
    chosen = np.arange(render.CLIP_FRAMES) if frame_indices is None else frame_indices
    indices = np.broadcast_to(chosen, (count, len(chosen)))
    return scenes, render.render(scenes, indices, render.place(scenes, rng), size)


def one_clip(scene: Scene, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return render.render([scene], np.arange(render.CLIP_FRAMES)[None], render.place([scene], rng))[0]


def degraded(clips: np.ndarray, seed: int) -> np.ndarray:
    """Blur of 0.7 pixels, noise of 6, a colour shift of up to 15 per channel and clip."""
    rng = np.random.default_rng(seed)
    kernel = np.exp(-0.5 * (np.arange(-2, 3) / 0.7) ** 2)
    kernel /= kernel.sum()
    pixels = clips.astype(np.float32)
    for axis in (2, 3):
        padding = [(2, 2) if a == axis else (0, 0) for a in range(5)]
        padded = np.pad(pixels, padding, mode="edge")
        size = pixels.shape[axis]
        shifted = [np.take(padded, np.arange(i, i + size), axis) for i in range(len(kernel))]
        pixels = np.tensordot(kernel, np.stack(shifted), axes=1)
    pixels = pixels + rng.normal(0, 6, pixels.shape) + rng.uniform(-15, 15, (len(clips), 1, 1, 1, 3))
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def accuracy(scenes: list[Scene], measured: list[measure.Measurement]) -> dict[str, float]:
    return {
        name: float(np.mean([getattr(m, name) == getattr(s, name) for m, s in zip(measured, scenes, strict=True)]))
        for name in measure.ATTRIBUTES
    }


def test_every_attribute_of_clean_clips_is_recognised() -> None:
    scores = measure.classifier_accuracy(CLIPS, seed=100)
    assert set(scores) == {*measure.ATTRIBUTES, "all", "cue"}
    assert scores["all"] >= 0.98
    assert scores["cue"] >= 0.95


@pytest.mark.slow
def test_every_attribute_of_degraded_clips_is_recognised() -> None:
    scenes, clips = rendered(CLIPS, seed=101)
    scores = accuracy(scenes, measure.measure_clips(degraded(clips, seed=1)))
    assert min(scores.values()) >= 0.97


@pytest.mark.parametrize(
    ("frame_indices", "size"),
    [(np.arange(8), 64), (np.arange(8, 16), 64), (np.arange(0, 16, 2), 64), (np.arange(16), 48), (np.arange(16), 96)],
    ids=["first half", "second half", "every other frame", "48 pixels", "96 pixels"],
)
def test_other_lengths_and_sizes(frame_indices: np.ndarray, size: int) -> None:
    scenes, clips = rendered(24, 102, frame_indices, size)
    scores = accuracy(scenes, measure.measure_clips(clips))
    assert min(scores.values()) >= 0.95


@pytest.mark.parametrize("spoil", [False, True], ids=["clean", "degraded"])
def test_stills(spoil: bool) -> None:
    scenes, clips = rendered(2 * CLIPS, 103, np.array([6]))
    clips = degraded(clips, seed=2) if spoil else clips
    measured = [measure.measure_still(clip[0]) for clip in clips]
    for name in ("shape", "colour", "background"):
        assert np.mean([getattr(m, name) == getattr(s, name) for m, s in zip(measured, scenes, strict=True)]) >= 0.98
    assert np.mean([m.cue == s.motion for m, s in zip(measured, scenes, strict=True)]) >= 0.95


def test_trajectories_are_those_of_the_renderer() -> None:
    moving = measure.measure_clip(one_clip(Scene("circle", "red", "moving right")))
    assert moving.centre[-1, 0] - moving.centre[0, 0] == pytest.approx(render.TRAVEL, abs=0.01)
    assert moving.radius == pytest.approx(np.full(16, render.RADIUS["normal"]), abs=0.01)
    assert np.isnan(moving.turn).all()
    growing = measure.measure_clip(one_clip(Scene("heart", "blue", "growing", "large", "sky")))
    assert growing.radius[-1] / growing.radius[0] == pytest.approx(1.3 / 0.7, rel=0.06)
    spinning = measure.measure_clip(one_clip(Scene("square", "green", "spinning", "large", "black")))
    assert spinning.turn[-1] == pytest.approx(render.SPIN_DEGREES, abs=8)


def test_turning_the_other_way_is_spinning_too() -> None:
    clip = one_clip(Scene("triangle", "green", "spinning", "large", "black"))
    measured = measure.measure_clip(clip[::-1])
    assert measured.motion == "spinning"
    assert measured.turn[-1] == pytest.approx(-render.SPIN_DEGREES, abs=8)


def test_background_flicker_is_zero_on_renders_and_follows_flicker() -> None:
    clip = one_clip(Scene("ring", "purple", "moving up", "large", "gray"))
    assert measure.measure_clip(clip).background_flicker < 0.1
    flickering = clip.copy()
    flickering[::2] += 4
    assert measure.measure_clip(flickering).background_flicker == pytest.approx(4, abs=0.5)


@pytest.mark.parametrize("background", list(world.BACKGROUNDS))
def test_a_clip_without_an_object_has_only_a_background(background: str) -> None:
    top, bottom = (np.asarray(colour, np.float32) for colour in world.BACKGROUNDS[background])
    rows = top + (bottom - top) * np.linspace(0, 1, 64, dtype=np.float32)[:, None]
    noise = np.random.default_rng(0).normal(0, 6, (16, 64, 64, 3))
    clip = np.clip(rows[:, None] + noise, 0, 255).astype(np.uint8)
    measured = measure.measure_clip(clip)
    assert measured.background == background
    assert [getattr(measured, name) for name in ("shape", "colour", "motion", "size")] == [None] * 4
    assert np.isnan(measured.centre).all()
    still = measure.measure_still(clip[0])
    assert (still.shape, still.colour, still.cue, still.size) == (None, None, None, None)


def test_a_background_of_an_unknown_colour_has_no_name() -> None:
    clip = np.full((4, 64, 64, 3), (200, 20, 160), np.uint8)
    assert measure.measure_clip(clip).background is None


def test_an_object_of_an_unknown_colour_has_no_name() -> None:
    clip = one_clip(Scene("circle", "red", "still", "large", "white"))
    clip[(clip[..., 1] < 140)] = 60
    measured = measure.measure_clip(clip)
    assert (measured.shape, measured.colour) == ("circle", None)


def test_a_foreign_shape_has_only_a_nearest_shape() -> None:
    clip = np.full((8, 64, 64, 3), 255, np.uint8)
    clip[:, 26:38, 12:52] = world.COLOURS["blue"]
    measured = measure.measure_clip(clip)
    assert measured.shape is None
    assert measured.nearest_shape in world.SHAPES
    assert (measured.colour, measured.motion) == ("blue", "still")


def _hole(radius: float = 0.48, off: float = 0.0) -> Outline:
    return lambda x, y: np.maximum(np.hypot(x, y) - 1, radius - np.hypot(x - off, y))


def _star(points: int, depth: float) -> Outline:
    return lambda x, y: np.hypot(x, y) - 1 + depth * (1 - np.cos(points * np.arctan2(y, x)))


def _polygon(corners: int) -> Outline:
    step = 2 * np.pi / corners
    return lambda x, y: np.hypot(x, y) * np.cos((np.arctan2(y, x) + step / 2) % step - step / 2) - 0.85


def _drawn_as(outline: Outline, monkeypatch: pytest.MonkeyPatch, motion: str, size: str) -> measure.Measurement:
    with monkeypatch.context() as patch:
        patch.setattr(render, "_distance", lambda _, x, y: outline(x, y))
        clip = one_clip(Scene("ring", "blue", motion, size, "gray"))
    return measure.measure_clip(clip)


FOREIGN = {
    "star": _star(5, 0.25),
    "cross": _star(4, 0.2),
    "flower": _star(6, 0.15),
    "pentagon": _polygon(5),
    "ellipse": lambda x, y: np.hypot(1.15 * x, y / 1.15) - 1,
    "rectangle": lambda x, y: np.maximum(np.abs(1.15 * x), np.abs(y / 1.15)) - 0.84,
    "disc with a dot": _hole(0.2),
    "hoop": _hole(0.75),
    "lopsided ring": _hole(off=0.15),
}


@pytest.mark.parametrize("size", world.SIZES)
@pytest.mark.parametrize("motion", ["still", "moving left"])
@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_none_of_the_shapes_is_not_taken_for_one(
    name: str, motion: str, size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _drawn_as(FOREIGN[name], monkeypatch, motion, size).shape is None


@pytest.mark.parametrize("size", world.SIZES)
@pytest.mark.parametrize(("radius", "off"), [(0.38, 0.06), (0.48, 0.1), (0.54, 0.04)], ids=str)
def test_a_ring_whose_hole_is_small_or_off_its_middle_is_a_ring(
    radius: float, off: float, size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _drawn_as(_hole(radius, off), monkeypatch, "moving up", size).shape == "ring"


@pytest.mark.parametrize("direction", ["left", "right", "up", "down"])
def test_a_ring_is_one_whatever_its_trail_looks_like_through_the_hole(
    direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(render, "_TRAIL", ((0.5, 0.74), (1.0, 0.7), (1.5, 0.3)))
        clip = one_clip(Scene("ring", "pink", f"moving {direction}", "normal", "gray"))
    measured = measure.measure_clip(clip)
    assert measured.shape == "ring"
    assert measured.unlikeness < 1


def test_frames_in_which_the_object_is_missing_are_passed_over() -> None:
    clip = one_clip(Scene("square", "orange", "moving down"))
    clip[[3, 9]] = 255
    measured = measure.measure_clip(clip)
    assert (measured.shape, measured.motion) == ("square", "moving down")
    assert np.isnan(measured.radius[[3, 9]]).all()


def test_a_single_frame_has_no_motion() -> None:
    clip = one_clip(Scene("square", "orange", "moving down"))
    measured = measure.measure_clip(clip[:1])
    assert (measured.shape, measured.motion, measured.background_flicker) == ("square", None, 0.0)


@pytest.mark.parametrize("axis", [1, 2], ids=["tall", "wide"])
def test_frames_need_not_be_square(axis: int) -> None:
    clip = one_clip(Scene("heart", "pink", "growing", "normal", "black"))
    padding = [(0, 0)] * 4
    padding[axis] = (16, 16)
    measured = measure.measure_clip(np.pad(clip, padding))
    found = [getattr(measured, name) for name in ("shape", "colour", "motion", "background")]
    assert found == ["heart", "pink", "growing", "black"]


def test_noise_and_tiny_frames_are_measured_without_complaint() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    assert measure.measure_clip(noise).background_flicker > 0
    assert measure.measure_clip(noise[:, :3, :3]).background_flicker >= 0


def test_measuring_twice_gives_the_same() -> None:
    clip = one_clip(Scene("heart", "cyan", "spinning", "normal", "sky"))
    first, second = measure.measure_clip(clip), measure.measure_clip(clip)
    np.testing.assert_array_equal(first.centre, second.centre)
    assert first.unlikeness == second.unlikeness


def test_wrong_arrays_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"\[16, 64, 64\]"):
        measure.measure_clip(np.zeros((16, 64, 64), np.uint8))
    with pytest.raises(ShapeError, match="non-empty"):
        measure.measure_clip(np.zeros((0, 64, 64, 3), np.uint8))
    with pytest.raises(ConfigError, match="float32"):
        measure.measure_still(np.zeros((64, 64, 3), np.float32))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="at least 1"):
        measure.classifier_accuracy(0, seed=0)
