"""`muybridge debug` on whole models: of both families, and the flags of a training run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from muybridge import load_pipeline
from muybridge.checkpoints import locate_model
from muybridge.cli.debug import app
from muybridge.debug import AnomalyGuard, AttentionMaps, MemoryWatch, Probe, StageProfile, replay_anomaly
from muybridge.errors import ConfigError, NonFiniteError

QUICK = ("--frames", "2", "--steps", "2", "--width", "32", "--height", "32")
CALL: dict[str, Any] = {"num_frames": 3, "num_inference_steps": 2, "width": 32, "height": 32, "seed": 1}

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, quick: tuple[str, ...] = QUICK) -> Result:
        return CliRunner().invoke(app, [*arguments, *quick])

    return call


def done(result: Result) -> str:
    if result.exception is not None:
        raise result.exception
    return result.output


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, float], Path]:
    """A copy of the shipped model with one weight of its motion adapter changed."""

    def make(name: str, value: float) -> Path:
        folder = tmp_path_factory.mktemp("models") / "model"
        shutil.copytree(locate_model("demo/animatediff"), folder)
        path = folder / "motion_adapter" / "diffusion_pytorch_model.safetensors"
        weights = load_file(path)
        weights[name].view(-1)[0] = value
        save_file(weights, path, {"format": "pt"})
        return folder

    return make


WEIGHT = "down_blocks.1.motion_modules.0.transformer_blocks.0.attention_blocks.1.to_v.weight"
MODULE = f"unet.{WEIGHT.removesuffix('.weight')}"


def test_tools_change_nothing_in_a_video():
    pipe = load_pipeline("demo/animatediff")
    pipe.set_progress_bar_config(disable=True)
    plain = pipe("a red circle", **CALL, output_type="pt")
    tools = [AnomalyGuard(pipe), Probe(pipe), MemoryWatch(pipe), AttentionMaps(pipe), StageProfile(pipe)]
    for tool in tools:
        with tool:
            assert torch.equal(pipe("a red circle", **CALL, output_type="pt"), plain), type(tool).__name__
    stages = tools[-1].report().stage_seconds
    assert list(stages) == ["text", "denoise", "decode"]
    for each in tools[3].maps.values():
        assert each.shape[1:] == (3, 3)
        assert torch.allclose(each.sum(-1), torch.ones(each.shape[:2]), atol=1e-5)


def test_every_value_is_finite_and_a_guard_says_so(run):
    assert "every value was finite" in done(run("anomaly", "--train", "1"))


def test_an_overflow_is_named_and_replayed(run, damaged, tmp_path):
    # Too large to come out of half precision: infinite in the module that it belongs to.
    model = str(damaged(WEIGHT, 60_000.0))
    result = run("anomaly", "--model", model, "--dtype", "float16")
    assert isinstance(result.exception, NonFiniteError)
    assert f"{MODULE} (Linear), forward, step 1 (timestep" in str(result.exception)
    path = tmp_path / "debug" / f"anomaly-{MODULE}.json"
    shown = done(run("anomaly", "--model", model, "--dtype", "float16", "--replay", str(path)))
    assert "identical to what was recorded: yes" in shown
    # Any model built the same way will do: the weights are in the file.
    assert replay_anomaly(path, load_pipeline("demo/animatediff")).identical


def test_a_changed_weight_is_found_between_two_runs(run, damaged):
    part = "unet.down_blocks.1.*"
    first = json.loads(done(run("probe", part, "-o", "one", "--full", "--json")))
    assert first["difference"] is None
    same = json.loads(done(run("probe", part, "-o", "two", "--full", "--against", "one.json", "--json")))
    assert same["calls"] == first["calls"] > 50
    assert same["difference"] is None
    changed = ("--model", str(damaged(WEIGHT, 0.5)))
    shown = done(run("probe", part, "-o", "three", "--full", "--against", "one.json", *changed))
    assert f"first difference inside {MODULE} (Linear), call 0, output" in shown


def test_a_pattern_that_matches_nothing_names_the_nearest(run):
    result = run("probe", "unet.down_blocks.1.motion_module.*")
    assert isinstance(result.exception, ConfigError)
    assert "unet.down_blocks.1.motion_modules" in str(result.exception)
    result = run("probe", "unet.down_blocks.1.motion_modules.0.transformer_blocks.0.ff.net.0.proj")
    assert isinstance(result.exception, ConfigError)
    assert "faster path" in str(result.exception)


def test_memory_is_the_same_each_time(run, tmp_path):
    reports = [json.loads(done(run("memory", "--json"))) for _ in range(2)]
    assert reports[0] == reports[1]
    unet = next(module for module in reports[0]["modules"] if module["module"] == "unet")
    assert unet["calls"] == 2
    assert 2**20 < unet["added_bytes"] < reports[0]["peak_bytes"] + 1
    assert (tmp_path / "debug" / "memory.png").is_file()
    assert isinstance(run("memory", "--measure", "all").exception, ConfigError)


def test_attention_is_drawn_for_each_site(run, tmp_path):
    files = json.loads(done(run("attention", "unet.up_blocks.*", "--json")))["files"]
    pictures = [Path(name) for name in files if name.endswith(".png")]
    assert all(path.name.startswith("unet.up_blocks.") for path in pictures)
    assert len(pictures) >= 4
    for path in pictures:
        with Image.open(tmp_path / path) as picture:
            assert picture.size > (100, 100)


def test_each_stage_is_traced(run, tmp_path):
    shown = done(run("profile"))
    assert "stages: text" in shown
    assert shown.count("\n") >= 14
    for stage in ("text", "denoise", "decode"):
        events = json.loads((tmp_path / "debug" / f"trace-{stage}.json").read_text())["traceEvents"]
        assert len(events) > 20


def test_gradients_of_the_motion_modules(run, tmp_path):
    report = json.loads(done(run("gradients", "--train", "2", "--json")))
    assert report["steps"] == 2
    assert all("motion_modules" in name for name in report["verdicts"])
    assert set(report["verdicts"].values()) <= {"healthy", "vanishing"}
    assert (tmp_path / "debug" / "gradients.png").is_file()


def test_the_other_family_is_looked_at_likewise(run, tmp_path, make_easyanimate):
    make_easyanimate(num_layers=4).save_pretrained(tmp_path / "tiny")
    quick = ("--frames", "8", "--steps", "2", "--width", "32", "--height", "32", "--model", str(tmp_path / "tiny"))
    assert "finite" in done(run("anomaly", "--train", "1", quick=quick))
    assert json.loads(done(run("probe", "*attn_temporal*", "--json", quick=quick)))["calls"] > 10
    assert json.loads(done(run("memory", "--json", quick=quick)))["peak_bytes"] > 0
    names = json.loads(done(run("attention", "--json", quick=quick)))["files"]
    assert any("transformer_blocks.1.attn_temporal.transformer_blocks.0.attention_blocks.1" in name for name in names)
    assert "denoise" in done(run("profile", quick=quick))
    verdicts = json.loads(done(run("gradients", "--train", "1", "--all", "--json", quick=quick)))["verdicts"]
    assert any("attn1" in name for name in verdicts)
