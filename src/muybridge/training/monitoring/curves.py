"""Values over steps: smoothing, thinning, and axes; for pictures of any kind."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_LARGEST = 1e100  # beyond, axes would overflow
_STEPS_OF_TICKS = 1.0, 2.0, 5.0


@dataclass(frozen=True)
class Curve:
    """A value over the steps of a run.

    Attributes:
        steps: rising.
        values: one for each step; NaN and infinite ones are as they were logged.
    """

    steps: tuple[int, ...]
    values: tuple[float, ...]

    @property
    def last(self) -> float:
        """The newest value."""
        return self.values[-1]

    def finite(self) -> Curve:
        """Without values that are NaN or infinite."""
        return _curve((s, v) for s, v in zip(self.steps, self.values, strict=True) if math.isfinite(v))

    def up_to(self, step: int) -> Curve:
        """As far as a step, which it includes."""
        return _curve((s, v) for s, v in zip(self.steps, self.values, strict=True) if s <= step)

    def at(self, step: float) -> float | None:
        """The finite values interpolated at a step; None outside of them."""
        curve = self.finite()
        if not curve.steps or not curve.steps[0] <= step <= curve.steps[-1]:
            return None
        right = next(place for place, known in enumerate(curve.steps) if known >= step)
        if curve.steps[right] == step:
            return curve.values[right]
        before, after = curve.steps[right - 1], curve.steps[right]
        share = (step - before) / (after - before)
        return curve.values[right - 1] * (1 - share) + curve.values[right] * share

    def smoothed(self, weight: float = 0.9) -> Curve:
        """The finite values as a moving average, in which each counts `weight` times as much as the one after it."""
        curve, total, count, values = self.finite(), 0.0, 0.0, []
        for value in curve.values:
            total, count = weight * total + value, weight * count + 1
            values.append(total / count)
        return Curve(curve.steps, tuple(values))

    def thinned(self, most: int = 300) -> Curve:
        """At most about so many points: of each stretch the lowest and the highest, and the two ends."""
        if len(self.steps) <= most:
            return self
        points = list(zip(self.steps, self.values, strict=True))
        length = math.ceil(2 * len(points) / max(2, most - 2))
        kept = {points[0], points[-1]}
        for start in range(0, len(points), length):
            stretch = sorted(points[start : start + length], key=lambda point: point[1])
            kept |= {stretch[0], stretch[-1]}
        return _curve(sorted(kept))


def _curve(points: Iterable[tuple[int, float]]) -> Curve:
    steps, values = [], []
    for step, value in points:
        steps.append(step)
        values.append(value)
    return Curve(tuple(steps), tuple(values))


@dataclass(frozen=True)
class Axis:
    """Where values lie between two ends, by their size or by their logarithm.

    Attributes:
        low: the lowest value.
        high: the highest, above it.
        is_log: by the logarithm; both ends are above 0 then.
    """

    low: float
    high: float
    is_log: bool = False

    def place(self, value: float) -> float:
        """From 0 at the lowest to 1 at the highest; what lies outside is at the end."""
        if self.is_log:
            low, high = math.log10(self.low), math.log10(self.high)
            share = (math.log10(max(value, self.low)) - low) / (high - low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return min(1.0, max(0.0, share))

    def ticks(self, most: int = 5) -> list[float]:
        """Round values to name, at most about so many."""
        if self.is_log and (named := _powers(self.low, self.high, most)):
            return named
        size = (self.high - self.low) / most
        unit = 10.0 ** math.floor(math.log10(size))
        step = next((unit * times for times in _STEPS_OF_TICKS if unit * times >= size), unit * 10)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def _powers(low: float, high: float, most: int) -> list[float]:
    """Powers of ten between two values; with 2 and 5 times them where there are few; nothing where still too few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    powers = [10.0**exponent for exponent in range(first, last + 1)]
    between = [value for value in powers if low <= value <= high]
    if len(between) > 2:
        return between[:: math.ceil(len(between) / most)]
    finer = [power * times for power in powers for times in _STEPS_OF_TICKS if low <= power * times <= high]
    return finer if len(finer) > 1 else []


def axis_of(values: Sequence[float], is_log: bool = False) -> Axis | None:
    """An axis for all finite values; None where there are none, or none that a logarithm has."""
    known = [value for value in values if abs(value) < _LARGEST and (value > 1 / _LARGEST or not is_log)]
    if not known:
        return None
    low, high = min(known), max(known)
    if is_log:
        return Axis(low / 1.1, high * 1.1, True)
    margin = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    # What is never below 0 is not drawn as if it might be.
    return Axis(low - margin if low else 0.0, high + margin)


def short(value: float) -> str:
    """A value as people read it: four digits."""
    if not math.isfinite(value):
        return str(value)
    return f"{value:.4g}".replace("e-0", "e-").replace("e+0", "e+")


_BLOCKS = " ▁▂▃▄▅▆▇█"


def block_graph(curve: Curve, width: int, height: int = 4, is_log: bool = True) -> list[str]:
    """A curve as lines of block characters, from the top; empty lines where there is nothing to show.

    Values at or below 0 make the graph linear.
    """
    known = curve.finite()
    is_log = is_log and min(known.values, default=1.0) > 1 / _LARGEST
    axis = axis_of(known.values, is_log)
    if axis is None or width < 1:
        return [""] * height
    first, last = known.steps[0], known.steps[-1]
    columns: list[list[float]] = [[] for _ in range(width)]
    for step, value in zip(known.steps, known.values, strict=True):
        columns[min(width - 1, (step - first) * width // max(1, last - first))].append(value)
    levels: list[int] = []
    for column in columns:
        if column:
            levels.append(max(1, round(axis.place(sum(column) / len(column)) * 8 * height)))
        else:
            levels.append(levels[-1] if levels else 0)
    rows = range(height - 1, -1, -1)
    return ["".join(_BLOCKS[min(8, max(0, level - 8 * row))] for level in levels) for row in rows]
