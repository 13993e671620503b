"""From a file, recognised by its content, to a video or to the request that made it."""

from __future__ import annotations

import contextlib
import itertools
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from muybridge.errors import ConfigError, InputFileError
from muybridge.types import SettingsDict
from muybridge.video.animation import open_animation, read_animation_comment
from muybridge.video.container import open_container, read_container_comment
from muybridge.video.decoded import Traits, of_one_size, reading, stack_frames
from muybridge.video.encoding import Frames
from muybridge.video.formats import AnyPath
from muybridge.video.media import MediaFile
from muybridge.video.opened import Opened
from muybridge.video.picture import HEIF_BRANDS
from muybridge.video.picture_folder import open_picture_folder, read_folder_comment
from muybridge.video.request import text_to_request
from muybridge.video.timeline import repeats, spread
from muybridge.video.value import Video


class Reader(NamedTuple):
    """How a kind of file is read: its frames, and the text that travels in it."""

    open: Callable[[Any], AbstractContextManager[Opened]]
    comment: Callable[[Any], str | None]
    is_container: bool = False


_FOLDER = Reader(open_picture_folder, read_folder_comment)
_PICTURE = Reader(open_animation, read_animation_comment)
_CONTAINER = Reader(open_container, read_container_comment, is_container=True)
_PICTURE_HEADS = (b"\x89PNG", b"GIF8", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP")
_PICTURE_BRANDS = {b"avif", b"avis", *HEIF_BRANDS}


@dataclass(frozen=True)
class VideoFacts:
    """What a file holds, seen as a video.

    Attributes:
        num_frames: as `read_video` gives them.
        height: in pixels, likewise.
        width: likewise.
        fps: frames per second, likewise.
        is_variable: whether frames stay for different times in the file.
        traits: what its pictures were before they were made ones as they are meant to be seen.
        request: what made it, if the file says so.
    """

    num_frames: int
    height: int
    width: int
    fps: float
    is_variable: bool
    traits: Traits
    request: SettingsDict | None


def read_video(path: AnyPath, count: int | None = None) -> Video:
    """Read what `Video.save` wrote, a foreign video file, an animated picture, or a folder of numbered pictures.

    Frames come as a player shows them: turned upright, with square pixels, in red, green and blue of 8 bits. Where they
    stay for different times, they are repeated or left out such that motion keeps its speed at a constant rate, with a
    warning that says so. A file without a rate, such as one picture, gets the default one of `Video`.

    Args:
        path: the file or folder.
        count: how many frames at most, from the first on; all by default.

    Raises:
        ConfigError: `count` is below 1.
        InputFileError: the path is missing, damaged, cut short, partly transparent, no video, or over 2 GiB of decoded
            frames.
    """
    if count is not None and count < 1:
        raise ConfigError(f"count must be at least 1; given {count}.")
    source = _existing(path)
    with reading(source), _opened(source) as opened:
        frames = stack_frames(frame.pixels for frame in itertools.islice(spread(opened.frames, opened.timing), count))
        rate = {} if opened.timing.fps is None else {"fps": opened.timing.fps}
        return Video(frames, request=text_to_request(opened.comment), **rate)


def read_facts(path: AnyPath) -> VideoFacts:
    """What `read_video` would give, and what the file says beside it; every frame is decoded, but none is kept.

    Raises:
        InputFileError: the path is missing, damaged, cut short, or no video.
    """
    source = _existing(path)
    with reading(source), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they say is among the facts
        with _opened(source) as opened:
            frames = repeats(opened.frames, opened.timing)
            first, count = next(((frame, times) for frame, times in frames if times), (None, 0))
            if first is None:
                raise InputFileError("It holds no frames.", "no-video")
            height, width = first.size or first.pixels.shape[:2]
            count += sum(times for _, times in frames)
        timing = opened.timing
        fps = Video.fps if timing.fps is None else timing.fps
        request = text_to_request(opened.comment)
        return VideoFacts(count, height, width, fps, timing.note is not None, first.traits, request)


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


def read_request(path: AnyPath) -> SettingsDict | None:
    """The request that `Video.save` put into the file, None if there is none. Nothing in the file is ever executed.

    Raises:
        InputFileError: the path is missing, damaged or no video.
    """
    source = _existing(path)
    with reading(source):
        return text_to_request(reader_of(source).comment(source))


@contextlib.contextmanager
def _opened(source: Path) -> Iterator[Opened]:
    with reader_of(source).open(source) as opened, contextlib.closing(opened.frames):
        if opened.timing.note is not None:
            warnings.warn(f"{source} is of variable rate. {opened.timing.note}", stacklevel=2)
        yield opened


def _pieces(source: Path, start: int, count: int | None, piece_frames: int) -> Iterator[Frames]:
    with reading(source), _opened(source) as opened:
        wanted = itertools.islice(spread(opened.frames, opened.timing), start, None if count is None else start + count)
        frames = of_one_size((frame.pixels for frame in wanted), start)
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


def reader_of(source: MediaFile) -> Reader:
    """What reads a file, by its first bytes, or a folder of pictures."""
    if isinstance(source, Path) and source.is_dir():
        return _FOLDER
    with source.open("rb") as file:
        head = file.read(12)
    is_webp = head[:4] == b"RIFF" and head[8:] == b"WEBP"
    is_like_heif = head[4:8] == b"ftyp" and head[8:] in _PICTURE_BRANDS
    return _PICTURE if head.startswith(_PICTURE_HEADS) or is_webp or is_like_heif else _CONTAINER
