"""Pictures of a few frames as the input of a SparseCtrl."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from muybridge.conditioning.sparse import keyframe_condition, place_pictures, sketch_condition
from muybridge.errors import ConfigError, InputFileError, ShapeError


def picture(height: int = 16, width: int = 24, value: int = 255) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def placed(pictures: dict[int, Any], num_frames: int = 5) -> dict[int, Image.Image]:
    return place_pictures(pictures, num_frames, 16, 24)


def halved(pixels: Tensor) -> Tensor:
    """Stands for an encoder: 4 channels, half the size, and the value kept."""
    return pixels.mean(dim=1, keepdim=True).repeat(1, 4, 1, 1)[..., ::2, ::2]


def test_pictures_come_in_the_order_of_their_frames() -> None:
    found = placed({-1: picture(), 2: picture(), 0: picture(), -4: picture()})

    assert list(found) == [0, 1, 2, 4]


def test_sketches_are_pixels_with_a_mask() -> None:
    sketches = placed({0: picture(value=255), -2: picture(value=51)})

    found = sketch_condition(sketches, 5, 16, 24)

    assert found.shape == (1, 4, 5, 16, 24)
    assert found[0, 3, :, 0, 0].tolist() == [1, 0, 0, 1, 0]
    assert (found[:, :3, 0] == 1).all()
    torch.testing.assert_close(found[:, :3, 3], torch.full((1, 3, 16, 24), 0.2))
    assert not found[:, :, [1, 2, 4]].any()


def test_keyframes_are_latents_with_a_mask() -> None:
    keyframes = placed({0: picture(value=255), -1: picture(value=0)})

    found = keyframe_condition(keyframes, 5, 16, 24, halved)

    assert found.shape == (1, 5, 5, 8, 12)
    assert (found[:, :4, 0] == 1).all()  # the encoder is given -1 to 1
    assert (found[:, :4, 4] == -1).all()
    assert found[0, 4, :, 0, 0].tolist() == [1, 0, 0, 0, 1]
    assert not found[:, :, 1:4].any()


def test_larger_pictures_are_made_smaller() -> None:
    assert sketch_condition(placed({0: picture(64, 96)}), 5, 16, 24).shape == (1, 4, 5, 16, 24)


def test_rounding_of_sizes_is_not_another_aspect_ratio() -> None:
    assert list(placed({0: picture(161, 240)})) == [0]


@pytest.mark.parametrize("frame", [5, -6, 100])
def test_frames_outside_the_video_are_refused(frame: int) -> None:
    with pytest.raises(ShapeError, match=rf"Frame {frame} is outside the video, which has frames 0 to 4"):
        placed({frame: picture()})


def test_two_pictures_of_one_frame_are_refused() -> None:
    with pytest.raises(ConfigError, match="Indexes 0 and -5 both mean frame 0"):
        placed({0: picture(), -5: picture()})


def test_no_pictures_are_refused() -> None:
    with pytest.raises(ConfigError, match="There are no pictures"):
        placed({})


def test_another_aspect_ratio_is_refused_with_a_way_out() -> None:
    with pytest.raises(ShapeError, match=r"48x48 and the video 24x16.* Crop the picture to 48x32") as caught:
        placed({-1: picture(48, 48)})
    assert "frame -1" in str(caught.value)


def test_a_camera_turned_picture_is_turned_upright(tmp_path: Path) -> None:
    lying = picture(24, 16, 0)
    lying[0, :] = 255  # its first row: the right side once upright
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter, clockwise
    Image.fromarray(lying).save(tmp_path / "camera.png", exif=exif)

    found = sketch_condition(placed({0: tmp_path / "camera.png"}), 5, 16, 24)[0, 0, 0]

    assert (found[:, -1] == 1).all()
    assert not found[:, :-1].any()


def test_16_bits_become_8(tmp_path: Path) -> None:
    values = np.full((16, 24), 32_896, np.uint16)  # the middle of the range
    Image.fromarray(values).save(tmp_path / "deep.png")

    found = sketch_condition(placed({0: tmp_path / "deep.png"}), 5, 16, 24)

    torch.testing.assert_close(found[0, :3, 0], torch.full((3, 16, 24), 128 / 255))


def test_values_beyond_16_bits_are_refused() -> None:
    with pytest.raises(ConfigError, match="beyond 16 bits"):
        placed({0: Image.fromarray(np.full((16, 24), 70_000, np.int32))})


def test_an_opaque_alpha_channel_is_dropped() -> None:
    image = Image.fromarray(picture(value=51)).convert("RGBA")

    found = sketch_condition(placed({0: image}), 5, 16, 24)

    torch.testing.assert_close(found[0, :3, 0], torch.full((3, 16, 24), 0.2))


def test_transparency_is_refused(tmp_path: Path) -> None:
    image = Image.fromarray(picture()).convert("RGBA")
    image.putpixel((0, 0), (255, 255, 255, 0))
    image.save(tmp_path / "glass.png")

    with pytest.raises(ConfigError, match=r"glass\.png, is partly transparent; put it on a background"):
        placed({0: tmp_path / "glass.png"})


def test_a_truncated_jpeg_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    Image.effect_noise((24, 16), 50).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:-200])

    with pytest.raises(InputFileError, match=r"cut\.jpg cannot be read as a picture"):
        placed({0: path})


def test_a_missing_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="There is no picture"):
        placed({0: tmp_path / "none.png"})
