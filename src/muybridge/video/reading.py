"""From a file, recognised by its content, to a video or to the request that made it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from muybridge.errors import ConfigError, InputFileError
from muybridge.video.decoded import Decoded, reading
from muybridge.video.gif import read_gif, read_gif_comment
from muybridge.video.mp4 import read_mp4, read_mp4_comment
from muybridge.video.png import read_png, read_png_comment
from muybridge.video.request import text_to_request
from muybridge.video.saving import AnyPath
from muybridge.video.value import Video
from muybridge.video.webp import read_webp, read_webp_comment


class _Reader(NamedTuple):
    video: Callable[[Path], Decoded]
    comment: Callable[[Path], str | None]


_PNG, _GIF = _Reader(read_png, read_png_comment), _Reader(read_gif, read_gif_comment)
_WEBP, _ANY = _Reader(read_webp, read_webp_comment), _Reader(read_mp4, read_mp4_comment)


def read_video(path: AnyPath) -> Video:
    """Read what `Video.save` wrote, or a foreign video file.

    A file without a rate, such as one picture, gets the default one of `Video`. A foreign gif or webp whose frames
    stay for different times gets their average rate.

    Raises:
        InputFileError: the path is missing, damaged, no video, or over 2 GiB of decoded frames.
    """
    source = _existing(path)
    with reading(source):
        decoded = _reader(source).video(source)
        rate = {} if decoded.fps is None else {"fps": decoded.fps}
        try:
            return Video(decoded.frames, request=text_to_request(decoded.comment), **rate)
        except ConfigError as error:
            raise InputFileError(str(error)) from error


def read_request(path: AnyPath) -> dict[str, Any] | None:
    """The request that `Video.save` put into the file, None if there is none. Nothing in the file is ever executed.

    Raises:
        InputFileError: the path is missing, damaged or no video.
    """
    source = _existing(path)
    with reading(source):
        return text_to_request(_reader(source).comment(source))


def _existing(path: AnyPath) -> Path:
    source = Path(os.fspath(path))
    # Saving at out.png makes the folder out; either name reads it.
    if not source.exists() and source.suffix.lower() == ".png" and source.with_suffix("").is_dir():
        return source.with_suffix("")
    if not source.exists():
        raise InputFileError(f"There is no file or folder {source}. Check the path.")
    return source


def _reader(source: Path) -> _Reader:
    if source.is_dir():
        return _PNG
    with source.open("rb") as file:
        head = file.read(12)
    if head.startswith(b"\x89PNG"):
        return _PNG
    if head.startswith(b"GIF8"):
        return _GIF
    return _WEBP if head[:4] == b"RIFF" and head[8:] == b"WEBP" else _ANY
