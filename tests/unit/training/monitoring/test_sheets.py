"""Sheets of samples: what is on them, and the figures beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from tests.unit.training.monitoring.small import FRAMES, Adapted, Trainer, batches

from muybridge.errors import ConfigError, OutputError, ShapeError
from muybridge.training.monitoring.clip_figures import ClipFigures, clip_figures, figures_of_batch
from muybridge.training.monitoring.sheets import MadeClip, Sample, SampleSheets, draw_sheet, write_sheet


def moving(step: int, frames: int = 8) -> np.ndarray:
    clip = np.zeros((frames, 16, 32, 3), np.uint8)
    for frame in range(frames):
        clip[frame, 4:12, frame * step : frame * step + 8] = 200
    return clip


def test_motion_flicker_and_stills_are_told_apart():
    still, slow, fast = (clip_figures(moving(step)) for step in (0, 1, 3))
    assert (still.motion, still.flicker, still.identical) == (0, 0, 1)
    assert fast.motion > slow.motion > 0
    assert slow.identical == 0
    brightening = np.arange(8, dtype=np.uint8)[:, None, None, None].repeat(3, 3) * np.full((1, 4, 4, 1), 10, np.uint8)
    flickering = np.where(np.arange(8)[:, None, None, None] % 2, 70, 0).astype(np.uint8) + np.zeros(
        (8, 4, 4, 3), np.uint8
    )
    assert clip_figures(brightening) == ClipFigures(10, 0, 0)
    assert clip_figures(flickering) == ClipFigures(70, 140, 0)
    assert clip_figures(moving(1)[:1]) == ClipFigures()
    with pytest.raises(ShapeError):
        clip_figures(np.zeros((16, 16, 3), np.uint8))


def test_a_batch_has_the_figures_of_its_clips():
    clip = torch.from_numpy(moving(2)).permute(0, 3, 1, 2)[None] / 127.5 - 1
    figures = figures_of_batch(torch.cat([clip, torch.zeros_like(clip)]))
    assert figures.motion == pytest.approx(clip_figures(moving(2)).motion / 2)
    assert figures.identical == 0.5
    assert figures_of_batch(clip[:, 0]) == ClipFigures()


def test_a_row_a_clip_and_at_most_eight_frames():
    one = draw_sheet("step 1", [("a", moving(1, 16))])
    two = draw_sheet("step 1", [("a", moving(1, 16)), ("b " * 200 + "\u5f71", moving(1, 1))])
    assert one.width == two.width == 4 * 128
    assert two.height > one.height
    row = np.asarray(one)[46:54]  # where the moving square is in each frame
    left_edges = np.diff((row == 200).all(axis=(0, 2)).astype(int)) == 1
    assert left_edges.sum() == 8


def test_samples_with_and_without_what_is_trained(tmp_path: Path):
    method = Adapted()
    made: list[tuple[str, int]] = []

    def make(prompt: str, seed: int) -> MadeClip:
        made.append((prompt, seed))
        assert not method.training
        return MadeClip(moving(2 if method.is_on else 0, FRAMES), torch.full((4, 2, 1, 1), len(made)))

    sheets = SampleSheets(make, [Sample("a cat"), Sample("", 3)], every=5, clips=batches(1))
    values = sheets.observe(Trainer(method, tmp_path), 5)
    assert values.keys() == {
        f"{whose}/{figure}"
        for whose in ("samples", "samples_without", "clips")
        for figure in ("motion", "flicker", "identical")
    }
    assert (values["samples/identical"], values["samples_without/identical"], values["clips/identical"]) == (0, 1, 0)
    assert made == [("a cat", 0), ("", 3)] * 2
    assert sheets.observe(Trainer(method, tmp_path), 10) == values
    assert made == [("a cat", 0), ("", 3)] * 3  # what it was before training does not change
    with safe_open(tmp_path / "sheets" / "newest.safetensors", "pt") as kept:
        assert kept.metadata() == {"prompt": "a cat", "seed": "0", "step": "10"}
        assert (kept.get_tensor("latents") == 5).all()
    with Image.open(tmp_path / "sheets" / "step-000010.png") as sheet:
        assert sheet.height > 4 * 16
    words = (tmp_path / "sheets" / "step-000010.txt").read_text()
    assert "untrained: a cat (seed 0)" in words
    assert "(no prompt) (seed 3)" in words


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path):
    (tmp_path / "sheets").touch()
    with pytest.raises(OutputError):
        write_sheet(tmp_path / "sheets", 1, [("a", moving(1))])


def test_a_sheet_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="prompt"):
        SampleSheets(lambda *_: MadeClip(moving(1)), [], every=1)
