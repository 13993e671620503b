"""What the writer of a format is: a context that takes frames as they come."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from muybridge.errors import ShapeError

MAX_COLLECTED_BYTES = 2 << 30

Frames = npt.NDArray[np.uint8]
TakeFrames = Callable[[Frames], None]
"""Takes the next frames, `uint8 [n, h, w, 3]`."""


class FileSettings(NamedTuple):
    """What a file says about all its frames.

    Attributes:
        height: pixels of every frame from top to bottom.
        width: pixels from left to right.
        fps: frames per second.
        comment: text that travels in the file, or None.
    """

    height: int
    width: int
    fps: float
    comment: str | None


OpenEncoder = Callable[[Path, FileSettings], AbstractContextManager[TakeFrames]]
"""(temporary path, settings) -> a context that takes frames and has the file complete when it ends well."""
WriteWhole = Callable[[Path, Frames, float, str | None], None]
"""(path, all frames, fps, comment): the writer of a format that cannot begin before it has seen every frame."""


def collected(write: WriteWhole, max_bytes: int = MAX_COLLECTED_BYTES) -> OpenEncoder:
    """The encoder of a format that needs all frames: keeps what comes, by reference, and writes at the end.

    The encoder raises ShapeError when the frames of several pieces together are over `max_bytes`. One piece may be of
    any size, since it is in memory anyway.
    """

    @contextlib.contextmanager
    def open_encoder(path: Path, settings: FileSettings) -> Iterator[TakeFrames]:
        pieces: list[Frames] = []

        def take(frames: Frames) -> None:
            pieces.append(frames)
            if len(pieces) > 1 and sum(piece.nbytes for piece in pieces) > max_bytes:
                raise ShapeError(
                    f"This format is made of all its frames at once, and {sum(map(len, pieces))} frames of "
                    f"{settings.width}x{settings.height} are over {max_bytes >> 20} MiB. Save as .mp4 or .png, which "
                    "are written as frames come."
                )

        yield take
        write(path, pieces[0] if len(pieces) == 1 else np.concatenate(pieces), settings.fps, settings.comment)

    return open_encoder
