"""The program `muybridge` as a user meets it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from muybridge import __version__
from muybridge.cli.main import main
from muybridge.video import Video, read_request, read_video

SOURCE = Path(__file__).resolve().parents[2] / "src"
DIGITS = "9" * 5000  # more than int() takes
QUICK = ("--frames", "2", "--steps", "2", "--size", "32x32")


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str | Path) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        return Outcome(int(str(end.value.code)), shown.out, shown.err)

    return call


@pytest.fixture
def generate(run: Run, shipped_model: str) -> Run:
    def call(*arguments: str | Path) -> Outcome:
        return run("generate", *arguments, "--model", shipped_model)

    return call


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refused(outcome: Outcome, *parts: str) -> None:
    """One line that says what is wrong, and the exit code of the user's mistakes."""
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith("muybridge: ")
    assert outcome.err.count("\n") == 1, outcome.err
    for part in parts:
        assert part in outcome.err


def test_without_arguments_there_is_help(run):
    for command in ([], ["evaluate"]):
        shown = run(*command)
        assert shown.code == 2
        assert "Usage: muybridge" in shown.out
        assert shown.err == ""


def test_version_and_help(run):
    assert run("--version") == Outcome(0, f"muybridge {__version__}\n", "")
    for command in ("generate", "inspect", "train", "evaluate"):
        shown = run(command, "--help")
        assert shown.code == 0
        assert f"muybridge {command}" in shown.out


def test_generate_writes_a_video_and_says_how(generate, tmp_path):
    path = tmp_path / "out.mp4"

    shown = generate("a red circle moving left", *QUICK, "--seed", "3", "--guidance", "2", "-o", path)

    assert (shown.code, shown.err) == (0, "")
    lines = shown.out.splitlines()
    assert lines[0] == str(path)
    for setting in ("prompt a red circle moving left", "num_frames 2", "width 32", "seed 3", "guidance_scale 2.0"):
        assert setting in lines[1]
    assert lines[2].endswith("MiB")
    video = read_video(path)
    assert video.frames.shape == (2, 32, 32, 3)
    assert names(tmp_path) == ["out.mp4"]


def test_json_is_one_object_and_nothing_else(generate, shipped_model, tmp_path):
    path = tmp_path / "out.gif"

    shown = generate("a red circle", *QUICK, "--seed", "3", "-o", path, "--json")

    result = json.loads(shown.out)
    assert (shown.code, shown.err, shown.out.count("\n")) == (0, "", 1)
    assert result.keys() == {"path", "settings", "seconds", "peak_memory_bytes"}
    assert result["path"] == str(path)
    assert result["settings"] == read_request(path)
    assert result["settings"]["model"] == {"model": shipped_model, "dtype": "float32"}
    assert result["peak_memory_bytes"] > 2**20
    assert result["seconds"] > 0


def test_without_an_output_the_prompt_names_the_file(generate, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    made = [generate("a red circle, moving left", *QUICK).out.splitlines()[0] for _ in range(2)]

    assert made == ["a-red-circle-moving-left.mp4", "a-red-circle-moving-left-2.mp4"]
    assert names(tmp_path) == sorted(made)
    refused(generate("a circle", "--size", "63x64"), "63x64")
    assert names(tmp_path) == sorted(made)  # nor is the name of what failed


def test_an_empty_prompt_is_made_and_repeated(generate, run, tmp_path):
    first, again = tmp_path / "first.mp4", tmp_path / "again.mp4"

    assert generate("", *QUICK, "--travel", "1=", "-o", first).code == 0
    assert run("generate", "--like", first, "-o", again).code == 0

    request = read_request(first)
    assert request is not None
    assert request["prompt"] == {"0": "", "1": ""}
    assert first.read_bytes() == again.read_bytes()


@pytest.mark.filterwarnings("default:No prompt names the embedding")
def test_an_embedding_is_named_recorded_and_repeated(generate, run, tmp_path):
    torch.manual_seed(0)
    torch.save({"<toy>": torch.randn(2, 128)}, tmp_path / "doll.bin")
    first, again, plain = (tmp_path / f"{name}.mp4" for name in ("first", "again", "plain"))
    embedding = ("--embedding", f"{tmp_path / 'doll.bin'}:puppet")

    assert generate("a (puppet:1.2)", *QUICK, *embedding, "-o", first).code == 0
    assert run("generate", "--like", first, "-o", again).code == 0
    idle = run("generate", "a red circle", "--like", first, "-o", plain)

    request = read_request(first)
    assert request is not None
    assert request["model"]["embeddings"] == {str(tmp_path / "doll.bin"): "puppet"}
    assert first.read_bytes() == again.read_bytes()
    assert "No prompt names the embedding puppet" in idle.err
    torch.save({"<toy>": torch.zeros(2, 128)}, tmp_path / "doll.bin")
    refused(run("generate", "--like", first, "-o", again), "doll.bin", "not the file any more")
    refused(generate("a embedding:none", "-o", plain), "embedding:none", "--embedding")
    refused(run("generate", "a puppet", *embedding, "--model", "demo/easyanimate", "-o", plain), "embeddings")


def test_like_repeats_a_video_exactly(generate, run, tmp_path):
    first, again, other = (tmp_path / name for name in ("first.mp4", "again.mp4", "other.mp4"))
    generate("a red circle", *QUICK, "--negative", "a blue circle", "--fps", "5", "--scheduler", "ddim", "-o", first)

    assert run("generate", "--like", first, "-o", again).code == 0
    assert run("generate", "a green square", "--like", first, "-o", other).code == 0

    assert np.array_equal(read_video(first).frames, read_video(again).frames)
    assert first.read_bytes() == again.read_bytes()
    assert not np.array_equal(read_video(first).frames, read_video(other).frames)
    changed, before = read_request(other), read_request(first)
    assert before is not None
    assert changed == {**before, "prompt": "a green square"}


def test_without_metadata_there_is_nothing_to_repeat(generate, run, tmp_path):
    path = tmp_path / "out.webp"
    generate("a red circle", *QUICK, "--no-metadata", "-o", path)

    assert read_request(path) is None
    refused(run("generate", "--like", path, "-o", tmp_path / "again.mp4"), str(path), "no request")
    assert "no request inside" in run("inspect", path).out


@pytest.mark.parametrize("suffix", [".mp4", ".png"])
def test_inspect_shows_size_and_request(run, tmp_path, suffix):
    path = tmp_path / f"in{suffix}"
    request = {"prompt": "a [red] :heart: circle", "seed": 4}
    Video(np.zeros((3, 16, 24, 3), np.uint8), fps=12, request=request).save(path)

    shown, as_json = run("inspect", path), run("inspect", path, "--json")

    assert shown.code == as_json.code == 0
    assert shown.out.splitlines() == [
        f"{path}: 3 frames, 24x16, 12 fps",
        "prompt: 'a [red] :heart: circle'",
        "seed: 4",
    ]
    assert json.loads(as_json.out) == {
        "kind": "video",
        "path": str(path),
        "num_frames": 3,
        "width": 24,
        "height": 16,
        "fps": 12.0,
        "in_file": {
            "is_variable_rate": False,
            "rotation": 0,
            "is_mirrored": False,
            "pixel_aspect": 1.0,
            "has_alpha": False,
            "is_interlaced": False,
            "high_range": None,
        },
        "request": request,
    }


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["Give a prompt"]),
        (["x", "--frames", "0"], ["num_frames", "0"]),
        (["x", "--frames", "many"], ["--frames"]),
        (["x", "--size", "abc"], ["--size", "64x64", "'abc'"]),
        (["x", "--size", "0x64"], ["width"]),
        (["x", "--size", f"64x{DIGITS}"], ["--size", "64x64"]),
        (["x", "--keyframe", f"{DIGITS}=a.png"], ["--keyframe", "0=start.png"]),
        (["x", "--window", DIGITS], ["--window", "16/4"]),
        (["x", "--window", f"16/{DIGITS}"], ["--window", "16/4"]),
        (["x", "--steps", "0"], ["num_inference_steps"]),
        (["x", "--guidance", "-1"], ["guidance_scale"]),
        (["x", "--seed", "-1"], ["seed"]),
        (["x", "--scheduler", "magic"], ["'magic'", "ddim"]),
        (["x", "--device", "tpu"], ["'tpu'", "cpu"]),
        (["x", "--model", "no such model"], ["'no such model'", "demo/animatediff"]),
        (["x", "--model", "/etc/hosts"], ["/etc/hosts", "weight file"]),
        (["x", "--nonsense"], ["--nonsense"]),
        (["x", "--like", "none.mp4"], ["none.mp4"]),
    ],
)
def test_wrong_requests_are_refused(run, tmp_path, monkeypatch, arguments, parts):
    monkeypatch.chdir(tmp_path)

    refused(run("generate", *arguments, "-o", "out.mp4"), *parts)

    assert names(tmp_path) == []


@pytest.mark.parametrize("output", ["none/out.mp4", "out.avi", "folder.mp4"])
def test_outputs_that_cannot_be_written_are_refused(run, tmp_path, monkeypatch, output):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.mp4").mkdir()

    refused(run("generate", "a red circle", "-o", output), output)

    assert names(tmp_path) == ["folder.mp4"]


def test_a_size_that_the_model_cannot_take_names_the_nearest(generate, tmp_path):
    refused(generate("a red circle", "--size", "63x64", "-o", tmp_path / "out.mp4"), "63x64", "nearest is 64x64")

    assert names(tmp_path) == []


def test_what_is_no_video_is_refused(run, tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("not a video")

    refused(run("inspect", text), "notes.txt")
    refused(run("inspect", tmp_path / "none.mp4"), "none.mp4")
    refused(run("inspect", tmp_path), str(tmp_path))


@pytest.mark.parametrize(
    "command", [("inspect",), ("train",), ("generate", "x", "-o"), ("generate", "x", "--model")], ids=" ".join
)
def test_names_longer_than_the_file_system_allows_are_refused(run, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    refused(run(*command, "a" * 300 + ".mp4"), "a" * 300)


def test_wrong_training_runs_are_refused(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("name: [")
    recipe = SOURCE.parent / "runs" / "demo-animatediff.yaml"

    refused(run("train", "none.yaml"), "none.yaml")
    refused(run("train", wrong), "wrong.yaml", "YAML")
    refused(run("train", recipe, "--set", "nonsense"), "'nonsense'", "NAME=VALUE")
    refused(run("train", recipe, "--set", "vae.colour=red"), "colour")
    refused(run("train"), "run_file")

    assert names(tmp_path) == ["wrong.yaml"]


def test_wrong_evaluations_are_refused(run, tmp_path):
    refused(run("evaluate", "demo", "--count", "0"), "--count")
    refused(run("evaluate", "demo", "--seed", "-1"), "--seed")
    refused(run("evaluate", "demo", "--model", "no such model"), "'no such model'")
    refused(run("evaluate", "demo", "--sheet", tmp_path / "none" / "sheet.png"), "sheet.png")
    refused(run("evaluate", "everything"), "everything")
    refused(run("evaluate", "demo", "--guidance", "2000"), "must be below 1000")
    refused(run("evaluate", "demo", "--scheduler", "magic"), "'magic'", "ddim")


@pytest.mark.slow
def test_evaluate_reports_and_draws(run, shipped_model, tmp_path):
    sheet = tmp_path / "sheet.png"

    shown = run("evaluate", "demo", "--count", "1", "--model", shipped_model, "--sheet", sheet, "--json")

    report = json.loads(shown.out)
    assert (shown.code, shown.err) == (0, "")
    assert report["model"] == shipped_model
    assert report["renders"]["all_correct"] == 1
    assert 0 <= report["generated"]["all_correct"] <= 1
    assert report["generated"].keys() == report["reconstructions"].keys()
    assert names(tmp_path) == ["sheet.png"]
    assert read_video(sheet).frames.shape == (1, 64, 8 * 64, 3)
