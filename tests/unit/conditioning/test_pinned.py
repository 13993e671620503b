"""Keyframes, masks, sizes and T5 prompts."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from muybridge.conditioning.pinned import pin_keyframes, pin_video
from muybridge.errors import ConfigError, InputFileError, ShapeError
from muybridge.request.pictures import open_picture
from muybridge.request.sizes import ASPECT_BUCKETS_512, fit_size

RED, BLUE = Image.new("RGB", (20, 10), (200, 0, 0)), Image.new("RGBA", (8, 8), (0, 0, 200, 255))


def known(pinned) -> list[int]:
    return [int(i) for i in np.flatnonzero(~pinned.unknown.any(axis=(1, 2)))]


@pytest.mark.parametrize(
    ("keyframes", "known_frames", "expected"),
    [
        ({0: RED}, 3, [0, 1, 2]),
        ({0: RED}, 1, [0]),
        ({-1: BLUE}, 3, [5, 6, 7]),
        ({0: RED, -1: BLUE}, 3, [0, 1, 2, 5, 6, 7]),
        ({0: RED, 1: BLUE}, 3, [0, 1]),
        ({4: RED}, 3, [4]),
    ],
)
def test_which_frames_are_known(keyframes, known_frames, expected) -> None:
    pinned = pin_keyframes(keyframes, 8, 16, 16, known_frames)
    assert known(pinned) == expected
    assert pinned.frames.shape == (8, 16, 16, 3)


def test_frames_show_their_keyframes() -> None:
    pinned = pin_keyframes({0: RED, -1: BLUE}, 8, 16, 16)
    assert (pinned.frames[:5] == (200, 0, 0)).all()
    assert (pinned.frames[5:] == (0, 0, 200)).all()


@pytest.mark.parametrize(
    ("keyframes", "num_frames", "error", "message"),
    [
        ({0: RED, -1: BLUE}, 4, ShapeError, "no room"),
        ({8: RED}, 8, ShapeError, "has 8 frames"),
        ({0: RED, -8: BLUE}, 8, ConfigError, "two keyframes"),
        ({0: RED}, 3, ConfigError, "nothing to make"),
        ({}, 8, ConfigError, "no keyframes"),
        ({0: "missing.png"}, 8, InputFileError, "missing.png"),
    ],
)
def test_wrong_keyframes(keyframes, num_frames, error, message) -> None:
    with pytest.raises(error, match=message):
        pin_keyframes(keyframes, num_frames, 16, 16)


def test_a_mask_marks_what_is_made() -> None:
    source = np.zeros((9, 8, 8, 3), np.uint8)
    mask = np.zeros((8, 8), np.uint8)
    mask[:, 4:] = 255
    pinned = pin_video(source, mask, 8, 16, 16)
    assert pinned.unknown[:, :, 8:].all()
    assert not pinned.unknown[:, :, :8].any()
    assert (pin_video(source, mask > 0, 8, 16, 16).unknown == pinned.unknown).all()
    assert (pin_video(source, mask / 255, 8, 16, 16).unknown == pinned.unknown).all()
    assert pin_video(source, None, 8, 16, 16).all_unknown


def test_a_damaged_picture_is_refused(tmp_path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\nrest")
    with pytest.raises(InputFileError, match="cannot be read"):
        open_picture(path)
    with pytest.raises(ShapeError, match="uint8"):
        open_picture(np.zeros((4, 4), np.uint8))


@pytest.mark.parametrize(
    ("height", "width", "base", "expected"),
    [
        (720, 1280, 512, (384, 672)),
        (720, 1280, 768, (576, 1008)),
        (720, 1280, 960, (720, 1248)),
        (500, 500, 512, (512, 512)),
        (1280, 720, 512, (672, 384)),
        (10, 1000, 512, (256, 1024)),
    ],
)
def test_sizes_follow_the_picture(height, width, base, expected) -> None:
    rows, columns = expected
    assert fit_size(height, width, base) == (rows // 16 * 16, columns // 16 * 16)


def test_there_are_forty_buckets() -> None:
    assert len(set(ASPECT_BUCKETS_512)) == 40


def test_a_base_that_is_too_small() -> None:
    with pytest.raises(ConfigError, match="at least 64"):
        fit_size(10, 10, 8)
