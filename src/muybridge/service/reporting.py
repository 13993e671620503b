"""What is told of a request while it is carried out, and how long its phases take."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from muybridge.pipelines.progress import Progress
from muybridge.service.long_generation import Listener
from muybridge.service.preview import Preview, Previewer

if TYPE_CHECKING:
    from torch import Tensor

Phase = Literal["load", "encode", "denoise", "decode", "write"]


@dataclass(frozen=True, eq=False)
class Report:
    """Where a request is.

    Attributes:
        phase: "load", "encode" (everything before the first step), "denoise", "decode" or "write".
        step: denoising steps that are done.
        steps: that there will be, over all segments that are to be made; 0 while that is not known.
        segment: which one of a long video is made, from 0.
        segments: how many it has.
        preview: makes small frames of what the video is going to be, or None where the estimate does not fit the map;
            None itself where there is no map for the model, or no preview is due: there are two a second at most.
    """

    phase: Phase
    step: int
    steps: int
    segment: int = 0
    segments: int = 1
    preview: Callable[[], Preview | None] | None = None


class Reporter(Listener):
    """Turns what pipelines tell into reports, and takes the time.

    Attributes:
        latents: after the last step.
    """

    def __init__(self, told: Callable[[Report], None] | None) -> None:
        """Begins with the phase "load"."""
        self._told = told
        self._previewer: Previewer | None = None
        self._seconds: dict[str, float] = {}
        self._phase: Phase = "load"
        self._since = time.perf_counter()
        self._step, self._steps_each = 0, 0
        self._segment, self._segments = 0, 1
        self._num_made, self._num_missing = 0, 1
        self.latents: Tensor | None = None

    def show(self, previewer: Previewer | None) -> None:
        """Offer previews from now on."""
        self._previewer = previewer

    def enter(self, phase: Phase) -> None:
        """A phase begins."""
        self._stop_clock()
        self._phase = phase
        self._tell()

    def finish(self) -> dict[str, float]:
        """Seconds of each phase."""
        self._stop_clock()
        return dict(self._seconds)

    def planned(self, num_segments: int, num_missing: int) -> None:
        """How many segments there are, and how many of them are to be made."""
        self._segments, self._num_missing = num_segments, num_missing

    def began(self, segment: int) -> None:
        """A segment is made now."""
        self._segment = segment

    def made(self) -> None:
        """It is made, and is stored and written now."""
        self._num_made += 1
        self._step = 0
        self.enter("write")

    def on_progress(self, progress: Progress) -> None:
        """What a pipeline tells."""
        if progress.phase != self._phase:
            self._stop_clock()
            self._phase = progress.phase
        if progress.steps:
            self._step, self._steps_each = progress.step, progress.steps
        if progress.report is None:
            self._tell()
            return
        self.latents = progress.report.latents
        self._tell(None if self._previewer is None else self._previewer.of(progress.report.denoised))

    def _tell(self, preview: Callable[[], Preview | None] | None = None) -> None:
        if self._told is None:
            return
        step = self._num_made * self._steps_each + self._step
        steps = self._num_missing * self._steps_each
        self._told(Report(self._phase, step, steps, self._segment, self._segments, preview))

    def _stop_clock(self) -> None:
        now = time.perf_counter()
        self._seconds[self._phase] = self._seconds.get(self._phase, 0.0) + now - self._since
        self._since = now
