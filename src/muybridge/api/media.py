"""What an uploaded file is: by its content alone, and within limits that hold before and while it is decoded."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from muybridge.api.errors import ApiError
from muybridge.api.settings import Limits
from muybridge.errors import MuybridgeError
from muybridge.video.container import open_input, picture_track
from muybridge.video.decoded import reading
from muybridge.video.picture import read_picture
from muybridge.video.reading import read_frames

Kind = Literal["picture", "video"]
_PICTURES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif"}
_MAX_SIDE = 16384


@dataclass(frozen=True)
class Media:
    """What an uploaded file is.

    Attributes:
        kind: a picture, or a video, which animated pictures are too.
        type: of its content, for browsers.
        width: in pixels.
        height: likewise.
        num_frames: 1 for a picture.
    """

    SUFFIXES: ClassVar[Mapping[str, str]] = {
        "image/gif": ".gif",
        "image/jpeg": ".jpg",
        "image/png": ".png",
        "image/webp": ".webp",
        "video/mp4": ".mp4",
        "video/quicktime": ".mov",
        "video/webm": ".webm",
    }

    kind: Kind
    type: str
    width: int
    height: int
    num_frames: int

    @property
    def suffix(self) -> str:
        """Of files of its type."""
        return self.SUFFIXES[self.type]


def examine(path: Path, name: str, limits: Limits) -> Media:
    """What a file is; all of it is decoded, so that what is accepted can be used.

    Args:
        path: of the file, which is never named in messages.
        name: stands for it in messages.
        limits: of pixels.

    Raises:
        ApiError: it is of no kind that is taken, too large, or damaged.
    """
    with path.open("rb") as file:
        head = file.read(16)
    try:
        with reading(path), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if is_picture_head(head):
                return _picture(path, name, limits)
            if kind := _container_kind(head):
                return _video(path, name, limits, kind)
    except ApiError:
        raise
    except MuybridgeError as error:
        said = str(error).replace(f"{path},", "").replace(str(path), name)
        raise ApiError(400, said, "input_unreadable", name) from error
    raise ApiError(
        400, f"{name} is no png, jpg, webp or gif picture and no mp4, mov or webm video.", "input_unreadable", name
    )


def known_kind(path: Path) -> Kind | None:
    """Whether a file begins as a picture or as a video of a kind that is taken."""
    with path.open("rb") as file:
        head = file.read(16)
    return "picture" if is_picture_head(head) else "video" if _container_kind(head) else None


def is_picture_head(head: bytes) -> bool:
    """Whether a file that begins so is a picture of a kind that is taken."""
    is_webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    return is_webp or head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a"))


def _container_kind(head: bytes) -> str | None:
    if head[4:8] == b"ftyp" and head[8:12] not in (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1"):
        return "video/quicktime" if head[8:12] == b"qt  " else "video/mp4"
    return "video/webm" if head.startswith(b"\x1a\x45\xdf\xa3") else None


def _picture(path: Path, name: str, limits: Limits) -> Media:
    from PIL import Image

    with path.open("rb") as file, Image.open(file, formats=list(_PICTURES)) as image:
        width, height = image.size
        _check_pixels(width * height, limits.picture_pixels, f"{name} is {width}x{height} pixels", name)
        kind = _PICTURES.get(image.format or "", "image/jpeg")  # the rest is what cameras put several jpg into
        count = getattr(image, "n_frames", 1) if kind != "image/jpeg" else 1
    if count > 1:
        _check_pixels(width * height * count, limits.video_pixels, f"{name} has {count} frames", name)
        return _counted(path, name, limits, kind)
    seen = read_picture(path, name)
    return Media("picture", kind, seen.width, seen.height, 1)


def _video(path: Path, name: str, limits: Limits, kind: str) -> Media:
    with path.open("rb") as file, open_input(file) as container:
        context = picture_track(container).codec_context
        width, height = context.width, context.height
    _check_pixels(max(width, height), _MAX_SIDE, f"{name} is {width}x{height} pixels", name)
    _check_pixels(width * height, limits.picture_pixels, f"{name} is {width}x{height} pixels", name)
    return _counted(path, name, limits, kind)


def _counted(path: Path, name: str, limits: Limits, kind: str) -> Media:
    """Decode all frames, up to the limit, which what a file says of itself does not move."""
    pixels, count, height, width = 0, 0, 0, 0
    for frames in read_frames(path, piece_frames=1):
        height, width = frames.shape[1:3]
        count += len(frames)
        pixels += len(frames) * height * width
        _check_pixels(pixels, limits.video_pixels, f"{name} has more than {count} frames of {width}x{height}", name)
    return Media("video", kind, width, height, count)


def _check_pixels(given: int, most: int, what: str, name: str) -> None:
    if given > most:
        raise ApiError(413, f"{what}; at most {most} pixels are taken. Scale or cut it down first.", "too_large", name)
