"""Cuts by scenedetect's AdaptiveDetector, which compares a frame's change with that of its neighbours."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from muybridge.data.preparation.cuts import Thumbnail
from muybridge.errors import ConfigError

if TYPE_CHECKING:
    from av import VideoFrame

_WIDTH = 256
_RATE = 1000.0  # frames are numbered; their times are kept elsewhere


def load_scenedetect() -> None:
    """Raises ConfigError where it is not installed."""
    try:
        import scenedetect.detectors  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError(
            "The detector adaptive needs scenedetect with OpenCV. pip install scenedetect-headless, or use scdet."
        ) from error


class Adaptive:
    """Calm where a camera shakes."""

    def __init__(self, threshold: float) -> None:
        """With how many times as large as its neighbours' a frame's change must be."""
        from scenedetect.detectors import AdaptiveDetector  # pyright: ignore[reportMissingImports]

        self._detector = AdaptiveDetector(adaptive_threshold=threshold, min_scene_len=1)
        self._count = 0
        self._cuts: list[int] = []

    def take(self, frame: VideoFrame, thumbnail: Thumbnail) -> None:
        """The next frame."""
        from scenedetect import FrameTimecode  # pyright: ignore[reportMissingImports]

        scale = min(1.0, _WIDTH / max(frame.width, frame.height))
        height, width = math.ceil(frame.height * scale), math.ceil(frame.width * scale)
        picture = frame.reformat(width, height, "bgr24", interpolation="AREA").to_ndarray()
        found = self._detector.process_frame(FrameTimecode(self._count, _RATE), picture)
        self._cuts += [cut.frame_num for cut in found]
        self._count += 1

    def cuts(self) -> list[int]:
        """Numbers of the frames that begin something new."""
        return sorted(self._cuts)
