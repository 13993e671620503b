"""How far a long video moves away from how it began: its colours and its sharpness, segment by segment."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from muybridge.errors import ConfigError
from muybridge.types import SettingsDict
from muybridge.video.checks import check_frames

CHANNELS = ("brightness", "blueness", "redness")
# Luma and colour differences of JPEG files (ITU-R BT.601, full range), so that brightness and colour are told apart.
_TO_CHANNELS = np.array(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], dtype=np.float64
).T
_PIXELS_AT_ONCE = 1 << 18

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class SegmentStatistics:
    """What a segment's frames look like.

    Attributes:
        index: of the segment.
        num_frames: how many frames were measured.
        mean: of brightness (0..255), blueness and redness (-128..128, 0 for grey), over all pixels.
        deviation: standard deviation of the same; that of brightness is the contrast.
        sharpness: variance of the Laplacian of the brightness of a frame, averaged over frames; 0 for flat pictures.
    """

    index: int
    num_frames: int
    mean: Triple
    deviation: Triple
    sharpness: float


@dataclass(frozen=True)
class Drift:
    """A segment compared with the first.

    Attributes:
        mean_shift: by how much the means of brightness, blueness and redness are higher.
        deviation_ratio: how many times as large the deviations are; None where the first segment's is 0.
        sharpness_ratio: how many times as large the sharpness is; None likewise.
    """

    mean_shift: Triple
    deviation_ratio: tuple[float | None, float | None, float | None]
    sharpness_ratio: float | None


@dataclass(frozen=True)
class DriftReport:
    """The statistics of all segments, in order; some numbers for each, however large it is."""

    segments: tuple[SegmentStatistics, ...]

    def drift(self, index: int) -> Drift:
        """The segment at this place of the report against the first; negative places count from the end.

        Raises:
            ConfigError: there is no such place.
        """
        if not -len(self.segments) <= index < len(self.segments):
            raise ConfigError(f"The report has {len(self.segments)} segments; given {index}. Count from 0.")
        first, other = self.segments[0], self.segments[index]
        shift = [after - before for before, after in zip(first.mean, other.mean, strict=True)]
        ratios = [_ratio(after, before) for before, after in zip(first.deviation, other.deviation, strict=True)]
        return Drift(
            (shift[0], shift[1], shift[2]),
            (ratios[0], ratios[1], ratios[2]),
            _ratio(other.sharpness, first.sharpness),
        )

    def to_dict(self) -> SettingsDict:
        """Values that JSON has: the names of the channels, and statistics and drift of every segment."""
        return {
            "channels": list(CHANNELS),
            "segments": [
                _with_lists(asdict(segment) | asdict(self.drift(place))) for place, segment in enumerate(self.segments)
            ],
        }


def measure_segment(index: int, frames: npt.NDArray[np.uint8]) -> SegmentStatistics:
    """Measure frames `uint8 [f, h, w, 3]`, a few at a time, in float64.

    Raises:
        ShapeError: no frame, or another shape or type.
    """
    check_frames(frames)
    num_frames, height, width = frames.shape[:3]
    sums, squares, sharpness = np.zeros(3), np.zeros(3), 0.0
    step = max(1, _PIXELS_AT_ONCE // (height * width))
    for begin in range(0, num_frames, step):
        channels = frames[begin : begin + step] @ _TO_CHANNELS
        sums += channels.sum((0, 1, 2))
        squares += np.square(channels).sum((0, 1, 2))
        sharpness += float(_laplacian(channels[..., 0]).var((1, 2)).sum())
    mean = sums / (num_frames * height * width)
    deviation = np.sqrt(np.maximum(0, squares / (num_frames * height * width) - np.square(mean)))
    return SegmentStatistics(index, num_frames, _triple(mean), _triple(deviation), sharpness / num_frames)


def _laplacian(brightness: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """`[n, h, w]`; the pictures are continued beyond their edges."""
    edged = np.pad(brightness, ((0, 0), (1, 1), (1, 1)), mode="edge")
    beside = edged[:, :-2, 1:-1] + edged[:, 2:, 1:-1] + edged[:, 1:-1, :-2] + edged[:, 1:-1, 2:]
    return beside - 4 * brightness


def _triple(values: npt.NDArray[np.float64]) -> Triple:
    first, second, third = values.tolist()
    return first, second, third


def _ratio(value: float, base: float) -> float | None:
    # Below that it is rounding, not picture.
    return value / base if base > 1e-6 else None


def _with_lists(values: SettingsDict) -> SettingsDict:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
