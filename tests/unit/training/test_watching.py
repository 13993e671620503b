"""Which observers a stage gets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from muybridge.data.settings import DataSettings
from muybridge.training.clip_sets import ClipSets
from muybridge.training.data import ClipsWanted
from muybridge.training.stages.lora import LoraStage
from muybridge.training.stages.stage import EvaluationSettings, StageWork
from muybridge.training.watching import observers_of
from muybridge.video import Video


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for number in range(4):
        Video(np.full((4, 16, 16, 3), 40 * number, np.uint8), 8).save(folder / f"{number}.mp4")
        (folder / f"{number}.txt").write_text("a red circle")
    return folder


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
    assert names(stage(every=3), plain, pipeline, tmp_path) == ["UpdateSizes", "ReportFile"]
    everything = ["UpdateSizes", "HeldOutLoss", "SampleSheets", "ReportFile"]
    assert names(stage(every=3, prompts=("a red circle",)), held, pipeline, tmp_path) == everything


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
