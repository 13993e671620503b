"""The renderer of the toy world: scenes in, anti-aliased frames out. Deterministic given its random generator.

Everything that moves shows where it was, in a single frame too: moving things leave a fading trail, shrinking
things a fading halo of their larger past, spinning things are circled by two arcs with fading tails, growing
things throw eight sparks outwards. An image model trained on single frames therefore has to give the motion
words a meaning, which a motion module on top of it can pick up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from muybridge.demo.world import BACKGROUNDS, COLOURS, Scene

Floats = NDArray[np.floating]

CLIP_FRAMES = 16
"""Frames of a whole clip: every motion runs from its beginning to its end in this many frames."""
FRAMES_PER_SECOND = 8
FRAME_SIZE = 64

RADIUS = {"normal": 0.19, "large": 0.29}
"""Radius of the shapes as a share of the frame's width; things that grow or shrink pass through it half-way."""
TRAVEL = 0.375
"""How far a moving thing gets in a clip, as a share of the frame's width."""
GROWTH = 0.3
"""Growing runs from (1 - GROWTH) to (1 + GROWTH) times the radius, shrinking the other way."""
SPIN_DEGREES = 120.0
"""Clockwise turn over a whole clip; spinning things begin nearly upright."""
_FIRST_ANGLE = 10.0  # degrees to either side

_TRAIL = ((0.5, 0.55), (1.0, 0.38), (1.5, 0.22))  # (distance behind in radii, opacity)
_HALO = ((1.22, 0.5), (1.44, 0.3))  # (scale, opacity)
_ARC_DISTANCE, _ARC_RADIUS, _ARC_OPACITY, _ARC_DEGREES = 1.35, 0.13, 0.65, 100.0
_SPARK_DISTANCE, _SPARK_RADIUS, _SPARK_OPACITY = 1.5, 0.17, 0.65
_CORNER_REACH = 1.2  # corners of squares and triangles stand further out than a circle's rim
_DIRECTIONS = {"moving left": (-1, 0), "moving right": (1, 0), "moving up": (0, -1), "moving down": (0, 1)}


@dataclass(frozen=True)
class Placement:
    """Where things are, per clip: centre half-way through the clip (share of the frame) and first angle (degrees)."""

    centre: Floats
    angle: Floats


def _distance(shape: str, x: Floats, y: Floats) -> Floats:
    """Signed distance to the outline of a unit shape (negative inside); y points down, as rows do."""
    if shape == "circle":
        return np.hypot(x, y) - 1.0
    if shape == "ring":
        return np.abs(np.hypot(x, y) - 0.74) - 0.26
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - np.float32(0.84)
    if shape == "triangle":
        slanted = 0.8660254 * np.abs(x) - 0.5 * y
        return np.maximum(slanted, y) - np.float32(0.6)
    return _heart_distance(x, y)


def _heart_distance(x: Floats, y: Floats) -> Floats:
    """Two quarter-turned arcs over a square standing on its corner: exact outside the lobes, close enough within."""
    scale = np.float32(1.72)
    u = np.abs(x) / scale
    v = 0.53 - y / scale
    lobe = np.hypot(u - 0.25, v - 0.75) - np.float32(0.35355339)
    to_notch = np.hypot(u, v - 1.0)
    along = 0.5 * np.maximum(u + v, 0.0)
    to_side = np.hypot(u - along, v - along)
    side = np.minimum(to_notch, to_side) * np.sign(u - v)
    return np.where(u + v > 1.0, lobe, side) * scale


def place(scenes: Sequence[Scene], rng: np.random.Generator) -> Placement:
    """Draw positions so that the shape stays inside the frame over the whole clip, and angles for what spins.

    Only the tip of a large triangle that moves up or down leaves the frame, by 4 % of the height, and the lobes of a
    large heart can touch its edge.
    """
    centres = np.empty((len(scenes), 2), np.float32)
    angles = np.zeros(len(scenes), np.float32)
    for i, scene in enumerate(scenes):
        reach = RADIUS[scene.size] * (1 + GROWTH if scene.motion in ("growing", "shrinking") else 1.0)
        if scene.shape == "triangle":
            reach *= _CORNER_REACH
        if scene.motion == "spinning":
            reach = RADIUS[scene.size] * (_ARC_DISTANCE + _ARC_RADIUS)
        direction = np.abs(_DIRECTIONS.get(scene.motion, (0, 0)))
        free = np.maximum(0.5 - reach - 0.5 * TRAVEL * direction, 0.0)
        centres[i] = 0.5 + rng.uniform(-1.0, 1.0, size=2) * free
        if scene.motion == "spinning":
            angles[i] = rng.uniform(-_FIRST_ANGLE, _FIRST_ANGLE)
    return Placement(centres, angles)


def render(
    scenes: Sequence[Scene],
    frame_indices: NDArray[np.int64],
    placement: Placement,
    size: int = FRAME_SIZE,
) -> NDArray[np.uint8]:
    """Draw chosen frames of clips.

    Args:
        scenes: n scenes.
        frame_indices: [n, f] which of a clip's `CLIP_FRAMES` frames to draw (others extrapolate the motion).
        placement: where the n scenes happen.
        size: height and width in pixels.

    Returns:
        `uint8 [n, f, size, size, 3]`.
    """
    frames = np.empty((*frame_indices.shape, size, size, 3), np.uint8)
    for shape in sorted({scene.shape for scene in scenes}):
        rows = [i for i, scene in enumerate(scenes) if scene.shape == shape]
        group = Placement(placement.centre[rows], placement.angle[rows])
        frames[rows] = _render_shape(shape, [scenes[i] for i in rows], frame_indices[rows], group, size)
    return frames


def _render_shape(
    shape: str, scenes: list[Scene], frame_indices: NDArray[np.int64], placement: Placement, size: int
) -> NDArray[np.uint8]:
    progress = frame_indices.astype(np.float32) / (CLIP_FRAMES - 1)
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    frames = np.empty((*frame_indices.shape, size, size, 3), np.uint8)
    for i, scene in enumerate(scenes):
        opacity = _opacity(shape, scene, progress[i], placement.centre[i], float(placement.angle[i]), axis)
        top, bottom = (np.asarray(c, np.float32) for c in BACKGROUNDS[scene.background])
        background = (top + (bottom - top) * axis[:, None])[None, :, None, :]
        colour = np.asarray(COLOURS[scene.colour], np.float32)
        picture = background + (colour - background) * opacity[..., None]
        frames[i] = np.rint(picture).astype(np.uint8)
    return frames


def _opacity(shape: str, scene: Scene, progress: Floats, centre: Floats, angle: float, axis: Floats) -> Floats:
    """How much of the shape's colour each pixel shows, [f, h, w], cue included."""
    radius = np.full_like(progress, RADIUS[scene.size])
    turn = np.full_like(progress, angle)
    direction = np.asarray(_DIRECTIONS.get(scene.motion, (0, 0)), np.float32)
    position = centre + direction * TRAVEL * (progress[:, None] - 0.5)
    if scene.motion == "growing":
        radius = radius * (1 - GROWTH + 2 * GROWTH * progress)
    elif scene.motion == "shrinking":
        radius = radius * (1 + GROWTH - 2 * GROWTH * progress)
    elif scene.motion == "spinning":
        turn = turn + SPIN_DEGREES * progress

    def cover(offset: float = 0.0, scale: float = 1.0) -> Floats:
        middle = position - direction * offset * radius[:, None]
        return _cover(shape, middle, radius * scale, turn, axis)

    opacity = cover()
    if scene.motion in _DIRECTIONS:
        ghosts = [strength * cover(offset=offset) for offset, strength in _TRAIL]
    elif scene.motion == "shrinking":
        ghosts = [strength * cover(scale=scale) for scale, strength in _HALO]
    elif scene.motion == "spinning":
        ghosts = [_ARC_OPACITY * _arcs(position, radius, turn, axis)]
    elif scene.motion == "growing":
        ghosts = [_SPARK_OPACITY * _sparks(position, radius, axis)]
    else:
        ghosts = []
    for ghost in ghosts:
        opacity = np.maximum(opacity, ghost)
    return opacity


def _cover(shape: str, middle: Floats, radius: Floats, degrees: Floats, axis: Floats) -> Floats:
    x = (axis[None, None, :] - middle[:, 0, None, None]) / radius[:, None, None]
    y = (axis[None, :, None] - middle[:, 1, None, None]) / radius[:, None, None]
    if np.any(degrees):
        cos = np.cos(np.deg2rad(degrees))[:, None, None].astype(np.float32)
        sin = np.sin(np.deg2rad(degrees))[:, None, None].astype(np.float32)
        x, y = cos * x + sin * y, cos * y - sin * x
    pixels_per_unit = radius[:, None, None] * len(axis)
    return np.clip(0.5 - _distance(shape, x, y) * pixels_per_unit, 0.0, 1.0)


def _arcs(middle: Floats, radius: Floats, degrees: Floats, axis: Floats) -> Floats:
    """Two arcs on opposite sides that turn clockwise with the shape, opaque at the head, gone at the tail."""
    x = (axis[None, None, :] - middle[:, 0, None, None]) / radius[:, None, None]
    y = (axis[None, :, None] - middle[:, 1, None, None]) / radius[:, None, None]
    behind = np.mod(np.deg2rad(degrees)[:, None, None] - np.arctan2(y, x), np.pi)  # the nearer head's lead
    distance = np.abs(np.hypot(x, y) - _ARC_DISTANCE) - _ARC_RADIUS
    fading = np.clip(1.0 - behind / np.deg2rad(_ARC_DEGREES), 0.0, 1.0)
    return fading * np.clip(0.5 - distance * radius[:, None, None] * len(axis), 0.0, 1.0)


def _sparks(middle: Floats, radius: Floats, axis: Floats) -> Floats:
    x = (axis[None, None, :] - middle[:, 0, None, None]) / radius[:, None, None]
    y = (axis[None, :, None] - middle[:, 1, None, None]) / radius[:, None, None]
    folded = np.mod(np.arctan2(y, x) + np.pi / 8, np.pi / 4) - np.pi / 8  # eight directions onto one
    reach = np.hypot(x, y)
    distance = np.hypot(reach * np.cos(folded) - _SPARK_DISTANCE, reach * np.sin(folded)) - _SPARK_RADIUS
    return np.clip(0.5 - distance * radius[:, None, None] * len(axis), 0.0, 1.0)
