"""From a file, recognised by its content, to a video or to the request that made it."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from muybridge.errors import ConfigError, InputFileError
from muybridge.video.decoded import Decoded, of_one_size, reading, stack_frames
from muybridge.video.encoding import Frames
from muybridge.video.formats import AnyPath
from muybridge.video.gif import iterate_gif, read_gif, read_gif_comment
from muybridge.video.mp4 import iterate_mp4, read_mp4, read_mp4_comment
from muybridge.video.png import iterate_png, read_png, read_png_comment
from muybridge.video.request import text_to_request
from muybridge.video.value import Video
from muybridge.video.webp import iterate_webp, read_webp, read_webp_comment


class _Reader(NamedTuple):
    video: Callable[[Path], Decoded]
    comment: Callable[[Path], str | None]
    iterate: Callable[[Path, int], Generator[Frames, None, None]]


_PNG = _Reader(read_png, read_png_comment, iterate_png)
_GIF = _Reader(read_gif, read_gif_comment, iterate_gif)
_WEBP = _Reader(read_webp, read_webp_comment, iterate_webp)
_ANY = _Reader(read_mp4, read_mp4_comment, iterate_mp4)


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


def read_frames(path: AnyPath, start: int = 0, count: int | None = None, piece_frames: int = 16) -> Iterator[Frames]:
    """Read what `read_video` reads piece by piece, in memory that does not grow with the length of the video.

    Args:
        path: a video file, a picture, or a folder of numbered pictures.
        start: the first frame wanted, counted from 0. Except in a folder of pictures, those before it cost time.
        count: how many frames at most; all that follow by default.
        piece_frames: frames in a piece; only the last may have fewer.

    Returns:
        An iterator of `uint8 [n, h, w, 3]`, the same frames that `read_video` gives. It holds the file open until it
        ends or is closed.

    Raises:
        ConfigError: numbers out of range; at once.
        InputFileError: the path is missing, at once; it is damaged, no video, has no frame `start`, or frames of
            several sizes, when the iterator gets there.
    """
    if start < 0 or piece_frames < 1 or (count is not None and count < 1):
        raise ConfigError(
            f"start must be at least 0, count and piece_frames at least 1; given start={start}, count={count}, "
            f"piece_frames={piece_frames}."
        )
    return _pieces(_existing(path), start, count, piece_frames)


def read_request(path: AnyPath) -> dict[str, Any] | None:
    """The request that `Video.save` put into the file, None if there is none. Nothing in the file is ever executed.

    Raises:
        InputFileError: the path is missing, damaged or no video.
    """
    source = _existing(path)
    with reading(source):
        return text_to_request(_reader(source).comment(source))


def _pieces(source: Path, start: int, count: int | None, piece_frames: int) -> Iterator[Frames]:
    with reading(source), contextlib.closing(_reader(source).iterate(source, start)) as decoded:
        frames = of_one_size(itertools.islice(decoded, count), start)
        found = False
        for first in frames:
            found = True
            yield stack_frames(itertools.chain([first], itertools.islice(frames, piece_frames - 1)))
        if not found:
            raise InputFileError(f"It has no frame {start}; frames are counted from 0.")


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
