"""Runs of training on the terminal: one as it goes, or two side by side."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from muybridge.errors import ConfigError
from muybridge.training.monitoring.comparison import StageComparison
from muybridge.training.monitoring.curves import short
from muybridge.training.monitoring.record import is_starting, read_run
from muybridge.training.monitoring.terminal import screen

_SECONDS = 2.0


def watch(folder: Path, console: Console) -> None:
    """Show the newest stage of a run, again and again until Ctrl-C; once where `console` is no terminal.

    A run that is starting is waited for.

    Raises:
        ConfigError: there is no run.
    """
    first = _screen(folder, console.width, console.height if console.is_terminal else None)
    if not console.is_terminal:
        console.print(first)
        return
    try:
        with Live(first, console=console, auto_refresh=False, screen=True) as live:
            while True:
                time.sleep(_SECONDS)
                live.update(_seen(folder, console), refresh=True)
    except KeyboardInterrupt:
        console.print(_screen(folder, console.width))


def _screen(folder: Path, width: int, height: int | None = None) -> RenderableType:
    if is_starting(folder):
        return Text(f"The run in {folder} is starting, or was only made ready: nothing is logged yet.")
    return Text("\n".join(screen(read_run(folder)[-1], width, height)))


def _seen(folder: Path, console: Console) -> RenderableType:
    try:
        return _screen(folder, console.width, console.height)
    except ConfigError as error:  # it may be replaced just now
        return Text(str(error))


def show_comparison(stages: Sequence[StageComparison], first: Path, second: Path, console: Console) -> None:
    """Print tables of what two runs have that differs."""
    for stage in stages:
        console.print(f"{stage.name}:")
        names = str(first), str(second)
        if stage.settings:
            rows = [(name, *(value or "-" for value in values)) for name, values in stage.settings.items()]
            _print_table(("setting", *names), rows, console)
        else:
            console.print("  the settings are the same")
        if stage.losses:
            rows = [(f"loss at step {step}", short(a), short(b), _change(a, b)) for step, a, b in stage.losses]
            _print_table(("", *names, "change"), rows, console)
        if stage.held_out:
            rows = [(name, short(a), short(b), _change(a, b)) for name, (a, b) in stage.held_out.items()]
            _print_table((f"at step {stage.step}", *names, "change"), rows, console)


def _change(a: float, b: float) -> str:
    return f"{b / a - 1:+.1%}" if a > 0 else ""


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]], console: Console) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for place, name in enumerate(header):
        table.add_column(Text(name), justify="left" if place == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
    console.print()
