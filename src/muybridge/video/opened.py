"""A video file that is being read."""

from __future__ import annotations

from collections.abc import Generator
from typing import NamedTuple

from muybridge.video.decoded import LazyFrame
from muybridge.video.timeline import Timing


class Opened(NamedTuple):
    """What a reader of a kind of file gives, for as long as it holds the file open.

    Attributes:
        timing: makes a constant rate of the frames' times.
        frames: as they are decoded, in the order of display. A frame with an end is converted before the next is taken.
        comment: text that travels in the file.
    """

    timing: Timing
    frames: Generator[LazyFrame, None, None]
    comment: str | None
