"""Measures what a clip or a still of the toy world shows, without knowing what it was asked to show.

Generated pictures are soft, a little noisy and a little off in colour; every measure here compares with what the
picture itself has (its own background, its own object colour) and names the nearest thing of the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from muybridge.demo import render, world
from muybridge.demo.render import Floats
from muybridge.demo.shape_classifier import (
    Silhouettes,
    find_silhouettes,
    read_cue,
    read_shape,
    shape_radius,
    shape_spectra,
    turn_rate,
    turns,
)
from muybridge.errors import ConfigError, ShapeError

ATTRIBUTES = ("shape", "colour", "motion", "size", "background")

_BORDER = 2  # pixels
_BACKGROUND_REACH = 60.0  # RGB distance up to which a border pixel can belong to a background
_LEAST_BACKGROUND_SHARE = 0.25
_LEAST_CONTRAST = 40.0  # RGB distance of an object from its background; purple on gray has 95
_OBJECT_QUANTILE = 0.99  # the smallest shape of the world covers 3 % of a frame
_COLOUR_REACH = 0.2  # in Oklab; the nearest two colours of the world are 0.16 apart
_SIZE_BORDER = 0.235  # also between the halves of clips in which things grow or shrink
_LEAST_RATE = 0.4  # share of the renderer's own speed from which something counts as a motion
# Between renders spoilt beyond what models do (1.2) and a pentagon (3); a hexagon (2.1) still passes for a circle, and
# the hole of a ring may be off its middle by a tenth of the radius.
_MOST_UNLIKENESS = 2.2
_OBJECT_OPACITY = 0.1  # of locally averaged opacity: below is background


@dataclass(frozen=True, eq=False)
class Measurement:
    """What a clip shows; an attribute is None where it cannot be told.

    Without an object only the background is told. A shape unlike all five has `nearest_shape` only.
    """

    shape: str | None
    colour: str | None
    motion: str | None
    size: str | None
    background: str | None
    background_flicker: float
    """Mean absolute change of background pixels from frame to frame, on a scale of 0..255."""
    nearest_shape: str | None
    unlikeness: float
    """How unlike the nearest shape the silhouettes are: to 1 for renders, above 2.2 they have no shape; NaN without."""
    centre: Floats
    """[f, 2], x and y of the centroid as shares of the frame's width; NaN in frames without an object, as below."""
    radius: Floats
    """[f], share of the frame's width."""
    turn: Floats
    """[f], clockwise degrees since the first frame that shows the object; NaN where a turn cannot be seen."""


@dataclass(frozen=True)
class StillMeasurement:
    """What a still shows; None where it cannot be told. `cue` is the motion that the surroundings of the shape tell."""

    shape: str | None
    colour: str | None
    cue: str | None
    size: str | None
    background: str | None
    nearest_shape: str | None
    unlikeness: float


@dataclass(frozen=True, eq=False)
class _View:
    """Frames taken apart: background, object, and how much of the object's colour each pixel shows."""

    background: str | None
    colour: str | None
    nearest_shape: str | None
    unlikeness: float
    opacity: Floats
    silhouettes: Silhouettes
    spectra: NDArray[np.complex64]
    """Of the frames in which the object was found."""
    radius: Floats

    @property
    def shape(self) -> str | None:
        return self.nearest_shape if self.unlikeness <= _MOST_UNLIKENESS else None


def measure_clip(frames: NDArray[np.uint8]) -> Measurement:
    """Measure a clip `uint8 [f, h, w, 3]`; a single frame has no motion (None).

    Raises:
        ShapeError: the array is not a clip.
        ConfigError: the pixels are not `uint8`.
    """
    _check(frames, ("frames", "height", "width", 3))
    view = _view(frames)
    found = view.silhouettes.found
    centre = np.full((len(frames), 2), np.nan, np.float32)
    radius = np.full(len(frames), np.nan, np.float32)
    turn = np.full(len(frames), np.nan, np.float32)
    centre[found] = view.silhouettes.centre[found] / frames.shape[2]
    radius[found] = view.radius[found] / frames.shape[2]
    if found.any() and view.nearest_shape not in world.ROTATION_SYMMETRIC:
        turn[found] = turns(view.spectra)
    return Measurement(
        shape=view.shape,
        colour=view.colour,
        motion=_motion(view, centre, radius),
        size=_size(radius),
        background=view.background,
        background_flicker=_background_flicker(frames, view),
        nearest_shape=view.nearest_shape,
        unlikeness=view.unlikeness,
        centre=centre,
        radius=radius,
        turn=turn,
    )


def measure_clips(clips: NDArray[np.uint8]) -> list[Measurement]:
    """Measure clips `uint8 [n, f, h, w, 3]` one by one."""
    _check(clips, ("clips", "frames", "height", "width", 3))
    return [measure_clip(clip) for clip in clips]


def measure_still(frame: NDArray[np.uint8]) -> StillMeasurement:
    """Measure a still `uint8 [h, w, 3]`.

    A still of something that grows or shrinks cannot tell its size: both sizes pass through the same radii.

    Raises:
        ShapeError: the array is not a picture.
        ConfigError: the pixels are not `uint8`.
    """
    _check(frame, ("height", "width", 3))
    view = _view(frame[None])
    return StillMeasurement(
        shape=view.shape,
        colour=view.colour,
        cue=_cue(view),
        size=_size(view.radius / frame.shape[1]),
        background=view.background,
        nearest_shape=view.nearest_shape,
        unlikeness=view.unlikeness,
    )


def classifier_accuracy(count: int, seed: int) -> dict[str, float]:
    """How often the measures are right on fresh renders: every attribute, `all` five, and the `cue` of one frame."""
    if count < 1:
        raise ConfigError(f"The number of clips must be at least 1; given {count}. A few hundred tell enough.")
    rng = np.random.default_rng(seed)
    scenes = world.sample_scenes(count, rng, tuple(world.valid_triples()))
    placement = render.place(scenes, rng)
    shown = rng.integers(render.CLIP_FRAMES, size=count)
    right: dict[str, list[bool]] = {name: [] for name in (*ATTRIBUTES, "all", "cue")}
    for i, scene in enumerate(scenes):
        where = render.Placement(placement.centre[i : i + 1], placement.angle[i : i + 1])
        clip = render.render([scene], np.arange(render.CLIP_FRAMES)[None], where)[0]
        measured = measure_clip(clip)
        hits = [getattr(measured, name) == getattr(scene, name) for name in ATTRIBUTES]
        for name, hit in zip(ATTRIBUTES, hits, strict=True):
            right[name].append(hit)
        right["all"].append(all(hits))
        right["cue"].append(measure_still(clip[shown[i]]).cue == scene.motion)
    return {name: float(np.mean(hits)) for name, hits in right.items()}


def _check(pixels: NDArray[np.uint8], axes: tuple[str | int, ...]) -> None:
    if pixels.ndim != len(axes) or pixels.shape[-1] != 3 or 0 in pixels.shape:
        expected = ", ".join(str(axis) for axis in axes)
        raise ShapeError(f"Expected a non-empty array [{expected}]; given {list(pixels.shape)}. Reorder or add axes.")
    if pixels.dtype != np.uint8:
        raise ConfigError(f"Pixels must be uint8 in 0..255; given {pixels.dtype}. Scale and convert them first.")


def _view(frames: NDArray[np.uint8]) -> _View:
    pixels = frames.astype(np.float32)
    background, rows = _find_background(pixels)
    colour, opacity = _find_object(pixels, rows)
    silhouettes = find_silhouettes(opacity)
    found = silhouettes.found
    if not found.any():
        nothing = np.zeros((0, 0, 0), np.complex64)
        return _View(background, None, None, np.nan, opacity, silhouettes, nothing, np.full(len(frames), np.nan))
    kept = Silhouettes(*(values[found] for values in vars(silhouettes).values()))
    spectra = shape_spectra(kept)
    shape, unlikeness = read_shape(spectra)
    radius = shape_radius(silhouettes, shape)
    return _View(background, _colour_name(colour), shape, unlikeness, opacity, silhouettes, spectra, radius)


def _find_background(pixels: Floats) -> tuple[str | None, Floats]:
    """Name of the background and its colour in each row `[h, 3]`, as far as the border of the frames shows it."""
    height, width = pixels.shape[1:3]
    ring = np.ones((height, width), bool)
    ring[_BORDER:-_BORDER, _BORDER:-_BORDER] = False
    border, row = pixels[:, ring], np.nonzero(ring)[0]
    share = ((np.arange(height, dtype=np.float32) + 0.5) / height)[:, None]
    names = list(world.BACKGROUNDS)
    ends = np.asarray(list(world.BACKGROUNDS.values()), np.float32)
    candidates = ends[:, :1] * (1 - share) + ends[:, 1:] * share
    distances = [np.sqrt(((border - rows[row]) ** 2).sum(axis=-1)) for rows in candidates]
    best = int(np.argmin([np.minimum(distance, _BACKGROUND_REACH).mean() for distance in distances]))
    name, rows, distance = names[best], candidates[best], distances[best]
    near = distance < _BACKGROUND_REACH
    if near.mean() < _LEAST_BACKGROUND_SHARE:
        return None, np.broadcast_to(np.median(border.reshape(-1, 3), axis=0), (height, 3))
    return name, rows + np.median((border - rows[row])[near], axis=0)


def _find_object(pixels: Floats, rows: Floats) -> tuple[Floats, Floats]:
    """Colour of the object `[3]` and the opacity of each pixel `[f, h, w]`; opacity is 0 where nothing stands out."""
    distance = np.sqrt(((pixels - rows[:, None]) ** 2).sum(axis=-1))
    rank = int(_OBJECT_QUANTILE * (distance.size - 1))
    peak = np.partition(distance, rank, axis=None)[rank]
    if peak < _LEAST_CONTRAST:
        return np.full(3, np.nan, np.float32), np.zeros_like(distance)
    colour = np.median(pixels[distance > 0.75 * peak], axis=0)
    opacity = _opacity(pixels, rows, colour)
    core = opacity > 0.8  # the first guess may have mixed in ghosts where the background changes from row to row
    if core.any():
        colour = np.median(pixels[core], axis=0)
        opacity = _opacity(pixels, rows, colour)
    return colour, opacity


def _opacity(pixels: Floats, rows: Floats, colour: Floats) -> Floats:
    towards = colour - rows
    towards = towards / np.maximum((towards**2).sum(axis=1, keepdims=True), _LEAST_CONTRAST**2)
    offset = (rows * towards).sum(axis=1)
    return np.matmul(pixels, towards[:, :, None])[..., 0] - offset[:, None]


def _colour_name(colour: Floats) -> str | None:
    names = list(world.COLOURS)
    palette = _oklab(np.asarray([world.COLOURS[name] for name in names], np.float64))
    distance = np.sqrt(((palette - _oklab(colour.astype(np.float64))) ** 2).sum(axis=-1))
    nearest = int(np.argmin(distance))
    return names[nearest] if distance[nearest] < _COLOUR_REACH else None


def _oklab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lightness and two colour axes in which equal distances look about equally different."""
    share = rgb / 255.0
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    to_cones = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    to_lab = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    return np.cbrt(linear @ to_cones.T) @ to_lab.T


def _motion(view: _View, centre: Floats, radius: Floats) -> str | None:
    """The motion whose speed, as a share of the renderer's, is largest; still where none is fast enough."""
    found = view.silhouettes.found
    if found.sum() < max(2, len(found) / 2):
        return None
    steps = render.CLIP_FRAMES - 1
    across, down = (_rate(centre[:, axis]) * steps / render.TRAVEL for axis in (0, 1))
    whole_growth = np.log((1 + render.GROWTH) / (1 - render.GROWTH))
    growth = _rate(np.log(np.maximum(radius, 1e-3))) * steps / whole_growth
    # Turning either way is spinning: the word names no direction.
    spin = 0.0
    if view.nearest_shape not in world.ROTATION_SYMMETRIC:
        spin = abs(turn_rate(view.spectra)) * steps / render.SPIN_DEGREES
    speeds = {
        "moving left": -across,
        "moving right": across,
        "moving up": -down,
        "moving down": down,
        "growing": growth,
        "shrinking": -growth,
        "spinning": spin,
    }
    fastest = max(speeds, key=speeds.__getitem__)
    return fastest if speeds[fastest] > _LEAST_RATE else "still"


def _rate(values: Floats) -> float:
    """Change per frame: the median over all pairs of frames, so that single bad frames do not count."""
    known = np.flatnonzero(np.isfinite(values))
    first, second = np.triu_indices(len(known), 1)
    change = values[known[second]] - values[known[first]]
    return float(np.median(change / (known[second] - known[first])))


def _size(radius: Floats) -> str | None:
    known = radius[np.isfinite(radius)]
    if known.size == 0:
        return None
    return "large" if known.mean() > _SIZE_BORDER else "normal"


def _cue(view: _View) -> str | None:
    if view.nearest_shape is None:
        return None
    (cue,), ((x, y),) = read_cue(view.opacity, view.silhouettes, view.radius, view.nearest_shape)
    if cue == "trail":  # it lies where the object came from
        if abs(x) > abs(y):
            return "moving left" if x > 0 else "moving right"
        return "moving up" if y > 0 else "moving down"
    return {"none": "still", "halo": "shrinking", "arcs": "spinning", "sparks": "growing"}[cue]


def _background_flicker(frames: NDArray[np.uint8], view: _View) -> float:
    if len(frames) < 2:
        return 0.0
    change = np.abs(frames[1:].astype(np.int16) - frames[:-1]).mean(axis=-1)
    free = _locally_averaged(view.opacity) < _OBJECT_OPACITY
    free = free[1:] & free[:-1]
    if free.mean() < 0.05:
        # A background that changes towards the object's colour: only the object itself is left out.
        free = ~(view.silhouettes.near[1:] | view.silhouettes.near[:-1])
    return float(change[free].mean()) if free.any() else 0.0


def _locally_averaged(pictures: Floats) -> Floats:
    padded = np.pad(pictures, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    return (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]) / 9
