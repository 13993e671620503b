"""The log of a run: a line of values for every so many steps, and the same values for trackers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from accelerate import Accelerator

from muybridge.errors import OutputError
from muybridge.files.atomic import new_file


class RunLog:
    """Written by the main process alone."""

    def __init__(self, path: Path, accelerator: Accelerator) -> None:
        """Lines go to `path`, and to the trackers of `accelerator`."""
        self.path = path
        self._accelerator = accelerator

    def begin(self, step: int) -> None:
        """The run goes on after `step`; lines of later steps, from before it was interrupted, are dropped.

        Raises:
            OutputError: the file cannot be written.
        """
        if not self._accelerator.is_main_process or not self.path.is_file():
            return
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        kept = [line for line in lines if _step_of(line) <= step]
        if len(kept) < len(lines):
            with new_file(self.path) as temporary:
                temporary.write_text("".join(kept), encoding="utf-8")

    def write(self, step: int, seconds: float, values: Mapping[str, float]) -> None:
        """Add a line.

        Raises:
            OutputError: the file cannot be written.
        """
        if not self._accelerator.is_main_process:
            return
        line = {"step": step, "seconds": round(seconds, 1)}
        line |= {name: float(f"{value:.6g}") for name, value in values.items()}
        try:
            with self.path.open("a", encoding="utf-8") as log:
                log.write(json.dumps(line) + "\n")
        except OSError as error:
            raise OutputError(
                f"The log {self.path} cannot be written ({error.strerror}). The newest checkpoint is kept; free some "
                "space, and the same call continues."
            ) from error
        self._accelerator.log(dict(values), step=step)


def _step_of(line: str) -> float:
    """The step of a line; more than any for one that was cut off."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, TypeError, KeyError):
        return float("inf")
    return step if isinstance(step, int) and line.endswith("\n") else float("inf")
