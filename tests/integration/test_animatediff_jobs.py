"""AnimateDiff's own prompt files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from muybridge.checkpoints.convert import convert_weights
from muybridge.checkpoints.locate import locate_model
from muybridge.cli.main import main
from muybridge.errors import CheckpointError, ConfigError, InputFileError
from muybridge.pipelines.animatediff.family import FAMILY
from muybridge.pipelines.animatediff.prompt_files import _cropped, _normalized, read_jobs
from muybridge.service.prompt_files import run_prompt_file
from muybridge.video import read_video

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

BASE = "demo/animatediff"
HEADS = 4


@pytest.fixture(scope="module")
def motion_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's motion modules as one file with the original's names."""
    path = tmp_path_factory.mktemp("motion") / "mm.safetensors"
    convert_weights(locate_model(BASE) / "motion_adapter", path, "original")
    return path


def run_jobs(path: Path, base: str, output: Path, device: str) -> Sequence[Path]:
    assert FAMILY.prompt_files is not None
    return run_prompt_file(FAMILY.prompt_files, path, base, output, device)


def write_jobs(folder: Path, *jobs: dict[str, Any]) -> Path:
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(list(jobs)))
    return path


def test_a_prompt_file_runs_as_it_is(tmp_path: Path, motion_module: Path) -> None:
    job = {
        "motion_module": str(motion_module),
        "inference_config": "configs/inference/inference-v3.yaml",
        "seed": [5, -1],
        "steps": 2,
        "guidance_scale": 4,
        "L": 2,
        "H": 64,
        "W": 64,
        "prompt": ["a red circle", "a Blue, square"],
        "n_prompt": [""],
    }

    videos = run_jobs(write_jobs(tmp_path, job), BASE, tmp_path / "out", "cpu")

    assert [video.name for video in videos] == ["0-a-red-circle.gif", "1-a-blue-square.gif"]
    assert read_video(tmp_path / "out" / "sample.gif").frames.shape == (2, 64, 128, 3)
    (record,) = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert record["seed"][0] == 5
    assert record["seed"][1] >= 0
    first, second = (read_video(video).frames for video in videos)
    assert not np.array_equal(first, second)


def test_the_program_runs_it_too(tmp_path: Path, motion_module: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = {"motion_module": str(motion_module), "prompt": ["a red circle"], "steps": 1, "L": 1, "H": 64, "W": 64}
    path = write_jobs(tmp_path, job)

    with pytest.raises(SystemExit) as stopped:
        main(["generate", "--animatediff-config", str(path), "--model", BASE, "-o", str(tmp_path / "made"), "--json"])

    assert stopped.value.code == 0, capsys.readouterr().err
    assert (tmp_path / "made" / "sample" / "0-a-red-circle.gif").is_file()


def test_single_values_stand_for_lists(tmp_path: Path) -> None:
    path = write_jobs(tmp_path, {"motion_module": ["mm.ckpt"], "prompt": ["a", "b"], "n_prompt": "c", "seed": 3})
    (job,) = read_jobs(path)

    assert job.motion_module == "mm.ckpt"
    assert job.negatives() == ["c", "c"]
    assert job.seeds() == [3, 3]
    assert (job.L, job.H, job.W, job.steps, job.guidance_scale, job.lora_alpha) == (16, 512, 512, 25, 7.5, 0.8)


def write_named(folder: Path, text: str) -> Path:
    path = folder / "first.yaml"
    path.write_text(text)
    return path


def test_the_first_prompt_files_run(tmp_path: Path, motion_module: Path) -> None:
    """Jobs by name, each for several motion modules; what has nothing behind its name is absent."""
    path = write_named(
        tmp_path,
        f"""
        ToonYou:
          base: ""
          path: ""
          motion_module: ["{motion_module}", "{motion_module}"]
          seed: [10788741199826055526]
          steps: 1
          L: 1
          H: 64
          W: 64
          lora_model_path:
          prompt: ["красный (круг:1.5)"]
          n_prompt: [null]
          guidance_scale:
        """,
    )

    with pytest.warns(
        UserWarning, match=r"vocabulary lacks 'красный', '\(', 'круг'"
    ):  # brackets too, as in the original
        videos = run_jobs(path, BASE, tmp_path / "out", "cpu")

    assert [video.name for video in videos] == ["0-красный-круг-1-5.gif", "1-красный-круг-1-5.gif"]
    first, second = (read_video(video) for video in videos)
    assert np.array_equal(first.frames, second.frames)
    assert first.request is not None
    assert first.request["sampling"]["seed"] == 10788741199826055526 % 2**63
    assert first.request["sampling"]["guidance_scale"] == 7.5


def test_the_first_names_are_todays(tmp_path: Path) -> None:
    save_file({"lora_unet_x.lora_down.weight": torch.ones(1, 2)}, tmp_path / "style.safetensors")
    save_file({"conv_in.weight": torch.ones(1, 2)}, tmp_path / "whole.safetensors")
    job = 'motion_module: [mm.ckpt], prompt: [a], seed: 1, base: "base.safetensors"'
    path = write_named(
        tmp_path,
        f"""
        lora: {{{job}, path: "{tmp_path / "style.safetensors"}"}}
        whole: {{{job}, path: "{tmp_path / "whole.safetensors"}"}}
        none: {{motion_module: mm.ckpt, prompt: [a], path: "", base: ""}}
        """,
    )

    lora, whole, none = read_jobs(path)

    assert (lora.dreambooth_path, lora.lora_model_path) == ("base.safetensors", str(tmp_path / "style.safetensors"))
    assert (whole.dreambooth_path, whole.lora_model_path) == (str(tmp_path / "whole.safetensors"), "")
    assert (none.dreambooth_path, none.lora_model_path) == ("", "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Toon: {motion_module: m, prompt: [a], base: b}", "job Toon: base is the model that the LoRA in path is for"),
        ("Toon: {motion_module: m, prompt: [a], path: a, dreambooth_path: b}", "job Toon: path and base are what"),
        ("Toon: {motion_module: [], prompt: [a]}", "job Toon: motion_module must not be empty"),
        ("Toon: {motion_module: , prompt: [a]}", "job Toon: motion_module: is missing"),
        ("Toon: {motion_module: m, prompt: [a, b, c], n_prompt: [x, y]}", "job Toon: n_prompt must be one, or 3"),
        ("Toon: {motion_module: m, prompt: [a], prompt_map: {0: a}}", "prompt_map is animatediff-cli's.*--travel"),
        ("- {motion_module: m, prompt: [a], vae_path: v}", "job 0: vae_path is animatediff-cli's.*--vae"),
        ("- {motion_module: m, prompt: [a], scheduler: euler}", "job 0: scheduler is animatediff-cli's"),
        ("motion_module: m", "must be a list of jobs, .* or jobs by name"),
    ],
)
def test_what_is_wrong_in_a_first_prompt_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_jobs(write_named(tmp_path, text))


def test_pictures_are_cropped_and_normalized_as_the_original_does() -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(40, 200, (40, 100, 3), np.uint8))

    assert _cropped(picture, 1.5).size == (60, 40)
    assert np.array_equal(np.asarray(_cropped(picture, 1.0)), np.asarray(picture)[:, 30:70])
    normal = np.asarray(_normalized(picture))
    assert (normal.min(), normal.max()) == (0, 255)
    assert np.array_equal(normal[..., 0], normal[..., 2])


@pytest.mark.parametrize(
    ("job", "message"),
    [
        ({"prompt": ["a"]}, "job 0: motion_module"),
        ({"motion_module": "m", "prompt": []}, "job 0: prompt"),
        ({"motion_module": "m", "prompt": ["a"], "promtp": 1}, "promtp: there is no such setting"),
        (
            {"motion_module": "m", "prompt": ["a", "b", "c"], "seed": [1, 2]},
            "seed must be one, or 3 like prompt; given 2",
        ),
        (
            {"motion_module": "m", "prompt": ["a"], "controlnet_images": ["a", "b"]},
            "controlnet_image_indexs needs one index for each image",
        ),
    ],
)
def test_wrong_jobs_are_named(tmp_path: Path, job: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_jobs(write_jobs(tmp_path, job))


@pytest.mark.parametrize("content", ["a: b", "[]", "- ["])
def test_what_is_no_prompt_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(content)

    with pytest.raises((ConfigError, InputFileError), match=r"job\.yaml"):
        read_jobs(path)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"motion_module": "mm.safetensors", "lora_model_path": "nobody/nothing/l.safetensors"},
        {"motion_module": "mm.safetensors", "controlnet_path": "nobody/nothing", "controlnet_images": ["a.png"]},
        {"motion_module": "mm.safetensors", "dreambooth_path": "nobody/nothing.safetensors"},
    ],
)
def test_what_a_prompt_file_names_is_never_fetched(
    tmp_path: Path, motion_module: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64)).save("a.png")
    Path("mm.safetensors").write_bytes(motion_module.read_bytes())
    job = {"motion_module": "models/Motion_Module/v3.ckpt", "prompt": ["a"], "L": 2, "H": 64, "W": 64, **changes}

    with pytest.raises(CheckpointError, match=r"nobody/nothing|models/Motion_Module") as caught:
        run_jobs(write_jobs(tmp_path, job), BASE, tmp_path / "out", "cpu")

    assert "HF_HUB_OFFLINE" not in str(caught.value)
    assert "the hub did not give it" not in str(caught.value)


def test_nothing_is_written_for_a_missing_file(tmp_path: Path) -> None:
    job = {"motion_module": str(tmp_path / "none.ckpt"), "prompt": ["a"]}

    with pytest.raises(Exception, match=r"none\.ckpt"):
        run_jobs(write_jobs(tmp_path, job), BASE, tmp_path / "out", "cpu")

    assert not list((tmp_path / "out").rglob("*.gif"))
