"""Options of `generate` that go through to the AnimateDiff pipeline, with the shipped model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from muybridge.checkpoints import locate_model
from muybridge.checkpoints.parts import load_vae
from muybridge.cli.main import main
from muybridge.video import Video, read_request, read_video

PROMPT = "a red circle"
SHORT = ("--steps", "1", "--seed", "3", "--size", "16x16")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[Any, str]:
    with pytest.raises(SystemExit) as stopped:
        main(["generate", *arguments])
    return stopped.value.code, capsys.readouterr().err


def made(path: Path) -> np.ndarray:
    return read_video(path).frames


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "options",
    [
        ("--travel", "3=a blue square"),
        ("--window", "2/1"),
        ("--window", "2/1", "--looped", "--free-noise"),
        ("--free-init", "2"),
        ("--prediction", "eps"),
        ("--vae", "other_vae"),
    ],
    ids=lambda options: options[0],
)
@pytest.mark.filterwarnings("ignore:demo/animatediff says that it predicts v_prediction:UserWarning")
def test_an_option_acts_and_is_repeated(
    here: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    vae = load_vae(locate_model("demo/animatediff"), torch.float32)
    torch.nn.init.ones_(vae.get_parameter("decoder.conv_out.bias"))
    vae.save_pretrained("other_vae")
    assert run(capsys, PROMPT, *SHORT, "--frames", "4", "-o", "plain.mp4")[0] == 0
    status, err = run(capsys, PROMPT, *SHORT, "--frames", "4", *options, "-o", "a.mp4")
    assert status == 0, err
    assert not np.array_equal(made(here / "a.mp4"), made(here / "plain.mp4"))

    status, err = run(capsys, "--like", "a.mp4", "-o", "b.mp4")

    assert status == 0, err
    assert np.array_equal(made(here / "a.mp4"), made(here / "b.mp4"))
    assert read_request(here / "a.mp4") == read_request(here / "b.mp4")


def test_a_source_video_is_kept_where_it_changes_little(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = np.zeros((4, 16, 16, 3), np.uint8)
    frames[:, 4:12, 4:12, 0] = 255
    Video(frames, fps=8).save(here / "in.png")

    for strength, name in (("0.1", "near"), ("1", "far")):
        arguments = (PROMPT, "--steps", "10", "--seed", "3", "--size", "16x16", "--frames", "4")
        status, err = run(capsys, *arguments, "--init-video", "in.png", "--strength", strength, "-o", f"{name}.png")
        assert status == 0, err

    distances = [float(np.abs(made(here / f"{name}.png").astype(int) - frames).mean()) for name in ("near", "far")]
    assert distances[0] < distances[1] / 2


@pytest.mark.filterwarnings("always")  # as notes in what the program prints
def test_what_is_lost_of_a_source_video_is_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Video(np.zeros((18, 16, 32, 3), np.uint8), fps=25).save(here / "in.mp4")
    quick = (PROMPT, "--init-video", "in.mp4", "--strength", "0.5", "--steps", "2", "--seed", "1")

    status, err = run(capsys, *quick, "-o", "out.mp4")

    assert status == 0, err
    assert "note: The source video has 18 frames, of which the first 16 are used." in err
    video = read_video(here / "out.mp4")
    assert (len(video), video.width, video.fps) == (16, 2 * video.height, 25)
    assert run(capsys, *quick, "--frames", "4", "--size", "16x16", "--fps", "5", "-o", "small.png")[0] == 0
    assert (made(here / "small.png").shape, read_video(here / "small.png").fps) == ((4, 16, 16, 3), 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--travel", "9=a blue square"), "frame 9 is outside the video"),
        (("--travel", "two=a"), "--travel takes FRAME=TEXT"),
        (("--window", "8"), "larger than the video of 4"),
        (("--window", "much"), "--window takes SIZE or SIZE/OVERLAP"),
        (("--looped",), "give --window too"),
        (("--free-noise",), "give windows too"),
        (("--control", "depth"), "--control takes MODEL=VIDEO"),
        (("--control", "nowhere=missing.mp4"), "missing.mp4"),
        (("--keyframe", "0=missing.png"), "There is no picture missing.png"),
        (("--sketch", "0=a.png", "--sketch", "0=b.png"), "--sketch names frame 0 twice"),
        (("--strength", "0.5"), "init_video may change; give that too"),
        (("--lora", "a.safetensors:1", "--lora", "a.safetensors"), "names a.safetensors twice"),
        (("--lora", "missing.safetensors"), "missing.safetensors"),
        (("--redo", "1"), "made at once"),
        (("--parts-from", "elsewhere"), "whole model"),
        (("--animatediff-config", "job.yaml"), "prompts and settings; leave steps, seed, size, frames, prompt out"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
@pytest.mark.usefixtures("here")
def test_refused(capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str) -> None:
    status, err = run(capsys, PROMPT, *SHORT, "--frames", "4", *options)
    assert status == 2
    assert message in err


def test_any_setting_can_be_set_and_a_whole_request_read(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "request.yaml").write_text(
        "prompt: a red circle\n"
        "shape: {num_frames: 4, width: 16, height: 16}\n"
        "sampling: {seed: 3, num_inference_steps: 1, eta: 0.5}\n"
    )
    assert run(capsys, "--request", "request.yaml", "-o", "a.mp4")[0] == 0
    assert run(capsys, PROMPT, *SHORT, "--frames", "4", "--set", "sampling.eta=0.5", "-o", "b.mp4")[0] == 0
    assert np.array_equal(made(here / "a.mp4"), made(here / "b.mp4"))
    status, err = run(capsys, "--request", "request.yaml", "--seed", "4", "--set", "shape.fps=5", "-o", "c.mp4")
    assert status == 0, err
    request = read_request(here / "c.mp4")
    assert request is not None
    assert (request["sampling"]["seed"], request["sampling"]["eta"], request["shape"]["fps"]) == (4, 0.5, 5.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "sampling.etta=1"), "sampling.etta: there is no such setting"),
        (("--set", "eta"), "--set takes NAME=VALUE, as in sampling.eta=0.5; given 'eta'"),
        (("--set", "conditions.edges.x=1"), "kind must be one of control, image-prompt, keyframes"),
        (("--request", "none.yaml"), "none.yaml cannot be read: No such file or directory"),
        (("--request", "list.yaml"), "list.yaml is no request"),
        (("--request", "wrong.yaml"), "colour: there is no such setting"),
        (("--request", "alias.yaml"), "has aliases of YAML"),
        (("--request", "list.yaml", "--like", "a.mp4"), "both say what to make; give one"),
    ],
)
def test_requests_that_are_none(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    (here / "list.yaml").write_text("- a\n")
    (here / "wrong.yaml").write_text("prompt: a\ncolour: red\n")
    (here / "alias.yaml").write_text("prompt: &a text\nnegative_prompt: *a\n")
    status, err = run(capsys, PROMPT, *arguments)
    assert (status, message in err) == (2, True), err


def test_precision_and_memory_are_asked_for_and_recorded(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, PROMPT, *SHORT, "--frames", "2", "--dtype", "bfloat16", "-o", "a.mp4")[0] == 0
    request = read_request(here / "a.mp4")
    assert request is not None
    assert (request["model"]["dtype"], request["made"]["dtype"]) == ("bfloat16", "bfloat16")
    assert run(capsys, "--like", "a.mp4", "-o", "b.mp4")[0] == 0
    assert np.array_equal(made(here / "a.mp4"), made(here / "b.mp4"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--memory", "1MB"), "Nothing fits 0.001 GB: the least is"),
        (("--memory", "much"), "given 'much'"),
        (("--dtype", "int8"), "torch_dtype must be auto, float32, bfloat16, float16; given int8"),
        (("--speed", "magic"), "Unknown optimization 'magic'"),
    ],
)
def test_what_cannot_be_is_refused_before_a_weight_is_read(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    status, err = run(capsys, PROMPT, *SHORT, *arguments)
    assert (status, message in err) == (2, True), err
