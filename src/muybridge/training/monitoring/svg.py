"""Curves as SVG, to stand in a page: colours are the page's, by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from muybridge.training.monitoring.curves import Axis, Curve, axis_of, short

COLOURS = 8
"""Classes `c0` to `c7`."""
_WIDTH, _HEIGHT = 360, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 8, 8, 22


@dataclass(frozen=True)
class Line:
    """A curve of a chart.

    Attributes:
        name: in the legend.
        curve: itself.
        colour: number of its colour.
        dashed: to tell two curves of one colour apart.
        smoothed: drawn as a moving average, with the values themselves faint behind it.
    """

    name: str
    curve: Curve
    colour: int
    dashed: bool = False
    smoothed: bool = False


def draw_chart(title: str, lines: Sequence[Line], is_log: bool, band: tuple[float, float] | None = None) -> str:
    """An SVG element with axes and all lines; empty where no value can be drawn.

    Args:
        title: said to those who cannot see it.
        lines: to draw.
        is_log: values by their logarithm.
        band: of values that are as they should be, shaded.
    """
    curves = [line.curve.finite() for line in lines]
    known = {step for curve in curves for step in curve.steps}
    across = axis_of([float(step) for step in known])
    up = axis_of([value for curve in curves for value in curve.values], is_log)
    if across is None or up is None:
        return ""
    if len(known) == 1:  # in the middle, with nothing else to name
        across = Axis(min(known) - 1.0, min(known) + 1.0)
    drawn = [_grid(across, up, [float(step) for step in known] if len(known) == 1 else _whole(across))]
    if band is not None:
        drawn.append(_band(band, up))
    drawn += [_line(line, across, up) for line in lines]
    words = escape(f"{title}: " + ", ".join(f"{line.name} {short(line.curve.last)}" for line in lines), quote=True)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{words}" preserveAspectRatio="xMidYMid meet">'
        + "".join(drawn)
        + "</svg>"
    )


def _x(axis: Axis, step: float) -> float:
    return _LEFT + axis.place(step) * (_WIDTH - _LEFT - _RIGHT)


def _y(axis: Axis, value: float) -> float:
    return _HEIGHT - _BOTTOM - axis.place(value) * (_HEIGHT - _TOP - _BOTTOM)


def _grid(across: Axis, up: Axis, steps: Sequence[float]) -> str:
    parts = []
    for value in up.ticks():
        y = _y(up, value)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 4}" y="{y + 4:.1f}" text-anchor="end">{short(value)}</text>')
    for step in steps:
        parts.append(
            f'<text x="{_x(across, step):.1f}" y="{_HEIGHT - 6}" text-anchor="middle">{_counted(int(step))}</text>'
        )
    return "".join(parts)


def _whole(across: Axis) -> list[float]:
    return [step for step in across.ticks() if step >= 0 and step == int(step)]


def _counted(step: int) -> str:
    return f"{step / 1000:g}k" if step >= 10_000 else str(step)


def _band(band: tuple[float, float], up: Axis) -> str:
    top, bottom = _y(up, band[1]), _y(up, band[0])
    width = _WIDTH - _LEFT - _RIGHT
    return f'<rect class="band" x="{_LEFT}" y="{top:.1f}" width="{width}" height="{bottom - top:.1f}"/>'


def _line(line: Line, across: Axis, up: Axis) -> str:
    colour, known = f"c{line.colour}", line.curve.finite()
    if len(known.steps) == 1:
        x, y = _x(across, known.steps[0]), _y(up, known.values[0])
        kind = "ring" if line.dashed else "dot"
        return f'<circle class="{kind} {colour}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
    dashes = ' stroke-dasharray="5 3"' if line.dashed else ""
    if not line.smoothed:
        return f'<path class="line {colour}"{dashes} d="{_path(known, across, up)}"/>'
    faint = f'<path class="line faint {colour}" d="{_path(known, across, up)}"/>'
    return faint + f'<path class="line {colour}"{dashes} d="{_path(known.smoothed(), across, up)}"/>'


def _path(curve: Curve, across: Axis, up: Axis) -> str:
    shown = curve.thinned()
    points = [f"{_x(across, s):.1f} {_y(up, v):.1f}" for s, v in zip(shown.steps, shown.values, strict=True)]
    return f"M{'L'.join(points)}" if points else ""


def legend(lines: Sequence[Line]) -> str:
    """Names, colours and newest values of lines, as an HTML list."""
    items = [
        f'<li><span class="key c{line.colour}{" dashed" if line.dashed else ""}"></span>{escape(line.name)} '
        f"<b>{escape(short(line.curve.last))}</b></li>"
        for line in lines
    ]
    return f'<ul class="legend">{"".join(items)}</ul>'


def lines_of(curves: Mapping[str, Curve], smoothed: bool = False) -> list[Line]:
    """A line for each curve, every one in a colour of its own, as far as they go."""
    return [Line(name, curve, place % COLOURS, smoothed=smoothed) for place, (name, curve) in enumerate(curves.items())]
