"""What a reader hands back, kept within bounds because files come from anywhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from muybridge.errors import ConfigError, InputFileError, MuybridgeError
from muybridge.video.media import MediaFile

MAX_DECODED_BYTES = 2 << 30
_BYTES_PER_ENTRY = 1024


@dataclass(frozen=True)
class Traits:
    """What a decoded picture was before it was made one as it is meant to be seen.

    Attributes:
        rotation: degrees that it was turned by, clockwise.
        is_mirrored: whether left and right were exchanged.
        pixel_aspect: width of its pixels by their height.
        has_alpha: whether it has a channel for transparency, which may be opaque.
        is_interlaced: whether its lines are of two moments.
        high_range: name of its light curve, where that is one of high dynamic range.
    """

    rotation: int = 0
    is_mirrored: bool = False
    pixel_aspect: float = 1.0
    has_alpha: bool = False
    is_interlaced: bool = False
    high_range: str | None = None


@dataclass(frozen=True, eq=False)
class LazyFrame:
    """A decoded frame that is converted when it is asked for.

    Attributes:
        convert: gives `uint8 [h, w, 3]`.
        start_s: when it is shown, in seconds.
        end_s: until when; None where only the next frame says it.
        size: height and width of what `convert` gives, where that is known before.
        traits: what it was.
        stays_s: seconds that it stays, as the file says; for the last one, that nothing follows.
        scale: gives it at another height and width, where that can be had for less than converting it whole.
    """

    convert: Callable[[], npt.NDArray[np.uint8]]
    start_s: float = 0.0
    end_s: float | None = None
    size: tuple[int, int] | None = None
    traits: Traits = field(default_factory=Traits)
    stays_s: float = 0.0
    scale: Callable[[int, int], npt.NDArray[np.uint8]] | None = None

    @cached_property
    def pixels(self) -> npt.NDArray[np.uint8]:
        """`uint8 [h, w, 3]`."""
        return self.convert()

    def covering(self, size: tuple[int, int] | None) -> npt.NDArray[np.uint8]:
        """`pixels`, or, where `scale` can, no more of them than cover a height and width; never enlarged."""
        if size is None or self.scale is None or self.size is None:
            return self.pixels
        height, width = self.size
        factor = max(size[0] / height, size[1] / width)
        if factor >= 1:
            return self.pixels
        return self.scale(max(size[0], round(height * factor)), max(size[1], round(width * factor)))


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
        raise InputFileError("It holds no frames.", "no-video")
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
def reading(path: MediaFile) -> Iterator[None]:
    """Turns whatever goes wrong in the block into an InputFileError about `path`."""
    try:
        yield
    except (InputFileError, ConfigError) as error:
        fault = error.fault if isinstance(error, InputFileError) else "unusable"
        raise InputFileError(f"{path} cannot be used as a video. {error}", fault) from error
    except (MuybridgeError, Warning):
        raise
    # A decoder given a damaged or hostile file may raise anything at all.
    except Exception as error:
        said = error.strerror if isinstance(error, OSError) and error.errno is not None else None
        reason = said or "it is damaged, cut short, or of no known kind"
        raise InputFileError(
            f"{path} cannot be read as a video: {reason}. Give a video, gif, webp or png file that plays elsewhere, "
            "or a folder of numbered pictures."
        ) from error
