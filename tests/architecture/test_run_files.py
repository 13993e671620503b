"""The recipes in runs/ can be run."""

from __future__ import annotations

from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from muybridge.checkpoints import SHIPPED_MODELS
from muybridge.demo.stages.image import MotionStage
from muybridge.motion.registry import make_config
from muybridge.training.run_file import load_run
from muybridge.training.stages.adapters import MotionAdapterStage
from muybridge.training.stages.stage import Stage
from muybridge.training.trainer import TrainerConfig

RUNS = Path(__file__).resolve().parents[2] / "runs"
RUN_FILES = sorted(RUNS.iterdir())


@pytest.mark.parametrize("path", RUN_FILES, ids=lambda path: path.name)
def test_run_files_are_valid(path):
    run = load_run(path)

    assert run.name == path.stem
    for stage in run.stages:
        if isinstance(stage, MotionStage | MotionAdapterStage):
            make_config(stage.motion.kind, stage.motion.config)


def test_every_shipped_model_has_its_recipe():
    assert {name.replace("/", "-") for name in SHIPPED_MODELS} <= {path.stem for path in RUN_FILES}


def test_stages_know_every_setting_of_the_trainer():
    known = Stage.model_fields
    trainer = {field.name: field.default for field in fields(TrainerConfig)}

    assert trainer.keys() <= known.keys()
    assert {name: known[name].default for name, value in trainer.items() if value is not MISSING} == {
        name: value for name, value in trainer.items() if value is not MISSING
    }
