"""A run of a few steps that adds a SparseCtrl for keyframes to the shipped model, from the run file to a video."""

from __future__ import annotations

import json
import resource
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from muybridge import load_pipeline
from muybridge.checkpoints.locate import locate_model
from muybridge.demo import models
from muybridge.demo.batches import KeyframeBatches
from muybridge.errors import CheckpointError, ConfigError, OutputError
from muybridge.pipelines import AnimateDiffPipeline
from muybridge.training.run import run_training
from muybridge.training.run_file import load_run
from muybridge.vae.preview_map import FILE_NAME as MAP_OF_PREVIEWS

RUN_FILE = Path(__file__).resolve().parents[2] / "runs" / "demo-sparse-control.yaml"
TINY = ["steps=3", "batch_size=1", "processes=1", "num_frames=2", "whole_clip_share=0", "log_every=1", "warmup_steps=0"]
FROZEN = ("unet", "motion_adapter", "vae", "text_encoder")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "control"
    assert run_training(RUN_FILE, TINY, output) == output / "model"
    return output


def weights(folder: Path) -> dict[str, torch.Tensor]:
    files = [file for file in folder.glob("*.safetensors") if file.name != MAP_OF_PREVIEWS]
    return {key: value for file in files for key, value in load_file(file).items()}


def test_keyframes_change_what_the_model_makes(trained):
    pipeline = load_pipeline(trained / "model")
    assert isinstance(pipeline, AnimateDiffPipeline)
    pipeline.set_progress_bar_config(disable=True)
    picture = np.full((64, 64, 3), 200, np.uint8)

    plain, pinned = (
        pipeline("a red circle", keyframes=given, num_frames=2, num_inference_steps=2, seed=1, output_type="latent")
        for given in (None, {0: picture})
    )

    assert pinned.isfinite().all()
    assert float((plain - pinned).abs().max()) > 1e-3


def test_the_base_model_stays_as_it_is(trained):
    shipped = locate_model("demo/animatediff")
    for part in FROZEN:
        before, after = weights(shipped / part), weights(trained / "model" / part)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before), part
    index = json.loads((trained / "model/model_index.json").read_text())
    assert index["default_steps"] == json.loads((shipped / "model_index.json").read_text())["default_steps"]


def test_what_is_added_is_what_was_trained_and_small(trained):
    exported = weights(trained / "sparse-control/exported/keyframe_control")
    added = weights(trained / "model/keyframe_control")

    assert added.keys() == exported.keys()
    assert all(torch.equal(added[key], exported[key].half()) for key in added)
    assert any(float(value.abs().max()) > 0 for key, value in added.items() if key.startswith("controlnet_down"))
    assert sum(path.stat().st_size for path in (trained / "model/keyframe_control").iterdir()) <= 4_000_000


def test_an_interrupted_run_continues_where_it_was(trained, tmp_path):
    seen: list[int] = []

    def stop_at_first(_: str, step: int, __: int, ___: dict[str, float]) -> None:
        seen.append(step)
        if len(seen) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(RUN_FILE, TINY, tmp_path / "run", stop_at_first)
    run_training(RUN_FILE, TINY, tmp_path / "run", stop_at_first)

    assert seen == [1, 2, 3]
    first, second = (weights(folder / "model/keyframe_control") for folder in (trained, tmp_path / "run"))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_wrong_settings_are_refused_before_anything_is_trained(tmp_path, make_easyanimate):
    make_easyanimate().save_pretrained(tmp_path / "transformer")
    wrong = {
        "motion.colour=red": "colour",
        "num_frames=17": "num_frames",
        "motion_levels=4": "motion_levels 4",
        f"base={tmp_path / 'transformer'}": "has a transformer",
    }

    for override, message in wrong.items():
        with pytest.raises(ConfigError, match=message):
            run_training(RUN_FILE, [*TINY, override], tmp_path / "run")

    assert not list(tmp_path.glob("run/*/checkpoints"))


def test_batches_say_which_frames_are_known():
    """First, first and last, or one to four anywhere; each kind about as often as it says."""
    run = load_run(RUN_FILE)
    assert run.stages[0].method == "sparse-control"
    batches = KeyframeBatches(6, 8, 1, models.make_tokenizer(), whole_clip_share=0.25)

    drawn = [batches(index) for index in range(60)]

    rows = [(*row.nonzero()[:, 0].tolist(), len(row)) for batch in drawn for row in batch["known"]]
    assert {len(row) - 1 for row in rows} == {1, 2, 3, 4}
    assert {row[-1] for row in rows} == {8, 16}
    starts = sum(row[:-1] == (0,) for row in rows) / len(rows)
    ends = sum(row[:-1] == (0, row[-1] - 1) for row in rows) / len(rows)
    assert 0.2 < starts < 0.42
    assert 0.25 < ends < 0.47
    assert torch.equal(batches(7)["known"], drawn[7]["known"])
    assert all(batch["known"].shape == batch["pixels"].shape[:2] for batch in drawn)


@pytest.mark.parametrize("run_file", ["custom-motion", "demo-sparse-control", "lora"])
def test_sdxl_is_not_trained(sdxl_folder: Path, tmp_path: Path, run_file: str) -> None:
    load_pipeline(sdxl_folder / "base", motion_adapter=sdxl_folder / "motion").save_pretrained(tmp_path / "sdxl")
    overrides = [f"base={tmp_path / 'sdxl'}", "steps=1", "processes=1"]

    with pytest.raises(ConfigError, match="is Stable Diffusion XL, which is not trained here"):
        run_training(RUN_FILE.with_name(f"{run_file}.yaml"), overrides, tmp_path / "run")


def test_a_base_that_is_not_there_is_found_before_processes_are_started(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="There is no model"):
        run_training(RUN_FILE, [f"base={tmp_path / 'none'}", "processes=2"], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_file_that_cannot_grow_leaves_the_model_before(trained: Path, tmp_path: Path) -> None:
    """As on a full disk, which safetensors reports by an error of its own."""
    kept = shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(kept / "sparse-control" / "exported")
    before = sorted(path.name for path in (kept / "model").rglob("*"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OutputError, match="Free some space"):
            run_training(RUN_FILE, TINY, kept)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert sorted(path.name for path in (kept / "model").rglob("*")) == before
