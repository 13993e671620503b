"""Writing of videos, at once or as their frames come."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from muybridge.errors import ConfigError, OutputError, ShapeError
from muybridge.files.atomic import new_file, new_folder, output_error
from muybridge.types import SettingsView
from muybridge.video.checks import check_fps, check_frames, check_request
from muybridge.video.encoding import FileSettings, Frames, TakeFrames
from muybridge.video.formats import FORMATS, AnyPath, check_writable, destination
from muybridge.video.request import request_to_text


class VideoWriter:
    """A video file, or folder of pictures, that grows as frames come: `with VideoWriter("out.mp4", 24) as writer`.

    The bytes are those that `Video.save` gives for the same frames, however they are cut into pieces. For `.mp4` and
    `.png` memory does not depend on the length of the video, but for the index of an `.mp4`, under 100 bytes a frame.
    A `.gif` (one palette for all frames) and a `.webp` are made of all frames at once: they are kept until the end, and
    refused beyond 2 GiB.

    The file takes its name when the `with` block ends well. When it ends with an exception, Ctrl+C included, nothing
    is left behind and an earlier file of that name stays as it was.

    Attributes:
        path: the file or folder that is written.
        num_frames: how many frames it has taken.
    """

    def __init__(self, path: AnyPath, fps: float = 8.0, request: SettingsView | None = None) -> None:
        """Nothing is touched before the `with` block begins.

        Args:
            path: where to, as for `Video.save`; the suffix names the format.
            fps: frames per second, 0.01 to 1000.
            request: what made the video; travels in the file, for `read_request`.

        Raises:
            ConfigError: a suffix that is not known, a rate the format cannot hold, or a request that JSON cannot
                express or that is over 1 MiB.
        """
        check_fps(fps)
        check_request(request)
        self.path, self._suffix = destination(path)
        self._format = FORMATS[self._suffix]
        if fps > self._format.max_fps:
            raise ConfigError(
                f"A {self._suffix} holds at most {self._format.max_fps:g} frames per second; given {fps:g}. Lower fps "
                "or save as .mp4."
            )
        self._given_path = path
        self._fps = float(fps)
        self._comment = None if request is None else request_to_text(request)
        self._stack: contextlib.ExitStack | None = None
        self._temporary: Path | None = None
        self._take: TakeFrames | None = None
        self._size = (0, 0)
        self._has_failed = False
        self.num_frames = 0

    def __enter__(self) -> Self:
        """Raises OutputError where the path cannot be written, before any frame is made."""
        if self._temporary is not None:
            raise ConfigError(f"This writer of {self.path} was used already. Make another one.")
        check_writable(self._given_path)
        stack = contextlib.ExitStack()
        place = new_folder if self._format.is_folder else new_file
        self._temporary = stack.enter_context(place(self.path))
        self._stack = stack
        return self

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames it has taken; zeros before the first."""
        return self._size

    def write(self, frames: Frames) -> None:
        """Append frames, `uint8 [n, h, w, 3]`; `n` may be 0. They may be changed as soon as this returns.

        Raises:
            ShapeError: frames of another shape, type or size than those before, or larger or more than the format can
                hold.
            ConfigError: outside the `with` block.
            OutputError: the disk or the encoder does not take them.
        """
        check_frames(frames, may_be_empty=True)
        self._append(frames.copy() if self._format.needs_all else frames)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Complete the file, or remove what there is of it where the block ended with an exception.

        Raises:
            ShapeError: the block ended well, but no frame came.
            OutputError: the file cannot be completed.
        """
        stack, self._stack = self._stack, None
        if stack is None:
            return
        if error is None and self.num_frames and not self._has_failed:
            stack.close()
            return
        _discard(stack)
        if error is None and self._has_failed:
            raise OutputError(f"{self.path} was not written, since some frames could not be. Nothing was left behind.")
        if error is None:
            raise ShapeError(f"A video has at least one frame; none was given for {self.path}. Write some frames.")

    def _append(self, frames: Frames) -> None:
        if self._stack is None or self._temporary is None:
            raise ConfigError(f"The writer of {self.path} is not open. Write inside its with block.")
        if len(frames) == 0:
            return
        if self._take is None:
            self._take = self._open(self._stack, self._temporary, frames)
        if frames.shape[1:3] != self._size:
            height, width = self._size
            raise ShapeError(
                f"All frames must be {width}x{height} like the first; given {frames.shape[2]}x{frames.shape[1]}. "
                "Scale them first, or write another file."
            )
        try:
            self._take(frames)
        except BaseException as error:
            # Some of them may be in the file, so it can no longer become what was asked for.
            self._has_failed = True
            if isinstance(error, OSError):
                raise output_error(self.path, error) from error
            raise
        self.num_frames += len(frames)

    def _open(self, stack: contextlib.ExitStack, temporary: Path, frames: Frames) -> TakeFrames:
        height, width = frames.shape[1:3]
        if max(height, width) > self._format.max_side:
            raise ShapeError(
                f"A {self._suffix} holds at most {self._format.max_side} pixels a side; given {width}x{height}. Save "
                "as .png instead."
            )
        self._size = (height, width)
        try:
            return stack.enter_context(
                self._format.open(temporary, FileSettings(height, width, self._fps, self._comment))
            )
        except OSError as error:
            raise output_error(self.path, error) from error


def save_stream(path: AnyPath, pieces: Iterable[Frames], fps: float = 8.0, request: SettingsView | None = None) -> Path:
    """Write the frames of `pieces`, each `uint8 [n, h, w, 3]`, as they come; see `VideoWriter`.

    Returns:
        The file or folder written.

    Raises:
        ConfigError: a suffix that is not known, a rate the format cannot hold, or a request that is no JSON.
        ShapeError: no frame at all, frames of several sizes, or more or larger ones than the format can hold.
        OutputError: the path cannot be written; nothing is left behind.
    """
    with VideoWriter(path, fps, request) as writer:
        for frames in pieces:
            writer.write(frames)
    return writer.path


def save_frames(path: AnyPath, frames: Frames, fps: float, request: SettingsView | None) -> Path:
    """See `Video.save`, which has checked the frames."""
    with VideoWriter(path, fps, request) as writer:
        writer._append(frames)
    return writer.path


class _DiscardedError(Exception):
    """Ends the contexts of a file that is not to be; what failed is another exception's to say."""


def _discard(stack: contextlib.ExitStack) -> None:
    # The exception itself does not go through them: an OSError of the caller's would come out as one of this file.
    with contextlib.suppress(Exception), stack:
        raise _DiscardedError
