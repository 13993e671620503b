"""An engine that makes real files out of numbers, in milliseconds, and can be told to go wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from muybridge.request import GenerateRequest
from muybridge.types import SettingsView
from muybridge.video import Video


@dataclass
class Told:
    phase: str
    step: int = 0
    steps: int = 0
    segment: int = 0
    segments: int = 1
    preview: Callable[[], Any] | None = None


@dataclass
class Small:
    step: int

    def webp(self) -> bytes:
        return b"preview %d" % self.step


@dataclass
class Finished:
    path: Path
    num_frames: int
    width: int
    height: int
    fps: float
    seed: int
    phase_seconds: dict[str, float]
    peak_memory_bytes: int = 2**20


@dataclass
class Needed:
    fits: bool
    least: str | None


@dataclass
class NumberEngine:
    """Frames whose grey is the seed; `before_step` may wait, raise, or kill."""

    steps: int = 2
    before_step: Callable[[int], None] = lambda _: None
    segments: int = 0
    loaded: tuple[str, ...] = ()
    runs: list[dict[str, Any]] = field(default_factory=list)
    most_frames: int = 1000
    planned: list[GenerateRequest] = field(default_factory=list)

    def open(self, request: GenerateRequest) -> str:
        return f"files of {request.prompt}"

    def cost(self, request: GenerateRequest, inputs: object) -> Needed:
        assert inputs == self.open(request)
        self.planned.append(request)
        fits = (request.shape.num_frames or 3) <= self.most_frames
        return Needed(fits, None if fits else f"{self.most_frames} frames would fit.")

    def run(
        self,
        request: GenerateRequest,
        output: Path,
        *,
        inputs: object = None,
        public: SettingsView | None = None,
        report: Callable[[Told], None],
        redo: Collection[int] = (),
        redo_following: bool = False,
    ) -> Finished:
        assert inputs in (None, self.open(request))
        given = {"request": request, "output": output, "inputs": inputs}
        self.runs.append({**given, "redo": tuple(redo), "following": redo_following})
        report(Told("load"))
        self.loaded = (request.model.model,)
        for step in range(self.steps):
            self.before_step(step)
            report(Told("denoise", step + 1, self.steps, preview=lambda step=step: Small(step + 1)))
        if self.segments:
            folder = output.with_name(output.name + ".segments")
            folder.mkdir(exist_ok=True)
            for index in range(self.segments):
                (folder / str(index)).write_text("made")
        seed = request.sampling.seed or 0
        frames = np.full((request.shape.num_frames or 3, 16, 24, 3), seed % 256, np.uint8)
        path = Video(frames, request=dict(public or {})).save(output)
        return Finished(path, len(frames), 24, 16, 8.0, seed, {"denoise": 0.0})


def wait_for(what: Callable[[], Any], seconds: float = 20.0) -> Any:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := what():
            return found
        time.sleep(0.01)
    raise AssertionError("it did not happen in time")
