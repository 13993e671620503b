"""What the renderer draws."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from muybridge.demo import render, world
from muybridge.demo.world import Scene

ALL_FRAMES = np.arange(render.CLIP_FRAMES)
CENTRED = render.Placement(np.array([[0.5, 0.5]], np.float32), np.zeros(1, np.float32))


def clip(scene: Scene, seed: int | None = None, size: int = render.FRAME_SIZE) -> NDArray[np.uint8]:
    """All frames of a scene, in the middle of the frame unless a seed says otherwise."""
    placement = CENTRED if seed is None else render.place([scene], np.random.default_rng(seed))
    return render.render([scene], ALL_FRAMES[None], placement, size)[0]


def solid(frames: NDArray[np.uint8], colour: str) -> NDArray[np.bool_]:
    return (frames == np.array(world.COLOURS[colour], np.uint8)).all(-1)


def centroids(mask: NDArray[np.bool_]) -> NDArray[np.floating]:
    rows = np.arange(mask.shape[1])
    x = [(each.sum(0) * rows).sum() / each.sum() for each in mask]
    y = [(each.sum(1) * rows).sum() / each.sum() for each in mask]
    return np.stack([x, y], -1)


def test_frames_have_the_promised_shape():
    rng = np.random.default_rng(0)
    scenes = world.sample_scenes(6, rng)
    indices = np.tile(np.array([0, 5, 9]), (6, 1))

    frames = render.render(scenes, indices, render.place(scenes, rng), size=48)

    assert frames.shape == (6, 3, 48, 48, 3)
    assert frames.dtype == np.uint8


def test_same_generator_same_pixels():
    scene = Scene("heart", "red", "spinning")

    assert np.array_equal(clip(scene, seed=1), clip(scene, seed=1))
    assert not np.array_equal(clip(scene, seed=1), clip(scene, seed=2))


def test_company_does_not_change_a_clip():
    rng = np.random.default_rng(3)
    scenes = world.sample_scenes(8, rng)
    placement = render.place(scenes, rng)
    indices = np.tile(ALL_FRAMES, (8, 1))

    together = render.render(scenes, indices, placement)

    for i, scene in enumerate(scenes):
        own = render.Placement(placement.centre[i : i + 1], placement.angle[i : i + 1])
        assert np.array_equal(render.render([scene], ALL_FRAMES[None], own)[0], together[i])


def test_frames_can_be_picked():
    scene = Scene("ring", "cyan", "moving up")

    picked = render.render([scene], np.array([[3, 11]]), CENTRED)[0]

    assert np.array_equal(picked, clip(scene)[[3, 11]])


@pytest.mark.parametrize("shape", world.SHAPES)
def test_edges_are_smooth(shape):
    frames = np.stack([clip(Scene(shape, "red", "still"), seed)[0] for seed in range(8)])

    values = np.unique(frames[..., 1])
    share = np.mean((frames[..., 1] > 40) & (frames[..., 1] < 255))

    assert len(values) > 12, "only hard steps"
    assert 0.005 < share < 0.1, "edges are one or two pixels wide"


def test_shapes_can_be_told_apart():
    masks = [solid(clip(Scene(shape, "red", "still")), "red")[0] for shape in world.SHAPES]

    differences = [np.mean(a != b) for i, a in enumerate(masks) for b in masks[:i]]

    assert min(differences) > 0.01


def test_large_things_are_larger():
    areas = {size: solid(clip(Scene("circle", "red", "still", size)), "red")[0].mean() for size in world.SIZES}

    expected = (render.RADIUS["large"] / render.RADIUS["normal"]) ** 2
    assert areas["large"] / areas["normal"] == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("background", world.BACKGROUNDS)
def test_backgrounds_go_from_their_top_to_their_bottom_colour(background):
    frame = clip(Scene("circle", "red", "still", background=background))[0]
    top, bottom = world.BACKGROUNDS[background]

    assert np.abs(frame[0, 0].astype(int) - top).max() <= 1
    assert np.abs(frame[-1, -1].astype(int) - bottom).max() <= 1


def test_things_stay_in_the_frame():
    rng = np.random.default_rng(4)
    scenes = [Scene(*triple, size="large") for triple in world.valid_triples()]
    placement = render.place(scenes, rng)

    frames = render.render(scenes, np.tile(ALL_FRAMES, (len(scenes), 1)), placement)

    masks = np.stack([solid(frame, scene.colour) for frame, scene in zip(frames, scenes, strict=True)])
    edge = np.concatenate([masks[:, :, 0], masks[:, :, -1], masks[:, :, :, 0], masks[:, :, :, -1]], axis=-1)
    touched = np.flatnonzero(edge.any((1, 2)))
    outside = {(scenes[i].shape, scenes[i].motion) for i in touched}
    tips = {("triangle", "moving up"), ("triangle", "moving down")}
    assert tips <= outside, "or the docstring of place() promises too little"
    assert {shape for shape, _ in outside - tips} <= {"heart"}
    cut = edge.sum((1, 2)) / masks.sum((1, 2, 3))
    assert cut.max() < 0.01


def test_positions_vary():
    scenes = [Scene("circle", "red", "still")] * 200

    placement = render.place(scenes, np.random.default_rng(5))

    assert placement.centre.min() < 0.25
    assert placement.centre.max() > 0.75


@pytest.mark.parametrize("size", world.SIZES)
@pytest.mark.parametrize(
    ("motion", "direction"),
    [("moving left", (-1, 0)), ("moving right", (1, 0)), ("moving up", (0, -1)), ("moving down", (0, 1))],
)
def test_moving_things_travel_where_they_are_said_to(motion, direction, size):
    path = centroids(solid(clip(Scene("square", "blue", motion, size)), "blue"))

    travelled = (path[-1] - path[0]) / render.FRAME_SIZE
    steps = np.diff(path @ np.array(direction))

    assert travelled == pytest.approx(np.array(direction) * render.TRAVEL, abs=0.03)
    assert (steps > 0).all()


@pytest.mark.parametrize(("motion", "sign"), [("growing", 1), ("shrinking", -1)])
def test_growing_and_shrinking_things_do_so(motion, sign):
    areas = solid(clip(Scene("triangle", "green", motion)), "green").mean((1, 2))

    ratio = np.sqrt(areas.max() / areas.min())

    assert (np.diff(areas) * sign > 0).all()
    assert ratio == pytest.approx((1 + render.GROWTH) / (1 - render.GROWTH), rel=0.1)


def test_spinning_things_turn_clockwise_by_a_third_of_a_turn():
    scene = Scene("triangle", "red", "spinning")
    upright = render.Placement(np.full((1, 2), 0.5, np.float32), np.zeros(1, np.float32))
    progress = np.array([[0, 5, 10, 15]])
    masks = solid(render.render([scene], progress, upright)[0], "red")

    # A triangle looks the same after a third of a turn, and otherwise not.
    assert np.mean(masks[3] != masks[0]) < 0.02 < np.mean(masks[1] != masks[0])
    # A third of the way, at 40 degrees, its lowest tip is right of the middle; turning the other way, left of it.
    lowest = np.nonzero(masks[1].any(1))[0][-1]
    assert np.nonzero(masks[1][lowest])[0].mean() > 32


def test_still_things_are_still():
    frames = clip(Scene("heart", "pink", "still"), seed=6)

    assert (frames == frames[0]).all()


@pytest.mark.parametrize("motion", [motion for motion in world.MOTIONS if motion != "still"])
def test_a_single_frame_shows_how_things_move(motion):
    """Beside the shape there is some of its colour that a still thing at the same place does not have."""
    moving = clip(Scene("square", "red", motion))[8]
    still = clip(Scene("square", "red", "still", size="large"))[8]

    green = moving[..., 1].astype(int)
    around = (green < 230) & (green > 60) & (still[..., 1] > 60)

    assert around.mean() > 0.005 or np.mean((green < 230) & (green > 60)) > 0.02


def test_a_single_frame_of_a_still_thing_shows_nothing_beside_it():
    frame = clip(Scene("circle", "red", "still"))[0]
    axis = (np.arange(render.FRAME_SIZE) + 0.5) / render.FRAME_SIZE - 0.5
    reach = np.hypot(axis[:, None], axis[None, :])

    assert (frame[reach > render.RADIUS["normal"] + 0.02] == 255).all()


@pytest.mark.parametrize("motion", ["moving left", "moving right", "moving up", "moving down"])
def test_the_trail_lies_behind(motion):
    frame = clip(Scene("circle", "red", motion))[8]
    shape = solid(frame[None], "red")
    trail = (frame[..., 1] < 250) & ~shape[0]

    behind = centroids(trail[None])[0] - centroids(shape)[0]
    ahead = {"moving left": (-1, 0), "moving right": (1, 0), "moving up": (0, -1), "moving down": (0, 1)}[motion]

    assert behind @ np.array(ahead) < -3
