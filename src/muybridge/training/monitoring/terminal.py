"""A run as text for a terminal: curves of block characters, speed, time left, warnings."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from itertools import islice

from muybridge.training.monitoring.curves import Curve, block_graph, short
from muybridge.training.monitoring.findings import findings
from muybridge.training.monitoring.record import StageRecord

_MOST_GRAPHS = 6
_GRAPH_LINES = 5
_BETWEEN = 2
_TWO_COLUMNS = 80


def screen(record: StageRecord, width: int, height: int | None = None) -> list[str]:
    """Lines about a stage, none wider than `width`, except for the path of a sheet.

    There are no more graphs than find room in `height` lines.
    """
    told = [f"newest samples: {record.sheets[-1].path}"] if record.sheets else []
    for finding in findings(record):
        told += textwrap.wrap(finding.text, width, initial_indent="! ", subsequent_indent="  ")
    columns = 2 if width >= _TWO_COLUMNS else 1
    most = _MOST_GRAPHS
    if height is not None:
        taken = 2 + sum(-(-len(line) // width) for line in told)
        most = min(most, max(1, (height - taken) // (_GRAPH_LINES + 1)) * columns)
    graphs = list(islice(_graphs(record), most))
    columns = min(columns, max(1, len(graphs)))
    each = (width - _BETWEEN * (columns - 1)) // columns
    drawn = [_graph(title, curve, each) for title, curve in graphs]
    lines = [_head(record, width), ""]
    for place in range(0, len(drawn), columns):
        rows = zip(*drawn[place : place + columns], strict=True)
        lines += [(" " * _BETWEEN).join(cell.ljust(each) for cell in row).rstrip() for row in rows] + [""]
    return lines + told


def _head(record: StageRecord, width: int) -> str:
    parts = [record.name, f"step {record.step}" + (f"/{record.steps}" if record.steps is not None else "")]
    if record.steps:
        parts.append(_bar(min(1.0, record.step / record.steps), max(8, min(30, width // 4))))
    if rate := record.steps_a_second:
        parts.append(f"{short(rate)} steps/s" if rate >= 1 else f"{short(1 / rate)} s/step")
    if (left := record.seconds_left) is not None:
        parts.append(f"{lasted(left)} left" if left > 0 else "finished")
    return "  ".join(parts)


def _bar(share: float, width: int) -> str:
    done = round(share * width)
    return "█" * done + "░" * (width - done)


def _graphs(record: StageRecord) -> Iterator[tuple[str, Curve]]:
    """The curves that say most, the means of those that belong together."""
    if "loss" in record.curves:
        yield "loss", record.curves["loss"].smoothed(0.8)
    for name in ("held_out_loss", "training_loss", "adapter_gap", "shuffled_gap"):
        yield from ((f"{name} {level}", curve) for level, curve in _middle(record.group(name)))
    for name in ("gradient_norm", "learning_rate", "psnr", "accuracy"):
        if name in record.curves:
            yield name, record.curves[name]


def _middle(group: dict[str, Curve]) -> Sequence[tuple[str, Curve]]:
    """The middle noise level, as others say much the same."""
    levels = list(group.items())
    return levels[len(levels) // 2 : len(levels) // 2 + 1]


def _graph(title: str, curve: Curve, width: int) -> list[str]:
    known = curve.finite().values
    if not known:
        return [f"{title}: no value yet"[:width], *[""] * (_GRAPH_LINES - 1)]
    said = f"{title}  {short(known[-1])}  was {short(known[0])}"
    return [said[:width], *block_graph(curve, width, _GRAPH_LINES - 1)]


def lasted(seconds: float) -> str:
    """A time for people, in two units."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
