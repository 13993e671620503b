"""Samples of the same prompts and seeds all along the training, as one picture an evaluation."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import save_file
from torch import Tensor

from muybridge.errors import ConfigError
from muybridge.files.atomic import new_file, output_error
from muybridge.training.data import BatchSource
from muybridge.training.monitoring.clip_figures import ClipFigures, clip_figures, figures_of_batch, mean_figures
from muybridge.training.monitoring.held_out import HasAdapter
from muybridge.training.monitoring.observing import ObservedTrainer, checked_interval
from muybridge.training.monitoring.record import NEWEST_FILE, SHEETS_FOLDER

if TYPE_CHECKING:
    from muybridge.training.monitoring.clip_figures import Clip

MOST_COLUMNS = 8
_SIDE = 128  # most width and height of a frame
_GAP, _LINE = 4, 17
_PAPER, _INK, _FAINT = (250, 250, 250), (25, 25, 25), (110, 110, 110)


@dataclass(frozen=True)
class Sample:
    """What is made anew at every evaluation.

    Attributes:
        prompt: of the clip.
        seed: of its noise.
    """

    prompt: str
    seed: int = 0


@dataclass(frozen=True)
class MadeClip:
    """What a pipeline made.

    Attributes:
        frames: of the clip.
        latents: that they were decoded from, `[c, n, h, w]`, where they are known.
    """

    frames: Clip
    latents: Tensor | None = None


MakeClip = Callable[[str, int], MadeClip]
"""A pipeline of the networks that are trained: from a prompt and a seed to a clip."""


class SampleSheets:
    """An observer that makes the samples and writes them to `sheets/step-000200.png`, a row each.

    The latents of the newest sheet's first sample are kept in `sheets/newest.safetensors`, which also says its prompt,
    seed and step: what comes of the training can be held against them.

    Where a method can go back to before its training, a row of then follows each. Values are the figures of the samples
    as `samples/motion`, `samples/flicker`, `samples/identical`, likewise `samples_without/...`, and `clips/...` of a
    batch of training clips.
    """

    def __init__(self, make: MakeClip, samples: Sequence[Sample], every: int, clips: BatchSource | None = None) -> None:
        """Make `samples` with `make` every so many steps.

        Raises:
            ConfigError: `every` is below 1, or no sample.
        """
        if not samples:
            raise ConfigError("A sheet of samples needs a prompt at least; give one, or no sheets.")
        self.every = checked_interval(every)
        self._make = make
        self._samples = tuple(samples)
        self._clips = clips
        self._without: list[MadeClip] | None = None
        self._figures_of_clips: ClipFigures | None = None

    def observe(self, trainer: ObservedTrainer, step: int) -> dict[str, float]:
        """Figures of the samples.

        Raises:
            OutputError: the sheet cannot be written.
        """
        method = trainer.method
        was_training = method.training
        method.eval()
        try:
            with torch.no_grad():
                made = self._made()
                if isinstance(method, HasAdapter) and self._without is None:  # it stays the same
                    with method.without():
                        self._without = self._made()
        finally:
            method.train(was_training)
        write_sheet(trainer.folder / SHEETS_FOLDER, step, self._rows(made))
        if made[0].latents is not None:
            _keep(trainer.folder / SHEETS_FOLDER / NEWEST_FILE, self._samples[0], made[0].latents, step)
        values = _named("samples", mean_figures([clip_figures(clip.frames) for clip in made]))
        if self._without is not None:
            values |= _named("samples_without", mean_figures([clip_figures(clip.frames) for clip in self._without]))
        return values | self._values_of_clips()

    def _made(self) -> list[MadeClip]:
        return [self._make(sample.prompt, sample.seed) for sample in self._samples]

    def _rows(self, made: Sequence[MadeClip]) -> list[tuple[str, Clip]]:
        rows: list[tuple[str, Clip]] = []
        for place, (sample, clip) in enumerate(zip(self._samples, made, strict=True)):
            name = f"{sample.prompt or '(no prompt)'} (seed {sample.seed})"
            rows.append((name, clip.frames))
            if self._without is not None:
                rows.append((f"untrained: {name}", self._without[place].frames))
        return rows

    def _values_of_clips(self) -> dict[str, float]:
        if self._clips is None:
            return {}
        if self._figures_of_clips is None:
            self._figures_of_clips = figures_of_batch(self._clips(0)["pixels"])
        return _named("clips", self._figures_of_clips)


def _keep(path: Path, sample: Sample, latents: Tensor, step: int) -> None:
    said = {"prompt": sample.prompt, "seed": str(sample.seed), "step": str(step)}
    with new_file(path) as temporary:
        save_file({"latents": latents.contiguous().cpu()}, temporary, said)


def write_sheet(folder: Path, step: int, rows: Sequence[tuple[str, Clip]]) -> Path:
    """Write the sheet of a step, and beside it, as text, what it shows.

    Raises:
        OutputError: it cannot be written.
    """
    path = folder / f"step-{step:06d}.png"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error
    words = f"Samples at step {step}: " + "; ".join(name for name, _ in rows)
    with new_file(path.with_suffix(".txt")) as temporary:
        temporary.write_text(f"{words}\n", encoding="utf-8", errors="backslashreplace")
    with new_file(path) as temporary:
        draw_sheet(f"step {step}", rows).save(temporary, format="PNG")
    return path


def draw_sheet(title: str, rows: Sequence[tuple[str, Clip]]) -> Image.Image:
    """A row for each clip, its name and figures above its frames, of which at most eight are shown."""
    columns = [_columns(len(clip)) for _, clip in rows]
    pictures = [[_small(clip[place]) for place in places] for (_, clip), places in zip(rows, columns, strict=True)]
    width = max(sum(picture.width + _GAP for picture in row) for row in pictures) + _GAP
    width = max(width, 4 * _SIDE)
    heights = [max(picture.height for picture in row) + 2 * _LINE + _GAP for row in pictures]
    sheet = Image.new("RGB", (width, sum(heights) + _LINE + 2 * _GAP), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    draw.text((_GAP, _GAP), title, _INK, font)
    top = _LINE + 2 * _GAP
    for (name, clip), places, row, height in zip(rows, columns, pictures, heights, strict=True):
        figures = clip_figures(clip)
        told = f"motion {figures.motion:.1f}  flicker {figures.flicker:.1f}  identical {figures.identical:.0%}"
        shown = textwrap.shorten(_plain(name), (width - int(font.getlength(told)) - 4 * _GAP) // 7, placeholder="...")
        draw.text((_GAP, top), shown, _INK, font)
        draw.text((width - _GAP, top), told, _FAINT, font, anchor="ra")
        left = _GAP
        for place, picture in zip(places, row, strict=True):
            sheet.paste(picture, (left, top + _LINE))
            draw.text((left, top + _LINE + picture.height), str(place), _FAINT, font)
            left += picture.width + _GAP
        top += height
    return sheet


def _plain(name: str) -> str:
    # The font that ships with pillow has no other letters, and would draw boxes.
    return name.encode("latin-1", "replace").decode("latin-1")


def _columns(count: int) -> list[int]:
    return sorted({round(place) for place in np.linspace(0, count - 1, min(count, MOST_COLUMNS))})


def _small(frame: Clip) -> Image.Image:
    picture = Image.fromarray(np.ascontiguousarray(frame))
    picture.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    return picture


def _named(name: str, figures: ClipFigures) -> dict[str, float]:
    return {f"{name}/{figure}": value for figure, value in asdict(figures).items()}
