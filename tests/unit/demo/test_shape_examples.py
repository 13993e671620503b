"""What silhouettes are learned from."""

from __future__ import annotations

import numpy as np

from muybridge.demo.shape_examples import make_examples


def test_every_copy_shows_the_same_scenes_each_in_its_own_way():
    scenes, opacity = make_examples()
    copies = opacity.reshape(-1, len(scenes), *opacity.shape[1:])
    areas = copies.sum(axis=(2, 3))
    middle = copies.reshape(*copies.shape[:2], -1)

    assert len(copies) == 7
    moving = np.array([scene.motion.startswith("moving") for scene in scenes])
    assert np.abs(areas[:, ~moving] / areas[0, ~moving] - 1).max() < 0.15
    assert (areas[5, moving] > 1.02 * areas[0, moving]).all(), "trails are stronger"
    for index in range(len(copies)):
        likeness = [np.corrcoef(middle[index, 3], middle[0, other])[0, 1] for other in range(12)]
        assert int(np.argmax(likeness)) == 3
        assert all(np.abs(copies[index] - copies[other]).mean() > 1e-3 for other in range(index))


def test_examples_are_always_the_same():
    np.testing.assert_array_equal(make_examples()[1], make_examples()[1])
