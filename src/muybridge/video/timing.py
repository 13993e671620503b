"""Frame rates in formats that count whole ticks."""

from __future__ import annotations

import itertools
import math


def tick_durations(num_frames: int, fps: float, ticks_per_second: int) -> list[int]:
    """Ticks each frame stays, rounded such that errors do not add up: every frame starts within half a tick."""
    starts = [math.floor(index * ticks_per_second / fps + 0.5) for index in range(num_frames + 1)]
    return [end - start for start, end in itertools.pairwise(starts)]
