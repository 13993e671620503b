"""A tiny generator that behaves like a model: deterministic, from its seed and from what it is handed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from muybridge.longvideo import Carry, Segment

Frames = npt.NDArray[np.uint8]


@dataclass
class MovingGradient:
    """Goes on from the carried picture, with a colour from its seed; hands on a latent that counts what was seen.

    Attributes:
        size: height and width.
        stops_at: the segment at which somebody presses Ctrl+C, if any.
        made: the segments it was asked for.
        seeds: their seeds.
    """

    size: int = 16
    stops_at: int | None = None
    with_latents: bool = True
    made: list[int] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)

    def __call__(self, segment: Segment, carried: Carry | None, seed: int) -> tuple[Frames, Tensor | None]:
        if segment.index == self.stops_at:
            raise KeyboardInterrupt
        self.made.append(segment.index)
        self.seeds.append(seed)
        assert (carried is None) == (segment.index == 0)
        begin = 0 if carried is None else int(carried.frames[-1].mean())
        seen = torch.zeros(2, dtype=torch.bfloat16)
        if carried is not None:
            assert carried.frames.shape == (segment.num_known, self.size, self.size, 3)
            assert (carried.latents is not None) == self.with_latents
            if carried.latents is not None:
                seen = carried.latents.cpu()
        ramp = np.arange(self.size, dtype=np.int64)
        time = np.arange(segment.num_frames).reshape(-1, 1, 1, 1)
        colour = np.array([seed % 61, seed % 53, seed % 47 + int(seen.sum())])
        frames = (begin + time + ramp.reshape(1, 1, -1, 1) + 2 * ramp.reshape(1, -1, 1, 1) + colour) % 256
        frames = frames.astype(np.uint8)
        if carried is not None:
            frames[: segment.num_known] = np.roll(carried.frames, 1, axis=2)
            carried.frames[:] = 0  # it is the generator's own
        return frames, seen + 1 if self.with_latents else None


@pytest.fixture
def moving_gradient() -> Callable[..., MovingGradient]:
    """The class."""
    return MovingGradient
