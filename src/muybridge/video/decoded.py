"""What a reader hands back, kept within bounds because files come from anywhere."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from muybridge.errors import InputFileError, MuybridgeError

MAX_DECODED_BYTES = 2 << 30
_BYTES_PER_ENTRY = 1024


class Decoded(NamedTuple):
    """Content of a video file: frames, frames per second (None where the file has no rate), comment."""

    frames: npt.NDArray[np.uint8]
    fps: float | None
    comment: str | None


def stack_frames(frames: Iterable[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """One array of all frames.

    Raises:
        InputFileError: no frame, frames of several sizes, or more of them than memory should be given to.
    """
    kept: list[npt.NDArray[np.uint8]] = []
    used = 0
    for frame in of_one_size(frames):
        # Even frames of one pixel take up room, and a small file can claim any number of them.
        used += frame.nbytes + _BYTES_PER_ENTRY
        if used > MAX_DECODED_BYTES:
            raise InputFileError(
                f"It has more than {len(kept)} frames of {frame.shape[1]}x{frame.shape[0]}, over "
                f"{MAX_DECODED_BYTES >> 20} MiB in memory. Cut or scale it down first."
            )
        kept.append(frame)
    if not kept:
        raise InputFileError("It holds no frames.")
    return np.stack(kept)


def of_one_size(frames: Iterable[npt.NDArray[np.uint8]], start: int = 0) -> Iterator[npt.NDArray[np.uint8]]:
    """The same frames, the first of which is number `start` of its file.

    Raises:
        InputFileError: at the first frame that is not as large as the one before.
    """
    size: tuple[int, ...] | None = None
    for index, frame in enumerate(frames, start):
        if size is not None and frame.shape != size:
            raise InputFileError(
                f"Frame {index} is {frame.shape[1]}x{frame.shape[0]}, the "
                f"{'first' if start == 0 else 'ones before'} {size[1]}x{size[0]}. All must have one size."
            )
        size = frame.shape
        yield frame


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns whatever goes wrong in the block into an InputFileError about `path`."""
    try:
        yield
    except InputFileError as error:
        raise InputFileError(f"{path} cannot be used as a video. {error}") from error
    except MuybridgeError:
        raise
    # A decoder given a damaged or hostile file may raise anything at all.
    except Exception as error:
        raise InputFileError(
            f"{path} cannot be read as a video: {str(error) or type(error).__name__}. "
            "Give an mp4, gif, webp or png file that plays elsewhere, or a folder of numbered png pictures."
        ) from error
