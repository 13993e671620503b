"""Pictures from which silhouettes are learned: renders, and renders spoilt as generated pictures are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from muybridge.demo import render
from muybridge.demo.bilinear import sample_bilinear
from muybridge.demo.render import Floats
from muybridge.demo.world import MOTIONS, ROTATION_SYMMETRIC, SHAPES, SIZES, Scene

_EACH = 4
_COLOUR = "red"
_SOFT_KERNEL = (0.21, 0.58, 0.21)  # a Gaussian of 0.7 pixels
_NOISE = 0.06
_WOBBLE, _WOBBLE_GRID = 0.7, 8  # pixels: how far outlines are off, and over which lengths they are alike
_STRONGER, _TRAIL_BELOW = 1.3, 0.57  # what is stronger stays below 0.75, from where on it would count as the object


def make_examples() -> tuple[list[Scene], Floats]:
    """Scenes and their opacity maps `[copies * scenes, h, w]`: the same scenes in every copy, spoilt otherwise.

    As drawn, softened, softened and noisy, very soft, with wobbling outlines, and with stronger trails, as they are and
    wobbling. How opaque a trail is says nothing about the shape, but it shows through the hole of a ring.
    """
    rng = np.random.default_rng(0)
    scenes = [
        Scene(shape, _COLOUR, motion, size, "black")
        for shape in SHAPES
        for motion in MOTIONS
        if not (motion == "spinning" and shape in ROTATION_SYMMETRIC)
        for size in SIZES
        for _ in range(_EACH)
    ]
    drawn = _rendered_opacity(scenes, rng)
    soft = _softened(drawn)
    noisy = soft + rng.normal(0.0, _NOISE, soft.shape).astype(np.float32)
    very_soft = _softened(_softened(_softened(soft)))
    wobbling = _softened(_wobbled(drawn, rng))
    trailing = _softened(_with_stronger_trails(scenes, drawn))
    both = _softened(_wobbled(trailing, rng))
    return scenes, np.concatenate([drawn, soft, noisy, very_soft, wobbling, trailing, both])


def _rendered_opacity(scenes: Sequence[Scene], rng: np.random.Generator) -> Floats:
    frame_indices = rng.integers(render.CLIP_FRAMES, size=(len(scenes), 1))
    frames = render.render(scenes, frame_indices, render.place(scenes, rng))[:, 0]
    brightest = render.COLOURS[_COLOUR][0]
    return frames[..., 0].astype(np.float32) / brightest


def _with_stronger_trails(scenes: Sequence[Scene], opacity: Floats) -> Floats:
    # The rim of the shape itself gets a little thicker, by less than softening does.
    trailing = np.array([scene.motion.startswith("moving") for scene in scenes])[:, None, None]
    return np.where(trailing & (opacity < _TRAIL_BELOW), opacity * _STRONGER, opacity)


def _softened(pictures: Floats) -> Floats:
    side, middle, _ = _SOFT_KERNEL
    padded = np.pad(pictures, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = side * (padded[:, :-2] + padded[:, 2:]) + middle * padded[:, 1:-1]
    return side * (rows[:, :, :-2] + rows[:, :, 2:]) + middle * rows[:, :, 1:-1]


def _wobbled(pictures: Floats, rng: np.random.Generator) -> Floats:
    """Shift the pixels of `[n, h, w]` by a smooth random field."""
    count, height, width = pictures.shape
    coarse = [(size - 1) // _WOBBLE_GRID + 2 for size in (height, width)]
    shift = rng.normal(0.0, _WOBBLE, (2, count, *coarse)).astype(np.float32)
    y = np.arange(height, dtype=np.float32)[:, None]
    x = np.arange(width, dtype=np.float32)[None, :]
    down, across = (sample_bilinear(field, y / _WOBBLE_GRID, x / _WOBBLE_GRID) for field in shift)
    return sample_bilinear(pictures, np.clip(y + down, 0, height - 1), np.clip(x + across, 0, width - 1))
