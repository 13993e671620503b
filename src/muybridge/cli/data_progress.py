"""How far the preparation of a set is: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

if TYPE_CHECKING:
    from muybridge.data.preparation.schedule import Advance

_EVERY_S = 10.0


class PreparationProgress:
    """To be told of files that are read and of entries that are done, and closed at the end."""

    def __init__(self, console: Console) -> None:
        """Show on `console`."""
        self._console = console
        self._line: Progress | None = None
        self._last = self._began = time.monotonic()
        self._leg = 0

    def on_file(self, done: int, total: int) -> None:
        """Show how many files have been read for what they hold."""
        self._show(f"reading {done} of {total} files", done / max(total, 1))

    def on_advance(self, advance: Advance) -> None:
        """Show how far the stages are."""
        if advance.leg != self._leg:
            self._leg, self._began = advance.leg, time.monotonic()
        self._show(advance_text(advance, time.monotonic() - self._began), advance.share)

    def close(self) -> None:
        """Leave the line as it stands."""
        if self._line is not None:
            self._line.stop()
            self._line = None

    def _show(self, text: str, share: float) -> None:
        if not self._console.is_terminal:
            now = time.monotonic()
            if now - self._last >= _EVERY_S:
                self._last = now
                self._console.print(text)
            return
        if self._line is None:
            self._line = Progress(BarColumn(), TextColumn("{task.description}"), console=self._console)
            self._line.add_task("", total=1.0)
            self._line.start()
        self._line.update(self._line.task_ids[0], completed=share, description=text)


def advance_text(advance: Advance, seconds: float) -> str:
    """How far it is in words: what is done, and what is left by how long that took."""
    what = "entries" if advance.leg == 1 else "clips"
    parts = [f"{advance.done} of {advance.total} {what}"]
    if advance.legs > 1:
        parts[0] = f"{advance.leg}/{advance.legs}: {parts[0]}"
    parts.append(f"{advance.clips} clips, {advance.seconds / 60:.1f} minutes")
    if 0 < advance.share < 1:
        left = 1 / advance.share - 1
        parts.append(f"about {advance.seconds * left / 60:.1f} minutes left, in {_duration(seconds * left)}")
    return "; ".join(parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
