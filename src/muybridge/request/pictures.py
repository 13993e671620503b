"""Pictures from anywhere: files, Pillow images and arrays, opened upright and fitted to a video."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from muybridge.errors import ConfigError, ShapeError
from muybridge.video.picture import as_seen, read_picture

Picture = str | os.PathLike[str] | Image.Image | npt.NDArray[np.uint8]
"""A file, a Pillow image, or `uint8 [h, w, 3]`."""


def open_picture(picture: Picture, name: str = "The picture") -> Image.Image:
    """Read a picture, from wherever it is given, as it is meant to be seen: red, green and blue, 8 bits each.

    One turned by a camera (EXIF) is turned upright, 16 bits become 8, an alpha channel that is opaque is dropped, of
    an animation the first frame is taken, with a note. Colour profiles are left alone.

    Args:
        picture: a file, a Pillow image, or `uint8 [h, w, 3]`.
        name: stands for it in messages, beside the path of a file.

    Raises:
        ConfigError: it is partly transparent, has values beyond 16 bits or floating point ones outside 0 to 1, or is
            none of these kinds.
        InputFileError: a file that is missing, damaged, or no picture.
        ShapeError: an array that is no picture.
    """
    if isinstance(picture, Image.Image):
        return as_seen(picture, name)
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
            raise ShapeError(
                f"{name} must be uint8 [h, w, 3]; given {picture.dtype} {list(picture.shape)}. Scale values to 0..255 "
                "and put red, green and blue last."
            )
        return Image.fromarray(picture)
    if not isinstance(picture, (str, os.PathLike)):
        raise ConfigError(
            f"{name} must be a path, a Pillow image, or a numpy array uint8 [h, w, 3]; given {type(picture).__name__}."
        )
    path = Path(picture)
    return read_picture(path, f"{name}, {path},")


def resized(picture: Image.Image, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Stretch to a size with a bicubic filter, without cropping: `uint8 [h, w, 3]`."""
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))
