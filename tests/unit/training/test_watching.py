"""Which observers a stage gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from muybridge.data.settings import DataSettings
from muybridge.training.clip_sets import ClipSets
from muybridge.training.data import Batch, ClipsWanted
from muybridge.training.monitoring.held_out import HeldOutLoss
from muybridge.training.run_file import load_run
from muybridge.training.stages.lora import LoraStage
from muybridge.training.stages.registry import training_data
from muybridge.training.stages.stage import EvaluationSettings, StageWork
from muybridge.training.watching import observers_of
from muybridge.video import Video

RUNS = Path(__file__).resolve().parents[3] / "runs"


@dataclass
class Looked:
    """What an observer sees of a trainer before the first step."""

    method: nn.Module
    folder: Path = Path()
    last_update: dict[str, Any] = field(default_factory=dict)


def clips(folder: Path, side: int) -> Path:
    for number in range(4):
        Video(np.full((8, side, side, 3), 40 * number, np.uint8), 8).save(folder / f"{number}.mp4")
        (folder / f"{number}.txt").write_text("a red circle")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clips(tmp_path_factory.mktemp("clips"), 16)


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As large as the shipped models take them."""
    return clips(tmp_path_factory.mktemp("larger"), 64)


def stage(**evaluation: Any) -> LoraStage:
    return LoraStage(method="lora", steps=9, batch_size=1, evaluation=EvaluationSettings(**evaluation))


def names(stage: LoraStage, data: ClipSets, pipeline: Any, tmp_path: Path) -> list[str]:
    work = StageWork(pipeline.unet, lambda _: {}, dict, pipeline=pipeline)
    return [type(each).__name__ for each in observers_of(stage, work, data, tmp_path)]


def test_what_is_asked_for_looks_on(folder: Path, make_pipeline: Callable[..., Any], tmp_path: Path) -> None:
    pipeline = make_pipeline()
    source = {"sources": [{"path": str(folder)}], "num_frames": [4], "size": [16, 16]}
    plain, held = (ClipSets(DataSettings.model_validate({**source, "held_out": share})) for share in (0.0, 0.25))
    for data in (plain, held):
        data.clips(ClipsWanted(1, 0, pipeline.tokenizer, 0.0))

    assert names(stage(), held, pipeline, tmp_path) == []
    assert names(stage(every=None), held, pipeline, tmp_path) == []
    assert names(stage(every=3), plain, pipeline, tmp_path) == ["UpdateSizes", "HeldOutLoss", "ReportFile"]
    everything = ["UpdateSizes", "HeldOutLoss", "SampleSheets", "ReportFile"]
    assert names(stage(every=3, prompts=("a red circle",)), held, pipeline, tmp_path) == everything


@pytest.mark.parametrize(
    ("steps", "every", "apart"),
    [(99, "auto", None), (100, "auto", 200), (2000, "auto", 200), (4700, "auto", 470), (9, 3, 3), (4700, None, None)],
)
def test_how_often_a_run_is_looked_at(steps: int, every: Any, apart: int | None) -> None:
    assert EvaluationSettings(every=every).interval(steps) == apart
    assert EvaluationSettings().every == "auto"


def test_clips_that_training_does_not_reach_are_held_out_where_they_never_end(
    make_pipeline: Callable[..., Any], tmp_path: Path
) -> None:
    asked: list[int] = []

    def batch(index: int) -> dict[str, torch.Tensor]:
        asked.append(index)
        return {"pixels": torch.full((1, 4, 3, 16, 16), index % 7 / 7), "step": torch.tensor(index)}

    class Method(nn.Linear):
        def forward(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, torch.Tensor]:  # type: ignore[override]
            assert batch["step"] == 0
            return {"loss": self.weight.sum() * 0 + batch["pixels"].mean()}

    data, method = training_data("demo-world"), Method(1, 1)
    work = StageWork(method, batch, dict, pipeline=make_pipeline())
    [held_out] = [e for e in observers_of(stage(every=3), work, data, tmp_path) if isinstance(e, HeldOutLoss)]
    values = held_out.observe(Looked(method), 0)

    assert values.keys() == {"held_out_loss/all", "training_loss/all"}
    assert set(asked) == {0, 10**9}
    assert values["held_out_loss/all"] != values["training_loss/all"]


def test_held_out_clips_are_not_trained_on(folder: Path, make_pipeline: Callable[..., Any]) -> None:
    settings = {"sources": [{"path": str(folder)}], "num_frames": [4], "size": [16, 16], "held_out": 0.25}
    data = ClipSets(DataSettings.model_validate(settings))
    data.clips(ClipsWanted(1, 0, make_pipeline().tokenizer, 0.0))
    assert data.looks is not None
    assert data.looks.trained is not None
    assert data.looks.held_out is not None
    trained, held = (
        {clip.record.id for clip in each.dataset.plan.clips} for each in (data.looks.trained, data.looks.held_out)
    )
    assert (len(trained), len(held)) == (3, 1)
    assert not trained & held
    digest = data.digest()
    assert digest is not None
    again = ClipSets(DataSettings.model_validate(settings))
    again.clips(ClipsWanted(1, 0, make_pipeline().tokenizer, 0.0))
    assert again.digest() == digest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("transformer", []),
        ("motion-lora", ["camera=zoom-in", "taught=null", "rank=2"]),
        ("sparse-control", []),
        ("distil", ["solver_steps=8", "rank=2"]),
        ("autoencoder", []),
    ],
)
def test_held_out_clips_are_seen_as_those_that_are_trained_on(
    larger: Path, tmp_path: Path, name: str, settings: list[str]
) -> None:
    once = ["batch_size=1", "evaluation.every=1", "evaluation.batches=1", "evaluation.noises=1"]
    run = load_run(RUNS / f"{name}.yaml", [*settings, *once])
    data = ClipSets(
        DataSettings.model_validate(
            {"sources": [{"path": str(larger)}], "num_frames": [8], "size": [64, 64], "held_out": 0.25}
        )
    )
    work = run.last.prepare(tmp_path, data)
    observers = observers_of(run.last, work, data, tmp_path)
    data.close()

    [held_out] = [each for each in observers if isinstance(each, HeldOutLoss)]
    losses = {n: v for n, v in held_out.observe(Looked(work.method), 0).items() if n.startswith("held_out_loss")}
    assert losses
    assert np.isfinite(list(losses.values())).all()


def test_what_is_not_measured_is_said(
    folder: Path, make_pipeline: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = make_pipeline()
    source = {"sources": [{"path": str(folder)}], "num_frames": [4], "size": [16, 16], "held_out": 0.25}
    data = ClipSets(DataSettings.model_validate(source))
    data.clips(ClipsWanted(1, 0, pipeline.tokenizer, 0.0))
    work = StageWork(pipeline.unet, lambda _: {"depth": torch.zeros(1)}, dict)

    found = observers_of(stage(every=3), work, data, tmp_path)

    assert not any(isinstance(each, HeldOutLoss) for each in found)
    assert "its batches also have depth" in caplog.text


def shapes(batch: Batch) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in batch.items() if isinstance(value, torch.Tensor)}


def test_what_learns_from_single_frames_is_looked_at_in_single_frames(larger: Path, tmp_path: Path) -> None:
    run = load_run(RUNS / "domain-adapter.yaml", ["batch_size=1", "rank=2"])
    settings = {"sources": [{"path": str(larger)}], "num_frames": [8], "size": [64, 64]}
    data = ClipSets(DataSettings.model_validate(settings))
    work = run.last.prepare(tmp_path, data)
    assert data.looks is not None
    assert data.looks.trained is not None

    batch, trained = work.seen(data.looks.trained)(0), work.batches(0)

    data.close()
    assert shapes(batch) == shapes(trained)


def test_a_camera_moves_over_held_out_pictures_too(larger: Path, tmp_path: Path) -> None:
    run = load_run(RUNS / "motion-lora.yaml", ["camera=pan-left", "taught=null", "batch_size=1", "rank=2"])
    settings = {"sources": [{"path": str(larger)}], "num_frames": [8], "size": [64, 64], "held_out": 0.25}
    data = ClipSets(DataSettings.model_validate(settings))
    work = run.last.prepare(tmp_path, data)
    assert data.looks is not None
    assert data.looks.held_out is not None
    picture = torch.linspace(-1, 1, 64).expand(1, 8, 3, 64, 64)

    seen = work.seen(lambda _: {"pixels": picture})(0)["pixels"]

    data.close()
    assert float((seen[:, 0] - seen[:, -1]).abs().mean()) > 0.05
