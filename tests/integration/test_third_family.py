"""A family in a package of its own, found by its entry point: it generates, is planned, shown and trained."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tests.third_family import EXAMPLE, NAME, install, installed, write_image_model, write_motion
from torch import nn

from muybridge import Request, WindowSettings, load_pipeline, plan_video
from muybridge.cli.main import main
from muybridge.debug.tensor_memory import TensorMemory
from muybridge.errors import CheckpointError, ConfigError, ShapeError
from muybridge.pipelines.families import known_families
from muybridge.request import ModelChoice
from muybridge.runtime.plan import PlanSettings
from muybridge.service.inspection import inspect_path
from muybridge.training.run import run_training
from muybridge.types import VideoShape

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL: dict[str, Any] = {"num_frames": 3, "num_inference_steps": 2, "seed": 1}

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module", autouse=True)
def _installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with installed(tmp_path_factory.mktemp("site")):
        yield


@pytest.fixture(scope="module")
def image_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("image") / "model"
    write_image_model(folder)
    return folder


@pytest.fixture(scope="module")
def motion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("motion") / "adapter"
    write_motion(folder)
    return folder


@pytest.fixture(scope="module")
def model(image_model: Path, motion: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The video model of both."""
    folder = tmp_path_factory.mktemp("video") / "model"
    load_pipeline(image_model, motion_adapter=motion).save_pretrained(folder)
    return folder


def loaded(folder: Path) -> Any:
    pipeline = load_pipeline(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_it_generates(model: Path, image_model: Path, motion: Path) -> None:
    pipeline = loaded(model)
    assert pipeline.family.name == NAME

    video = pipeline("a red circle", **SMALL)
    again = pipeline.make(Request.model_validate({"prompt": "a red circle", "sampling": {"seed": 1}, "shape": {}}))

    assert video.frames.shape == (3, 64, 64, 3)
    assert again.frames.shape == (16, 64, 64, 3)
    assert video.request["model"] == {"model": str(model), "dtype": "float32"}
    latents = pipeline("a red circle", **SMALL, output_type="latent")
    stills = pipeline("a red circle", **SMALL, motion_strength=0.0, output_type="latent")
    assert float((latents - stills).abs().max()) > 1e-3
    assembled = load_pipeline(image_model, motion_adapter=motion)
    assembled.set_progress_bar_config(disable=True)
    assert torch.equal(assembled("a red circle", **SMALL, output_type="latent"), latents)


def test_what_all_families_can_works_here(model: Path) -> None:
    pipeline = loaded(model)

    long = pipeline(
        {0: "a red circle", 4: "a blue square"}, num_frames=6, num_inference_steps=2, windows=WindowSettings(4, 2)
    )
    changed = pipeline("a blue square", init_video=long, strength=0.5, num_inference_steps=2)

    assert changed.frames.shape == long.frames.shape == (6, 64, 64, 3)
    with pytest.raises(ConfigError, match="A PixArt of frames has no keyframes"):
        pipeline("a red circle", keyframes={0: Image.new("RGB", (64, 64))})
    with pytest.raises(ShapeError, match="multiples of 8"):
        pipeline("a red circle", height=60, width=64)


def test_it_is_planned(model: Path, image_model: Path, motion: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape = VideoShape(3, 64, 64)
    choices = (PlanSettings("float32", "batched"),)
    planned = plan_video(model, shape, device="cpu", choices=choices)
    pipeline = loaded(model)
    parts = nn.ModuleList(part for part in pipeline.components.values() if isinstance(part, nn.Module))
    with TensorMemory() as memory:
        pipeline("a red circle", num_frames=3, num_inference_steps=1, seed=0)

    assert planned.family == NAME
    assert planned.runs[0].peak == pytest.approx(sum(p.nbytes for p in parts.parameters()) + memory.peak_bytes, rel=0.1)
    whole = ModelChoice(model=str(image_model), motion_adapter=str(motion))
    assert plan_video(whole, shape, device="cpu", choices=(PlanSettings("float32", "batched"),)) == planned
    assert plan_video(model, choices=(PlanSettings("bfloat16"),)).shape == VideoShape(16, 64, 64)
    with pytest.raises(SystemExit) as end:
        main(["plan", "--model", str(model), "--size", "64x64", "--frames", "4", "--json"])
    assert end.value.code == 0
    assert json.loads(capsys.readouterr().out)["runs"]


def test_a_lora_is_trained_by_the_stage_of_all(model: Path, tmp_path: Path) -> None:
    settings = ["steps=2", "batch_size=1", "log_every=1", "warmup_steps=0", "rank=2", "num_frames=2"]
    file = run_training(REPOSITORY / "runs" / "lora.yaml", [*settings, f"base={model}"], tmp_path / "run")
    assert file is not None
    pipeline = loaded(model)
    plain = pipeline("a red circle", **SMALL, output_type="latent")

    pipeline.load_lora_weights(file)

    assert float((pipeline("a red circle", **SMALL, output_type="latent") - plain).abs().max()) > 0
    assert all(".attn_temporal." in name for name in pipeline._attached_loras["backbone"].changes("lora"))


def test_its_motion_modules_are_trained_by_the_stage_of_all(model: Path, tmp_path: Path) -> None:
    settings = ["steps=1", "batch_size=1", "processes=1", "num_frames=2", "whole_clip_share=0", "motion.kind=low_rank"]
    folder = run_training(REPOSITORY / "runs" / "custom-motion.yaml", [*settings, f"base={model}"], tmp_path / "run")

    assert folder is not None
    adapter = loaded(folder).transformer.motion_adapter

    assert {module.kind for _, module in adapter.motion_modules()} == {"low_rank"}


def test_it_is_shown_and_refused_as_others_are(model: Path, image_model: Path) -> None:
    shown = {folder: inspect_path(folder) for folder in (model, image_model)}

    assert [each.name for each in known_families()] == ["AnimateDiffPipeline", "EasyAnimatePipeline", NAME]
    assert [(each["kind"], each["variant"], each["notes"]) for each in shown.values()] == [
        ("pipeline", "pixart-frames", []),
        ("base-model", "base-pixart", []),
    ]
    with pytest.raises(
        CheckpointError, match=r"is a PixArtAlphaPipeline; supported: .*; and PixArtFramesPipeline, and"
    ):
        load_pipeline(image_model)
    with pytest.raises(ConfigError, match="runs with the VAE of its folder"):
        load_pipeline(model, vae="elsewhere")


@pytest.mark.parametrize(
    ("value", "message"),
    [("nothing_of_that_name:FAMILY", "cannot be imported"), ("muybridge.version:__version__", "is no record of that")],
)
def test_a_broken_package_is_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path, value: str, message: str
) -> None:
    monkeypatch.syspath_prepend(str(install(tmp_path / "broken", "broken", value)))
    sys.path[:] = [each for each in sys.path if not list(Path(each).glob("pixart_frames-*.dist-info"))]

    assert load_pipeline("demo/animatediff").family.name == "AnimateDiffPipeline"
    with pytest.warns(UserWarning, match=rf"The family 'PixArtFramesPipeline' of broken 0\.1\.0.*{message}"):
        known_families()
    with pytest.raises(ConfigError, match=message):
        load_pipeline(model)


def test_two_packages_with_one_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    monkeypatch.syspath_prepend(str(install(tmp_path / "twice", "another")))

    with pytest.raises(ConfigError, match=r"Several packages offer.*another 0\.1\.0, pixart-frames 0\.1\.0"):
        load_pipeline(model)


@pytest.mark.slow
def test_it_is_found_as_installed(model: Path, tmp_path: Path) -> None:
    source = shutil.copytree(EXAMPLE, tmp_path / "source")  # building leaves things behind
    options = ["--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--quiet"]
    run(["-m", "pip", "install", *options, "--target", str(tmp_path / "site"), str(source)], tmp_path)

    command = ["-m", "muybridge.cli.main", "generate", "a red circle", "--model", str(model), "--frames", "2"]
    run([*command, "--steps", "1", "-o", str(tmp_path / "clip.mp4")], tmp_path, tmp_path / "site")

    assert (tmp_path / "clip.mp4").is_file()


def run(command: list[str], folder: Path, *paths: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (*paths, REPOSITORY / "src")))}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
