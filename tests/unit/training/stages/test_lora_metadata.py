"""What the file of a LoRA says of its training."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from muybridge.data.settings import DataSettings
from muybridge.demo.models import make_tokenizer
from muybridge.errors import ConfigError
from muybridge.training.clip_sets import ClipSets, report_on_data
from muybridge.training.data import ClipsWanted
from muybridge.training.stages.lora import LoraStage
from muybridge.training.stages.lora_metadata import hashes_of_base, run_metadata
from muybridge.training.stages.stage import RunSettings
from muybridge.video import Video

BEGUN, WENT_ON, ENDED = 1_000_000_000, 1_000_003_600, 1_000_007_200


def clips(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        Video(np.full((4, 16, 32, 3), 40 * number, np.uint8), 8).save(folder / f"{number}.mp4")
        (folder / f"{number}.txt").write_text("red circle, jumping" if number else "red circle")
    return folder


def reported(data: ClipSets, stage: LoraStage, folder: Path) -> None:
    data.clips(ClipsWanted(stage.batch_size, 0, make_tokenizer(), 0.0))
    data.close()
    assert data.report is not None
    report_on_data(data.report, stage.steps * stage.batches_a_step, folder)


def finished(output: Path) -> Path:
    """The folder of a stage that was begun, went on an hour later, and ended after another."""
    folder = output / "lora"
    (folder / "exported").mkdir(parents=True)
    for name, time in (("trained-on.txt", BEGUN), ("settings.json", WENT_ON), ("exported", ENDED)):
        if name != "exported":
            (folder / name).write_text("{}")
        os.utime(folder / name, (time, time))
    return folder


def make_stage() -> LoraStage:
    return LoraStage.model_validate(
        {
            "method": "lora",
            "steps": 10,
            "batch_size": 2,
            "processes": 2,
            "accumulate": 3,
            "optimizer": {"name": "adamw", "weight_decay": 0.1},
            "schedule": "cosine",
        }
    )


def test_it_says_how_it_was_trained_and_since_when(tmp_path: Path) -> None:
    stage = make_stage()
    finished(tmp_path)

    said = run_metadata(stage, stage.about, RunSettings(name="mine"), tmp_path)

    assert said["ss_optimizer"] == "adamw(weight_decay=0.1,epsilon=1e-08)"
    assert said["ss_lr_scheduler"] == "cosine"
    assert (said["ss_total_batch_size"], said["ss_gradient_accumulation_steps"]) == ("12", "3")
    assert (said["ss_training_started_at"], said["ss_training_finished_at"]) == (f"{BEGUN:.1f}", f"{ENDED:.1f}")
    assert said["ss_session_id"] == str(BEGUN)
    assert not said.keys() & {"ss_num_train_items", "ss_num_epochs", "ss_tag_frequency"}  # such clips never end
    assert all(isinstance(value, str) for value in said.values())


def test_it_says_what_it_was_trained_on(tmp_path: Path) -> None:
    own, kept = clips(tmp_path / "own", 4), clips(tmp_path / "kept", 2)
    stage, folder = make_stage(), finished(tmp_path)
    settings = {"num_frames": [4], "size": [16, 32], "prior": {"path": str(kept)}}
    sources = [{"path": str(own), "trigger": "sks"}]
    reported(ClipSets(DataSettings.model_validate({**settings, "sources": sources}), kept), stage, folder)

    said = run_metadata(stage, stage.about, RunSettings(name="mine"), tmp_path)

    assert (said["ss_num_train_items"], said["ss_num_train_images"], said["ss_num_reg_images"]) == ("4", "4", "2")
    assert json.loads(said["ss_tag_frequency"]) == {"own": {"sks": 4, "red circle": 4, "jumping": 3}}
    assert (said["ss_resolution"], said["modelspec.resolution"]) == ("(32, 16)", "32x16")
    assert int(said["ss_num_epochs"]) > 1


def test_it_says_which_model_it_is_for(tmp_path: Path) -> None:
    file = tmp_path / "base.safetensors"
    file.write_bytes(bytes(0x100000) + b"x" * 0x20000)
    assert hashes_of_base(str(file)) == {
        "ss_sd_model_hash": hashlib.sha256(b"x" * 0x10000).hexdigest()[:8],
        "ss_new_sd_model_hash": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    first = hashes_of_base("demo/animatediff")["ss_sd_model_hash"]
    assert len(first) == 8
    assert hashes_of_base("demo/easyanimate")["ss_sd_model_hash"] != first


@pytest.mark.parametrize("text", ["{}", '{"sources": [{"path": "own"}], "buckets": []}'])
def test_reports_of_earlier_versions_say_less(tmp_path: Path, text: str) -> None:
    stage = make_stage()
    (finished(tmp_path) / "data.json").write_text(text)
    assert "ss_num_train_items" not in run_metadata(stage, stage.about, RunSettings(name="mine"), tmp_path)


def test_a_damaged_report_is_said(tmp_path: Path) -> None:
    stage = make_stage()
    (finished(tmp_path) / "data.json").write_text("{broken")
    with pytest.raises(ConfigError, match=r"data\.json.*Delete it"):
        run_metadata(stage, stage.about, RunSettings(name="mine"), tmp_path)
