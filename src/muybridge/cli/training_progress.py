"""How far a training run is: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class TrainingProgress:
    """To be called with (stage, steps done, steps in all, metrics), and closed at the end."""

    def __init__(self, console: Console) -> None:
        """Show on `console`."""
        self._console = console
        self._line: Progress | None = None
        self._task = TaskID(0)

    def __call__(self, stage: str, step: int, steps: int, metrics: dict[str, float]) -> None:
        """Show the state of a stage."""
        values = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        if not self._console.is_terminal:
            self._console.print(f"{stage} {step}/{steps}  {values}")
            return
        if self._line is None:
            self._line = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[values]}"),
                console=self._console,
            )
            self._task = self._line.add_task(stage, total=steps, completed=step, values=values)
            self._line.start()
        self._line.update(self._task, completed=step, values=values)
        if step == steps:
            self.close()

    def close(self) -> None:
        """Leave the line as it stands; the next stage begins another."""
        if self._line is not None:
            self._line.stop()
            self._line = None
