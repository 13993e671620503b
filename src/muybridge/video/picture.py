"""Pictures as they are meant to be seen: upright, 8 bits a colour, nothing that lies hidden."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from muybridge.errors import ConfigError, InputFileError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

# Of all that Pillow opens, those that hold pixels: it hands others, such as EPS, to programs that run what is in them.
_FORMATS = (
    *("AVIF", "BMP", "GIF", "HEIF", "ICO", "JPEG", "JPEG2000", "JXL"),
    *("MPO", "PCX", "PNG", "PPM", "PSD", "TGA", "TIFF", "WEBP"),
)
_ANIMATED = {"AVIF": "frame", "GIF": "frame", "PNG": "frame", "TIFF": "page", "WEBP": "frame"}
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


def picture_formats() -> list[str]:
    """Names of the formats that are opened, in Pillow's words; with HEIF where a plug-in brings it."""
    from PIL import Image

    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def read_picture(path: Path, name: str) -> Picture:
    """Read a picture file as `as_seen` gives it; of an animated one the first frame, with a note.

    Args:
        path: of the file.
        name: stands for it in messages.

    Raises:
        ConfigError: as `as_seen`.
        InputFileError: it is missing, damaged, or no picture.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # a large photograph is one too
            with Image.open(file, formats=picture_formats()) as image:
                count = getattr(image, "n_frames", 1) if image.format in _ANIMATED else 1
                kind = _ANIMATED.get(image.format or "", "frame")
                image.load()
                seen = as_seen(image, name)
    except ConfigError:
        raise
    except OSError as error:
        raise InputFileError(_unopened(path, error, isinstance(error, UnidentifiedImageError))) from error
    except Image.DecompressionBombError as error:
        most = (Image.MAX_IMAGE_PIXELS or 0) * 2 / 1e6
        raise InputFileError(f"{path} has more than {most:.0f} million pixels. Scale it down first.") from error
    # A decoder given a damaged file may raise anything at all.
    except Exception as error:
        raise InputFileError(_damaged(path)) from error
    if count > 1:
        warnings.warn(f"{name} has {count} {kind}s; the first is used.", stacklevel=2)
    return seen


def as_seen(image: Picture, name: str) -> Picture:
    """Red, green and blue of a picture: turned upright as its camera noted, 16 bits brought down to 8, alpha dropped.

    Args:
        image: of any kind; stays as it is.
        name: stands for it in messages.

    Raises:
        ConfigError: it is partly transparent, has values beyond 16 bits, floating point ones outside 0 to 1, or colours
            of a kind that cannot be turned into red, green and blue.
    """
    from PIL import Image

    image = _upright(image)
    if _is_transparent(image):
        raise ConfigError(f"{name} is partly transparent; put it on a background and save it without transparency.")
    if image.mode in _SIXTEEN_BIT or image.mode == "F":
        image = _in_8_bits(image, name)
    try:
        pixels = np.asarray(image.convert("RGB"))
    except ValueError as error:
        raise ConfigError(f"{name} has colours of the kind {image.mode}; save it in red, green and blue.") from error
    return Image.fromarray(pixels)  # without what was noted beside the pixels, and no longer holds


def _upright(image: Picture) -> Picture:
    from PIL import ImageOps

    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # notes that cannot be read say nothing
        return image


def _is_transparent(image: Picture) -> bool:
    if not image.has_transparency_data:
        return False
    if image.mode in _SIXTEEN_BIT:
        return bool((np.asarray(image) == image.info["transparency"]).any())
    opacity = np.asarray(image.convert("RGBA"))[..., 3]
    return bool(opacity.min() < 255)


def _in_8_bits(image: Picture, name: str) -> Picture:
    """Pillow itself would cut off what is above 255."""
    from PIL import Image

    values = np.asarray(image)
    if image.mode == "F":
        if not (values.min() >= 0 and values.max() <= 1):  # so that NaN is refused too
            raise ConfigError(f"{name} has floating point values outside 0 to 1; scale them, or save it with 8 bits.")
        return Image.fromarray((values * 255).round().astype(np.uint8))
    if values.min() < 0 or values.max() > 65_535:
        raise ConfigError(f"{name} has values beyond 16 bits; save it with 8 or 16.")
    return Image.fromarray((values / 257).round().astype(np.uint8))


def _unopened(path: Path, error: OSError, is_unknown: bool) -> str:
    if isinstance(error, FileNotFoundError):
        return f"There is no picture {path}. Check the path."
    if isinstance(error, IsADirectoryError):
        return f"{path} is a folder; name a picture in it."
    if error.errno is not None:
        return f"{path} cannot be read as a picture: {error.strerror}."
    if not is_unknown:
        return _damaged(path)
    with path.open("rb") as file:
        head = file.read(12)
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        return f"{path} is a HEIC picture, which cannot be read here. Save it as jpg or png."
    return f"{path} cannot be read as a picture: it is damaged or of no known kind. Give a jpg, png or webp."


def _damaged(path: Path) -> str:
    return f"{path} cannot be read as a picture: it is damaged or cut short. Save it again."
