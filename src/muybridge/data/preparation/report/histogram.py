"""Scores of all clips as bars, with the limits drawn, as SVG to stand in a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 360, 178
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 10, 26, 20
_BINS = 30
_TICKS = 5
_STEPS = 1.0, 2.0, 5.0, 10.0
_FAR = 3.0
"""How many times the width of the middle 96 % a value may lie outside of it before it is put into the last bar."""
_NEAR = 0.5
"""How many times the width of all values a limit may lie outside of them to be drawn in its place."""


@dataclass(frozen=True)
class Span:
    """The values that an axis shows.

    Attributes:
        low: the least.
        high: the most, above it.
        below: whether smaller ones stand in the first bar.
        above: whether larger ones stand in the last bar.
    """

    low: float
    high: float
    below: bool = False
    above: bool = False

    def place(self, value: float) -> float:
        """From 0 at the least to 1 at the most, which what lies outside has too."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


def span_of(values: Sequence[float], limits: Sequence[float] = ()) -> Span:
    """What shows all values and limits, but for those that would leave the others no room."""
    ordered = sorted(values)
    near_low, near_high = (ordered[round(share * (len(ordered) - 1))] for share in (0.02, 0.98))
    room = _FAR * (near_high - near_low)
    low, high = ordered[0], ordered[-1]
    below, above = room > 0 and low < near_low - room, room > 0 and high > near_high + room
    low, high = near_low if below else low, near_high if above else high
    room = _NEAR * (high - low)
    near = [limit for limit in limits if low - room <= limit <= high + room or low == high]
    low, high = min((low, *near)), max((high, *near))
    if low == high:
        margin = abs(low) * 0.05 or 1.0
        low, high = low - margin, high + margin
    return Span(low, high, below, above)


def ticks(span: Span) -> list[float]:
    """Round values to name."""
    size = (span.high - span.low) / _TICKS
    unit = 10.0 ** math.floor(math.log10(size))
    step = next(unit * times for times in _STEPS if unit * times >= size * (1 - 1e-9))
    first, last = math.ceil(span.low / step - 1e-9), math.floor(span.high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def short(value: float) -> str:
    """A value as people read it: three digits, or all of a whole number."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def draw_histogram(name: str, values: Sequence[float], least: float | None = None, most: float | None = None) -> str:
    """Bars of finite values, those outside the limits in another colour.

    Args:
        name: said to those who cannot see it.
        values: one at least.
        least: the limit below; None where there is none.
        most: the limit above.
    """
    limits = [limit for limit in (least, most) if limit is not None]
    span = span_of(values, limits)
    kept, lost = [0] * _BINS, [0] * _BINS
    for value in values:
        is_kept = (least is None or value >= least) and (most is None or value <= most)
        (kept if is_kept else lost)[min(_BINS - 1, int(span.place(value) * _BINS))] += 1
    tallest = max(a + b for a, b in zip(kept, lost, strict=True))
    words = f"{name}: {len(values)} clips from {short(min(values))} to {short(max(values))}"
    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(words, quote=True)}">']
    parts += [_axes(span, tallest), *_bars(kept, lost, tallest), *_limits(limits, span)]
    return "".join(parts) + "</svg>"


def _x(share: float) -> float:
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _axes(span: Span, tallest: int) -> str:
    floor = _HEIGHT - _BOTTOM
    parts = [f'<path class="axis" d="M{_LEFT} {floor + 0.5}H{_WIDTH - _RIGHT}"/>']
    parts.append(f'<text x="{_LEFT - 4}" y="{_TOP + 9}" text-anchor="end">{tallest}</text>')
    parts.append(f'<text x="{_LEFT - 4}" y="{floor}" text-anchor="end">0</text>')
    named = ticks(span)
    for value in named:
        text = _tick(value, named)
        parts.append(f'<text x="{_x(span.place(value)):.1f}" y="{_HEIGHT - 6}" text-anchor="middle">{text}</text>')
    if span.below:
        parts.append(f'<text x="{_LEFT}" y="10">and below</text>')
    if span.above:
        parts.append(f'<text x="{_WIDTH - _RIGHT}" y="10" text-anchor="end">and above</text>')
    return "".join(parts)


def _bars(kept: Sequence[int], lost: Sequence[int], tallest: int) -> list[str]:
    parts, width = [], (_WIDTH - _LEFT - _RIGHT) / _BINS
    for place, counts in enumerate(zip(kept, lost, strict=True)):
        floor = float(_HEIGHT - _BOTTOM)
        for colour, count in zip(("kept", "lost"), counts, strict=True):
            if count:
                height = max(1.0, count / tallest * (_HEIGHT - _TOP - _BOTTOM))
                floor -= height
                parts.append(
                    f'<rect class="{colour}" x="{_x(place / _BINS) + 0.5:.1f}" y="{floor:.1f}" '
                    f'width="{width - 1:.1f}" height="{height:.1f}"/>'
                )
    return parts


def _limits(limits: Sequence[float], span: Span) -> list[str]:
    parts = []
    for limit in limits:
        x = _x(span.place(limit))
        is_beyond = not span.low <= limit <= span.high
        # Beside the line, on the side that has room.
        anchor, shift = ("start", 4) if x < _WIDTH * 0.75 else ("end", -4)
        if not is_beyond:
            parts.append(f'<path class="limit" d="M{x:.1f} {_TOP - 12}V{_HEIGHT - _BOTTOM}"/>')
        parts.append(
            f'<text class="at" x="{x + shift:.1f}" y="{_TOP - 4}" text-anchor="{anchor}">{_arrow(limit, span)}</text>'
        )
    return parts


def _tick(value: float, named: Sequence[float]) -> str:
    """A round value with as many digits as tell it from its neighbours."""
    step = named[1] - named[0] if len(named) > 1 else abs(value)
    digits = max(0, math.ceil(-math.log10(step) - 1e-9)) if step > 0 else 0
    if digits > 6 or abs(value) >= 1e6:
        return f"{value:.3g}"
    return f"{value + 0.0:.{digits}f}"  # minus nothing is nothing


def _arrow(limit: float, span: Span) -> str:
    """A limit, with an arrow where it lies outside."""
    if limit > span.high:
        return f"{short(limit)} →"
    return f"← {short(limit)}" if limit < span.low else short(limit)
