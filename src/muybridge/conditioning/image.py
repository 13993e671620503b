"""Pictures as conditions: read from anywhere, fitted to the video, embedded by CLIP."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from muybridge.errors import InputFileError, ShapeError

if TYPE_CHECKING:
    from transformers import BaseImageProcessor, CLIPVisionModelWithProjection

Picture = str | os.PathLike[str] | Image.Image | npt.NDArray[np.uint8]
"""A file, a Pillow image, or `uint8 [h, w, 3]`."""


def open_picture(picture: Picture) -> Image.Image:
    """Read a picture as red, green and blue; transparency is dropped.

    Raises:
        InputFileError: no such file, or not a picture.
        ShapeError: an array that is no picture.
    """
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
            raise ShapeError(f"A picture must be uint8 [h, w, 3]; given {picture.dtype} {list(picture.shape)}.")
        return Image.fromarray(picture)
    path = Path(picture)
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError as error:
        raise InputFileError(f"There is no picture {path}.") from error
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputFileError(f"{path} cannot be read as a picture ({error}).") from error


def resized(picture: Image.Image, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Stretch to a size with a bicubic filter, without cropping: `uint8 [h, w, 3]`."""
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))


def embed_picture(
    processor: BaseImageProcessor, encoder: CLIPVisionModelWithProjection, picture: Image.Image
) -> Tensor:
    """CLIP's projected embedding of a picture, `[1, d]`, on the encoder's device and in its precision."""
    pixels = processor(images=picture, return_tensors="pt").pixel_values
    with torch.no_grad():
        return encoder(pixel_values=pixels.to(encoder.device, encoder.dtype)).image_embeds
