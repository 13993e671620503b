"""What the evaluation of one task comes to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from muybridge.types import SettingsDict

Figures = Mapping[str, float | None]
"""Figures by name; None where there is nothing to tell it from. Values are rounded."""
Progress = Callable[[int, int], None]
"""Called with (clips done, clips in all)."""


@dataclass(frozen=True, eq=False)
class TaskReport:
    """Figures of one task.

    Attributes:
        task: its name.
        count: how many prompts.
        seed: of prompts and noise.
        columns: the figures of each group of clips: `generated`, and those to compare with.
        sheet: some of the clips, `uint8 [height, width, 3]`.
        by_attribute: of the generated clips, accuracy by the shape and by the motion that was asked for.
        targets: what figures of `generated` should at least be.
    """

    task: str
    count: int
    seed: int
    columns: Mapping[str, Figures]
    sheet: NDArray[np.uint8]
    by_attribute: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    targets: Mapping[str, float] = field(default_factory=dict)

    def is_met(self, figure: str) -> bool:
        """Whether a figure reaches its target."""
        reached = self.columns["generated"][figure]
        return reached is not None and reached >= self.targets[figure]

    def to_dict(self) -> SettingsDict:
        """Everything but the sheet, as values that JSON has; the columns stand beside the rest."""
        report: SettingsDict = {"task": self.task, "count": self.count, "seed": self.seed}
        report |= {name: dict(figures) for name, figures in self.columns.items()}
        if self.by_attribute:
            report["by_attribute"] = {name: dict(rows) for name, rows in self.by_attribute.items()}
        if self.targets:
            report["targets"] = {
                name: {"at_least": least, "is_met": self.is_met(name)} for name, least in self.targets.items()
            }
        return report
