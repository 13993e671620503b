"""What a pipeline tells of a video while it makes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from muybridge.sampling import StepReport

Phase = Literal["encode", "denoise", "decode"]


@dataclass(frozen=True, eq=False)
class Progress:
    """Where a call is.

    Attributes:
        phase: "encode" is everything before the first step; told when it begins, like "denoise" and "decode", and
            then after every step, and after all frames that are decoded together.
        step: steps that are done.
        steps: that there will be, over all passes of FreeInit; 0 while that is not known.
        report: of the step that is just done.
    """

    phase: Phase
    step: int = 0
    steps: int = 0
    report: StepReport | None = None


OnProgress = Callable[[Progress], None]
"""What it raises ends the call."""


def tell_nobody(progress: Progress) -> None:
    """Where nobody asks."""
    del progress
