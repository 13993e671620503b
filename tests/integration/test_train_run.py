"""Whole training runs with tiny numbers, from the run file to a model that generates."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from muybridge import load_pipeline
from muybridge.cli.main import main
from muybridge.errors import ConfigError, OutputError
from muybridge.training.run import run_training

RUN_FILE = Path(__file__).resolve().parents[2] / "runs" / "demo-animatediff.yaml"
STAGES = ("vae", "text", "image", "motion")
TINY = [f"{stage}.{setting}" for stage in STAGES for setting in ("steps=1", "batch_size=2", "log_every=1")]
TINY += ["image.processes=1", "motion.processes=1", "motion.num_frames=2", "motion.whole_clip_share=0"]
TINY += ["default_steps=7", "default_guidance=3.5"]


def train(output: Path, *overrides: str) -> int:
    settings = [part for override in (*TINY, *overrides) for part in ("--set", override)]
    with pytest.raises(SystemExit) as end:
        main(["train", str(RUN_FILE), *settings, "-o", str(output)])
    return int(str(end.value.code))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {key: value for file in folder.glob("*.safetensors") for key, value in load_file(file).items()}


def same_weights(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def steps_logged(output: Path, stage: str) -> list[int]:
    return [json.loads(line)["step"] for line in (output / stage / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "new" / "tiny"
    assert train(output) == 0
    return output


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "copy"))


def test_the_model_generates(trained):
    pipeline = load_pipeline(trained / "model")
    pipeline.set_progress_bar_config(disable=True)

    video = pipeline("a red circle", num_frames=2, num_inference_steps=2, seed=1)

    assert video.frames.shape == (2, 64, 64, 3)
    assert pipeline.config["default_steps"] == 7
    assert pipeline.config["default_guidance"] == 3.5


def test_each_part_comes_from_its_stage(trained):
    parts = {"vae": "vae", "unet": "image", "text_encoder": "image", "motion_adapter": "motion"}
    for part, stage in parts.items():
        exported = weights(trained / stage / "exported" / part)
        shipped = weights(trained / "model" / part)
        assert shipped.keys() == exported.keys()
        assert all(torch.equal(shipped[key], exported[key].half()) for key in shipped), part
    assert not same_weights(trained / "text/exported/text_encoder", trained / "image/exported/text_encoder")


def test_nothing_unfinished_is_left(trained):
    assert {path.name for path in trained.iterdir()} == {*STAGES, "model", "report.html"}
    assert not list(trained.rglob("*.part*"))
    for stage in STAGES:
        names = {path.name for path in (trained / stage).iterdir()}
        assert names - {"trackers"} == {"log.jsonl", "checkpoints", "settings.json", "exported", "trained-on.txt"}


def test_the_vae_s_latents_have_unit_variance(trained):
    pipeline = load_pipeline(trained / "model")

    assert pipeline.vae.config["scaling_factor"] != 1.0


def test_a_finished_run_is_not_trained_again(copied, capsys):
    before = {path: path.read_bytes() for path in copied.rglob("log.jsonl")}

    assert train(copied) == 0

    assert {path: path.read_bytes() for path in copied.rglob("log.jsonl")} == before
    shown = capsys.readouterr()
    assert shown.out.strip() == str(copied / "model")
    assert shown.err == ""


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("text.steps=2", "cannot be given more steps: 'image' has begun"),
        ("motion.timestep_shift=1.5", "finished with other settings (timestep_shift)"),
    ],
)
def test_other_settings_for_a_finished_stage_are_refused(trained, capsys, override, said):
    assert train(trained, override) == 2

    assert said in capsys.readouterr().err


def interrupt_in(stage: str, step: int, seen: list[tuple[str, int]]) -> Any:
    def progress(name: str, done: int, _: int, __: dict[str, float]) -> None:
        seen.append((name, done))
        if (name, done) == (stage, step):
            raise KeyboardInterrupt

    return progress


def test_an_interrupted_run_continues_where_it_was(copied):
    """The first stages are there already; what comes out is what an uninterrupted run makes."""
    for stage in ("image", "motion"):
        shutil.rmtree(copied / stage)
    longer = [*TINY, "image.steps=3"]
    whole = Path(shutil.copytree(copied, copied.with_name("whole")))
    seen: list[tuple[str, int]] = []

    run_training(RUN_FILE, longer, whole)
    with pytest.raises(KeyboardInterrupt):
        run_training(RUN_FILE, longer, copied, interrupt_in("image", 2, seen))
    assert not (copied / "image" / "exported").exists()
    with pytest.raises(ConfigError, match=r"has begun with other settings \(batch_size\)"):
        run_training(RUN_FILE, [*longer, "image.batch_size=1"], copied)
    run_training(RUN_FILE, longer, copied, interrupt_in("", 0, seen))

    assert seen == [("image", 1), ("image", 2), ("image", 3), ("motion", 1)]
    assert steps_logged(copied, "image") == [1, 2, 3]
    for part in ("unet", "text_encoder", "motion_adapter"):
        assert same_weights(copied / "model" / part, whole / "model" / part), part


@pytest.mark.slow
def test_two_processes_share_a_stage(copied, capfd, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(RUN_FILE.parents[1] / "src"))
    shutil.rmtree(copied / "motion")

    assert train(copied, "motion.processes=2") == 0

    shown = capfd.readouterr()
    assert "motion 1/1  loss " in shown.err
    assert shown.out.strip().endswith(str(copied / "model"))
    assert steps_logged(copied, "motion") == [1]
    assert set(weights(copied / "motion/exported/motion_adapter"))


def test_an_output_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(OutputError, match="Choose a folder that exists"):
        run_training(RUN_FILE, TINY, tmp_path / "file" / "run")


def test_a_wrong_motion_module_is_refused_before_anything_is_trained(tmp_path):
    for override in ("motion.motion.kind=magic", "motion.motion.config.colour=red"):
        with pytest.raises(ConfigError, match=r"magic|colour"):
            run_training(RUN_FILE, [*TINY, override], tmp_path / "run")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_run_pauses_and_goes_on(copied, capsys):
    for stage in ("image", "motion"):
        shutil.rmtree(copied / stage)
    shutil.rmtree(copied / "model")
    longer = ["image.steps=3", "motion.steps=2"]
    settings = [part for override in (*TINY, *longer) for part in ("--set", override)]
    for until, finished, last in ((2, "no", 2), (2, "no", 2), (3, "yes", 3)):
        with pytest.raises(SystemExit) as end:
            main(["train", str(RUN_FILE), *settings, "-o", str(copied), "--until", str(until)])
        assert not end.value.code
        assert (copied / "image" / "exported").exists() == (finished == "yes")
        assert steps_logged(copied, "image") == list(range(1, last + 1))
    said = capsys.readouterr().err
    assert "paused at step 2; the same command without --until continues" in said
    assert (copied / "model").is_dir()
