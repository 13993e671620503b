"""Pictures as they are meant to be seen: upright, 8 bits a colour, nothing that lies hidden."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

import numpy as np

from muybridge.errors import ConfigError, InputFileError, MuybridgeError
from muybridge.video.media import MediaFile

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

# Of all that Pillow opens, those that hold pixels: it hands others, such as EPS, to programs that run what is in them.
_FORMATS = (
    *("AVIF", "BMP", "GIF", "HEIF", "ICO", "JPEG", "JPEG2000", "JXL"),
    *("MPO", "PCX", "PNG", "PPM", "PSD", "TGA", "TIFF", "WEBP"),
)
_PARTS = {"AVIF": "frame", "GIF": "frame", "PNG": "frame", "TIFF": "page", "WEBP": "frame"}
_ORIENTATION = 0x0112
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


def picture_formats() -> list[str]:
    """Names of the formats that are opened, in Pillow's words; with HEIF where a plug-in brings it."""
    from PIL import Image

    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


@contextlib.contextmanager
def open_file(path: MediaFile) -> Iterator[Picture]:
    """Open a picture file, without decoding it, for as long as the block lasts.

    Raises:
        InputFileError: it is no picture of a known kind, or too large a one.
        OSError: it is missing or cannot be read.
    """
    with path.open("rb") as file:
        yield _identified(file, path)


def read_picture(path: MediaFile, name: str) -> Picture:
    """Read a picture file as `as_seen` gives it; of an animated one the first frame, with a note.

    Args:
        path: of the file.
        name: stands for it in messages.

    Raises:
        ConfigError: as `as_seen`.
        InputFileError: it is missing, damaged, or no picture.
    """
    try:
        with open_file(path) as image:
            kind = _PARTS.get(image.format or "")
            count = getattr(image, "n_frames", 1) if kind else 1
            seen = as_seen(image, name)
    except MuybridgeError:
        raise
    except FileNotFoundError as error:
        raise InputFileError(f"There is no picture {path}. Check the path.") from error
    except IsADirectoryError as error:
        raise InputFileError(f"{path} is a folder; name a picture in it.") from error
    # A decoder given a damaged file may raise anything at all.
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise InputFileError(f"{path} cannot be read as a picture: {error.strerror}. Name another.") from error
        raise InputFileError(
            f"{path} cannot be read as a picture: it is damaged or cut short. Save it again."
        ) from error
    if count > 1:
        warnings.warn(f"{name} has {count} {kind}s; the first is used.", stacklevel=2)
    return seen


def upright_size(image: Picture) -> tuple[int, int]:
    """Height and width of an opened picture once it is upright, without decoding."""
    is_lying = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
    return (image.width, image.height) if is_lying else (image.height, image.width)


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
        raise transparency_error(name)
    if image.mode in _SIXTEEN_BIT or image.mode == "F":
        image = _in_8_bits(image, name)
    try:
        pixels = np.asarray(image.convert("RGB"))
    except ValueError as error:
        raise ConfigError(f"{name} has colours of the kind {image.mode}; save it in red, green and blue.") from error
    return Image.fromarray(pixels)  # without what was noted beside the pixels, and no longer holds


def transparency_error(name: str) -> ConfigError:
    """What to raise where something can be seen through, and what lies behind is not known."""
    return ConfigError(f"{name} is partly transparent; put it on a background and save it without transparency.")


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


def _identified(file: IO[bytes], path: MediaFile) -> Picture:
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # a large photograph is one too
            return Image.open(file, formats=picture_formats())
    except Image.DecompressionBombError as error:
        most = (Image.MAX_IMAGE_PIXELS or 0) * 2 / 1e6
        raise InputFileError(
            f"{path} has more than {most:.0f} million pixels. Scale it down first.", "too-large"
        ) from error
    except UnidentifiedImageError as error:
        file.seek(0)
        head = file.read(12)
        if head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS:
            message = "is a HEIC picture, which cannot be read here. Save it as jpg or png."
        else:
            message = "cannot be read as a picture: it is damaged or of no known kind. Give a jpg, png or webp."
        raise InputFileError(f"{path} {message}") from error
