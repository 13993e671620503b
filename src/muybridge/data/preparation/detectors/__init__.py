"""Ways to find cuts, by the name that settings call them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from muybridge.data.preparation.cuts import CutDetector

DetectorName = Literal["scdet", "adaptive", "transnetv2"]
DETECTORS: tuple[DetectorName, ...] = get_args(DetectorName)
USUAL_THRESHOLDS: dict[DetectorName, float] = {"scdet": 10.0, "adaptive": 3.0, "transnetv2": 0.25}


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
    return lambda: TransNet(network, least)
