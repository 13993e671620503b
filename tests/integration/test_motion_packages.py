"""Packages with motion modules of other people: written, installed, tested, checked, trained and loaded again."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from safetensors.torch import load_file
from typer.testing import CliRunner

from muybridge import load_pipeline
from muybridge.authoring.overfit import check_motion, check_overfitting
from muybridge.authoring.packages import new_motion_package
from muybridge.cli.motion_check import check
from muybridge.cli.motion_new import new
from muybridge.demo import easyanimate_models, models
from muybridge.errors import ConfigError, MuybridgeError, OutputError
from muybridge.motion import MotionAdapter
from muybridge.pipelines import EasyAnimatePipeline
from muybridge.training.run import run_training
from muybridge.training.run_file import load_run

REPOSITORY = Path(__file__).resolve().parents[2]
RUN_FILE = REPOSITORY / "runs" / "custom-motion.yaml"
EXAMPLE = REPOSITORY / "examples" / "conv_recurrent"
TRANSFORMER_WEIGHTS = Path("transformer") / "diffusion_pytorch_model.safetensors"
TINY = ["steps=2", "batch_size=1", "processes=1", "log_every=1", "num_frames=2", "whole_clip_share=0"]

program = typer.Typer()
program.command("new")(new)
program.command("check")(check)


def run(command: list[str], folder: Path, *paths: Path) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (*paths, REPOSITORY / "src")))}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package as the command writes it."""
    folder = tmp_path_factory.mktemp("written") / "my_motion"
    result = CliRunner().invoke(program, ["new", "my_motion", "-o", str(folder)])
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="module")
def site(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the written package and the example are installed, without a network."""
    site = tmp_path_factory.mktemp("site")
    # Copies, as building leaves things behind.
    sources = [
        shutil.copytree(folder, tmp_path_factory.mktemp("source") / folder.name) for folder in (written, EXAMPLE)
    ]
    options = ["--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--quiet"]
    run(["-m", "pip", "install", *options, "--target", str(site), *map(str, sources)], site)
    return site


def test_what_is_written(written):
    files = {str(path.relative_to(written)) for path in written.rglob("*") if path.is_file()}

    assert files == {
        "README.md",
        "pyproject.toml",
        "src/my_motion/__init__.py",
        "src/my_motion/motion.py",
        "tests/test_my_motion.py",
    }
    assert "class MyMotionModule(MotionModule)" in (written / "src/my_motion/motion.py").read_text()
    assert "$" not in "".join(path.read_text() for path in written.rglob("*.py"))
    assert [path.name for path in written.parent.iterdir()] == ["my_motion"]


@pytest.mark.slow
def test_the_written_package_passes_its_tests_as_installed(written, site):
    shown = run(["-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", str(written)], written, site)

    assert "5 passed" in shown


@pytest.mark.slow
def test_the_example_passes_its_tests_as_installed(site):
    shown = run(["-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", str(EXAMPLE)], site, site)

    assert "7 passed" in shown


@pytest.mark.slow
def test_an_installed_kind_is_trained_from_yaml_and_its_adapter_says_where_it_is_from(site, tmp_path):
    overrides = [*TINY, "motion.kind=conv_recurrent", "motion.config.hidden_width=8", "default_steps=3"]
    settings = [part for override in overrides for part in ("--set", override)]

    shown = run(["-m", "muybridge.cli.main", "train", str(RUN_FILE), *settings, "-o", str(tmp_path)], tmp_path, site)

    model = tmp_path / "model"
    assert shown.strip() == str(model)
    config = json.loads((model / "motion_adapter" / "config.json").read_text())
    assert config["origins"] == {"conv_recurrent": {"package": "conv-recurrent", "version": "0.1.0"}}
    specs = config["modules_by_site"].values()
    assert {(spec["kind"], spec["config"]["hidden_width"]) for spec in specs} == {("conv_recurrent", 8)}
    index = json.loads((model / "model_index.json").read_text())
    assert (index["default_steps"], index["default_guidance"]) == (3, 4.0)
    generate = ["-m", "muybridge.cli.main", "generate", "a red circle", "--model", str(model), "--frames", "2"]
    run([*generate, "--steps", "1", "-o", str(tmp_path / "clip.mp4")], tmp_path, site)
    assert (tmp_path / "clip.mp4").is_file()
    with pytest.raises(MuybridgeError, match=r"conv-recurrent 0\.1\.0.*pip install 'conv-recurrent>=0\.1\.0'"):
        MotionAdapter.from_pretrained(model / "motion_adapter")


@pytest.fixture(scope="module")
def transformer_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model with a transformer, of random weights."""
    torch.manual_seed(0)
    tokenizer = models.make_tokenizer()
    pipeline = EasyAnimatePipeline(
        vae=easyanimate_models.make_video_vae(models.make_vae()),
        text_encoder=easyanimate_models.make_text_encoder(tokenizer),
        tokenizer=tokenizer,
        transformer=easyanimate_models.make_transformer(),
        scheduler=models.make_scheduler(),
        default_size=(64, 64),
        default_num_frames=16,
        default_steps=6,
        default_guidance=2.0,
        max_tokens=models.MAX_TOKENS,
        clean_captions=False,
        known_frames=1,
        profile="clean",
    )
    folder = tmp_path_factory.mktemp("transformer") / "model"
    pipeline.save_pretrained(folder)
    return folder


def test_motion_alone_is_trained_on_a_transformer(transformer_model, tmp_path):
    overrides = [*TINY[:4], f"base={transformer_model}", "motion.kind=low_rank", "motion.config.motion_rank=8"]

    model = run_training(RUN_FILE, overrides, tmp_path / "run")

    before, after = (load_file(each / TRANSFORMER_WEIGHTS) for each in (transformer_model, model))
    is_motion = re.compile(r"attn_temporal\.")
    kept = [key for key in before if not is_motion.search(key)]
    assert kept
    assert all(torch.equal(before[key].half(), after[key]) for key in kept)
    assert set(after) - set(kept) == {key for key in after if is_motion.search(key)}
    pipeline = load_pipeline(model)
    assert isinstance(pipeline, EasyAnimatePipeline)
    adapter = pipeline.transformer.motion_adapter
    assert adapter is not None
    assert {module.kind for _, module in adapter.motion_modules()} == {"low_rank"}
    assert all(bool(module.get_parameter("proj_out.weight").any()) for _, module in adapter.motion_modules())
    assert pipeline.config["default_steps"] == 6


def test_settings_that_a_transformer_does_not_have_are_refused(transformer_model, tmp_path):
    overrides = [*TINY, f"base={transformer_model}", "motion.kind=low_rank"]

    with pytest.raises(ConfigError, match="whole clips; leave num_frames and whole_clip_share out"):
        run_training(RUN_FILE, overrides, tmp_path / "run")


def test_a_wrong_kind_is_refused_before_anything_is_trained(tmp_path):
    for override, message in (
        ("motion.kind=tempral", "did you mean 'temporal'"),
        ("motion.config.colour=red", "colour"),
    ):
        with pytest.raises(ConfigError, match=message):
            run_training(RUN_FILE, [override], tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("my-motion", None, "such as 'my_motion'; given 'my-motion'"),
        ("2fast", None, "such as 'fast'; given '2fast'"),
        ("class", None, "no word of Python's own; given 'class'"),
        ("_hidden", None, "beginning with a letter"),
        ("bewegung_ä", None, "a to z"),
        ("json", None, "package 'json' already"),
        ("torch", None, "package 'torch' already"),
        ("my_motion", "temporal", "kind 'temporal' is taken.*low_rank"),
        ("my_motion", "a kind", "such as 'a_kind'"),
    ],
)
def test_names_that_cannot_be_or_are_taken_are_refused(tmp_path, name, kind, message):
    with pytest.raises(ConfigError, match=message):
        new_motion_package(name, kind, tmp_path / "made")
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("taken", "link"):
        with pytest.raises(OutputError, match="exists already"):
            new_motion_package("my_motion", None, tmp_path / name)
    with pytest.raises(OutputError, match="no folder"):
        new_motion_package("my_motion", None, tmp_path / "missing" / "folder")
    assert {path.name for path in tmp_path.iterdir()} == {"taken", "link"}


def test_another_kind_in_the_package(tmp_path):
    folder = new_motion_package("my_package", "fast_motion", tmp_path / "folder")

    assert 'fast_motion = "my_package.motion:FastMotionModule"' in (folder / "pyproject.toml").read_text()
    assert 'register_motion_module("fast_motion")' in (folder / "src/my_package/motion.py").read_text()


def checked(*arguments: str) -> Any:
    return CliRunner().invoke(program, ["check", *arguments])


def test_the_table_of_checks():
    result = checked("low_rank", "--only", "identity at start", "--set", "motion_rank=16")

    assert result.exit_code == 0, result.output
    rows = result.stdout.splitlines()
    assert [row.split("  ")[0] for row in rows[:-1]] == ["builds", "shape", "identity at start"]
    assert rows[2].startswith("identity at start  passed  a fresh module adds exactly nothing")
    assert rows[-1].startswith("low_rank (muybridge ")
    assert rows[-1].endswith("keeps to the contract")


BROKEN = """
import torch
from muybridge.motion import MotionModule, register_motion_module

@register_motion_module("of_a_file")
class OfAFile(MotionModule):
    def __init__(self, config, width):
        super().__init__(config, width)
        self.gain = torch.nn.Parameter(torch.ones(width))

    def motion(self, features, context):
        return features.flip(1) * self.gain

class Unregistered(OfAFile):
    pass
"""


@pytest.mark.slow
def test_a_class_of_a_file_here_and_the_exit_code_of_a_failed_check(tmp_path):
    (tmp_path / "motion_of_a_file.py").write_text(BROKEN)
    command = [
        sys.executable,
        "-c",
        "import sys, typer; from muybridge.cli.motion_check import check; typer.run(check)",
    ]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src"), "PYTHONSAFEPATH": "1"}

    done = subprocess.run(
        [*command, "motion_of_a_file:OfAFile", "--json", "--only", "identity at start", "--only", "gradients"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2, done.stderr
    values = json.loads(done.stdout)
    assert values["kind"] == "of_a_file"
    assert values["passed"] is False
    failed = {each["name"]: each["detail"] for each in values["checks"] if each["status"] == "failed"}
    assert set(failed) == {"identity at start"}
    assert "zero the weights and the bias of its last layer" in failed["identity at start"]


def test_classes_that_cannot_be_had_are_named(tmp_path, monkeypatch):
    (tmp_path / "module_that_fails.py").write_text("import nothing_of_that_name")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        ConfigError, match=r"'module_that_fails:X' cannot be imported \(ModuleNotFoundError: .*nothing_of"
    ):
        check_motion("module_that_fails:X")
    with pytest.raises(ConfigError, match="AttributeError"):
        check_motion("muybridge.motion:Nothing")
    with pytest.raises(ConfigError, match="no motion module"):
        check_motion("muybridge.motion:MotionAdapter")
    with pytest.raises(ConfigError, match="at least 1; given 0"):
        check_motion("low_rank", overfit_steps=0)
    assert "NAME=VALUE" in str(checked("low_rank", "--set", "rank").exception)


def test_overfitting_waits_for_the_other_checks(monkeypatch, tmp_path):
    (tmp_path / "motion_of_another_file.py").write_text(BROKEN.replace("of_a_file", "of_another_file"))
    monkeypatch.syspath_prepend(str(tmp_path))

    report = check_motion("motion_of_another_file:OfAFile", only=["identity at start"], overfit_steps=1)

    assert [(each.name, each.status) for each in report.results[-2:]] == [
        ("identity at start", "failed"),
        ("overfit", "not applicable"),
    ]


def test_one_step_does_not_learn_a_clip():
    result = check_overfitting("low_rank", {}, 1)

    assert result.name == "overfit"
    assert result.status == "failed"
    assert result.detail.endswith("after 1 steps (at most 75%)")


@pytest.mark.slow
def test_forty_steps_do():
    result = check_overfitting("timestep_film", {}, 40)

    assert result.status == "passed", result.detail


def test_settings_of_a_run_of_one_stage_need_no_name_of_the_stage():
    plain = load_run(RUN_FILE, ["motion.kind=low_rank", "motion.config.motion_rank=8", "steps=7", "name=other"])
    named = load_run(RUN_FILE, ["motion-adapter.steps=7"])

    (stage,) = plain.stages
    assert stage.model_dump()["motion"] == {"kind": "low_rank", "config": {"motion_rank": 8}}
    assert (plain.name, stage.steps, named.stages[0].steps) == ("other", 7, 7)
    with pytest.raises(ConfigError, match="speed"):
        load_run(RUN_FILE, ["speed=7"])
