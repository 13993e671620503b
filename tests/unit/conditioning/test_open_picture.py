"""One opener for pictures from wherever: files of many kinds, Pillow images, arrays."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from muybridge.conditioning.pinned import pin_keyframes
from muybridge.errors import ConfigError, InputFileError, ShapeError
from muybridge.request.pictures import open_picture

RED = (200, 30, 40)


def level(picture: Any) -> list[int]:
    opened = open_picture(picture)
    assert opened.mode == "RGB"
    return np.asarray(opened)[0, 0].tolist()


def saved(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp", "a.tif", "a.gif", "a.avif", "a.jp2", "a.tga"])
def test_kinds_of_files(tmp_path: Path, name: str) -> None:
    assert np.abs(np.array(level(saved(Image.new("RGB", (16, 16), RED), tmp_path / name))) - RED).max() < 12


@pytest.mark.parametrize("mode", ["P", "L", "1", "LA", "RGBA", "CMYK", "YCbCr", "HSV", "I;16", "I", "F", "PA"])
def test_white_is_white_in_every_mode(mode: str) -> None:
    white: Image.Image
    if mode == "F":
        white = Image.fromarray(np.ones((4, 4), np.float32))
    elif mode in ("I;16", "I"):
        white = Image.fromarray(np.full((4, 4), 65_535, np.uint16 if mode == "I;16" else np.int32))
    else:
        white = Image.new("RGB", (4, 4), (255, 255, 255)).convert("RGBA" if mode == "PA" else "RGB").convert(mode)
    assert level(white) == [255, 255, 255]


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_16_bits_in_files_become_8(tmp_path: Path, name: str) -> None:
    grey = Image.fromarray(np.full((4, 4), 32_896, np.uint16))
    assert level(saved(grey, tmp_path / name)) == [128, 128, 128]


def test_16_bits_of_the_other_byte_order(tmp_path: Path) -> None:
    tags = [(256, 4), (257, 4), (258, 16), (259, 1), (262, 1), (273, 122), (277, 1), (278, 4), (279, 32)]
    entries = b"".join(struct.pack(">HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    header = b"MM\0*" + struct.pack(">IH", 8, len(tags)) + entries + bytes(4)
    (tmp_path / "a.tif").write_bytes(header.ljust(122, b"\0") + struct.pack(">16H", *[32_896] * 16))
    with Image.open(tmp_path / "a.tif") as image:
        assert image.mode == "I;16B"
    assert level(tmp_path / "a.tif") == [128, 128, 128]


def test_a_picture_turned_by_a_camera_is_upright_from_everywhere(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(Image.new("RGB", (6, 4), RED), tmp_path / "a.png", exif=exif)

    with Image.open(path) as image:
        for given in (path, str(path), image):
            assert open_picture(given).size == (4, 6)
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[:, :2] = 255  # its left end is the upper one, once upright
    path = saved(Image.fromarray(pixels), tmp_path / "b.png", exif=exif)
    pinned = pin_keyframes({0: path}, 8, 6, 4).frames[0]
    assert (pinned[0] == 255).all()
    assert (pinned[-1] == 0).all()


def test_what_is_opened_twice_stays_the_same() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*(255, 255, 255), *(255, 255, 255)])
    image.info["transparency"] = 1  # a colour that is never used, and the same as one that is
    once = open_picture(image)
    assert level(open_picture(once)) == [255, 255, 255]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16"])
def test_partial_transparency_is_refused(tmp_path: Path, mode: str) -> None:
    if mode == "I;16":
        path = saved(Image.fromarray(np.full((4, 4), 7, np.uint16)), tmp_path / "a.png", transparency=7)
    else:
        path = saved(Image.new("RGBA", (4, 4), (200, 200, 200, 0)).convert(mode), tmp_path / "a.png")
        if mode == "P":
            path = saved(Image.new("P", (4, 4)), path, transparency=0)
    with pytest.raises(ConfigError, match=r"^The keyframe 0, .*a\.png, is partly transparent; put it on a background"):
        open_picture(path, "The keyframe 0")


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_of_an_animation_the_first_frame_is_taken_with_a_note(tmp_path: Path, name: str) -> None:
    second = [Image.new("RGB", (4, 4), (0, 0, 250))]
    path = saved(Image.new("RGB", (4, 4), (250, 0, 0)), tmp_path / name, save_all=True, append_images=second)
    with pytest.warns(UserWarning, match=r"has 2 (frames|pages); the first is used"):
        assert level(path)[0] > 200


@pytest.mark.parametrize(
    ("array", "given"),
    [
        (np.zeros((4, 4, 3), np.uint16), "uint16"),
        (np.zeros((4, 4, 3)), "float64"),
        (np.zeros((4, 4), np.uint8), r"uint8 \[4, 4\]"),
        (np.zeros((4, 4, 4), np.uint8), r"uint8 \[4, 4, 4\]"),
    ],
)
def test_other_arrays_are_refused_with_what_is_allowed(array: np.ndarray, given: str) -> None:
    with pytest.raises(ShapeError, match=rf"must be uint8 \[h, w, 3\]; given {given}.*Scale values"):
        open_picture(array)


@pytest.mark.parametrize("values", [[1.5], [-0.1], [float("nan")]])
def test_floating_point_pictures_outside_0_to_1_are_refused(values: list[float]) -> None:
    with pytest.raises(ConfigError, match="outside 0 to 1"):
        open_picture(Image.fromarray(np.array([values], np.float32)))


def test_what_is_no_picture_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"must be a path, a Pillow image, or a numpy array .*; given list"):
        open_picture([1, 2])  # type: ignore[arg-type]


def test_refusals_of_files_are_in_our_words(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("a red circle")
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (tmp_path / "drawing.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n")
    cut = saved(Image.effect_noise((64, 64), 50), tmp_path / "cut.png")
    cut.write_bytes(cut.read_bytes()[:900])
    expected = {
        "missing.png": "There is no picture .*missing.png",
        "": "is a folder; name a picture in it",
        "text.png": "damaged or of no known kind",
        "phone.heic": "is a HEIC picture, which cannot be read here. Save it as jpg or png",
        "drawing.eps": "of no known kind",
        "cut.png": "damaged or cut short",
    }
    for name, message in expected.items():
        with pytest.raises(InputFileError, match=message) as caught:
            open_picture(tmp_path / name)
        assert "identify" not in str(caught.value)
