"""Known latents, and what EasyAnimate says about those that do not fit, overflow in half precision, and wrong files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from muybridge.errors import ConfigError, InputFileError, NonFiniteError, ShapeError
from muybridge.pipelines import EasyAnimatePipeline
from muybridge.request import GenerateRequest
from muybridge.service.generation import open_inputs
from muybridge.video import Video

PROMPT = "a red circle moving left"
PipelineMaker = Callable[..., EasyAnimatePipeline]


@pytest.fixture(scope="module")
def pipeline(make_easyanimate: PipelineMaker) -> EasyAnimatePipeline:
    return make_easyanimate()


def latents_of(*shape: int) -> torch.Tensor:
    return torch.zeros(shape)


@pytest.mark.parametrize(
    ("known", "error", "message"),
    [
        ({}, ConfigError, "no latents in known_latents"),
        ({0: latents_of(1, 4, 2, 8, 9)}, ShapeError, r"\[1, 4, n, 8, 8\].*\[1, 4, 2, 8, 9\]"),
        ({0: latents_of(4, 2, 8, 8)}, ShapeError, r"given \[4, 2, 8, 8\]"),
        ({3: latents_of(1, 4, 2, 8, 8)}, ShapeError, "4 latent frames; known_latents 3 to 4 are outside"),
        ({-6: latents_of(1, 4, 2, 8, 8)}, ShapeError, "outside"),
        ({1: latents_of(1, 4, 2, 8, 8)}, ShapeError, "given 1 to 3. Around them: 0 to 4"),
        ({0: latents_of(1, 4, 2, 8, 8), -4: latents_of(1, 4, 2, 8, 8)}, ConfigError, "0 to 1 are given twice"),
        ({0: latents_of(1, 4, 4, 8, 8)}, ConfigError, "All 16 frames are given"),
        ({0: latents_of(2, 4, 2, 8, 8)}, ShapeError, "of 2 videos, and 1 are made"),
    ],
)
def test_known_latents_that_do_not_fit(
    pipeline: EasyAnimatePipeline, known: dict[int, torch.Tensor], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        pipeline(PROMPT, num_frames=16, known_latents=known)


def test_known_latents_exclude_pixels_at_their_place(pipeline: EasyAnimatePipeline) -> None:
    known = {0: latents_of(1, 4, 2, 8, 8)}
    with pytest.raises(ConfigError, match="Frame 5 is given by a keyframe and by known_latents"):
        pipeline(PROMPT, num_frames=16, known_latents=known, keyframes={5: Image.new("RGB", (32, 32))})
    with pytest.raises(ConfigError, match="known_latents or init_video"):
        pipeline(PROMPT, known_latents=known, init_video=np.zeros((8, 32, 32, 3), np.uint8))


@pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers")  # how its solvers hand arrays to numpy
@pytest.mark.parametrize("solver", ["ddim", "euler", "dpm++2m"])
def test_known_latents_come_back_anywhere(pipeline: EasyAnimatePipeline, solver: str) -> None:
    known = torch.randn(1, 4, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    settings: dict[str, Any] = {"seed": 1, "num_frames": 24, "scheduler": solver, "output_type": "latent"}
    free = pipeline(PROMPT, **settings)
    for start in (0, 2, -2):
        found = pipeline(PROMPT, known_latents={start: known}, **settings)
        place = slice(start % 6, start % 6 + 2)
        assert torch.equal(found[:, :, place], known)
        others = [index for index in range(6) if index not in range(6)[place]]
        # What is made depends on what is known.
        assert not torch.allclose(found[:, :, others], free[:, :, others], atol=1e-3)


def test_each_video_of_a_batch_has_its_own_known_latents(pipeline: EasyAnimatePipeline) -> None:
    known = torch.randn(2, 4, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    settings: dict[str, Any] = {"num_frames": 16, "output_type": "latent"}
    both = pipeline([PROMPT, PROMPT], seed=3, known_latents={0: known}, **settings)
    alone = pipeline(PROMPT, seed=4, known_latents={0: known[1:]}, **settings)
    assert torch.equal(both[:, :, :2], known)
    assert torch.allclose(both[1:], alone, atol=1e-4)


@pytest.mark.parametrize("profile", ["clean", "reference"])
def test_latents_are_decoded_as_the_call_would_have(pipeline: EasyAnimatePipeline, profile: Any) -> None:
    settings: dict[str, Any] = {"seed": 5, "num_frames": 16, "profile": profile}
    latents = pipeline(PROMPT, output_type="latent", **settings)
    pieces = list(pipeline.decode(latents[0], profile, seed=5))
    assert [len(piece) for piece in pieces] == ([8, 8] if profile == "clean" else [4, 8, 4])
    assert np.array_equal(np.concatenate(pieces), pipeline(PROMPT, **settings).frames)
    with pytest.raises(ConfigError, match="reference"):
        next(pipeline.decode(latents[0], "fast"))  # type: ignore[arg-type]


def test_overflow_in_float16_names_the_layer_and_two_ways_out(make_easyanimate: PipelineMaker) -> None:
    pipeline = make_easyanimate()
    with torch.no_grad():
        for layer in (3, 4):  # each fits, their sum does not
            pipeline.transformer.get_parameter(f"transformer_blocks.{layer}.attn2.to_out.0.bias").fill_(6e4)
    torch.nn.Module.to(pipeline.transformer, torch.float16)
    settings: dict[str, Any] = {"seed": 1, "output_type": "latent", "num_inference_steps": 1}
    with pytest.raises(
        NonFiniteError, match=r"Step 1 .*first in .*transformer_blocks\.\d.*bfloat16.*layerwise"
    ) as info:
        pipeline(PROMPT, **settings)
    assert "65504" in str(info.value)
    torch.nn.Module.to(pipeline.transformer, torch.float32)
    pipeline.transformer.enable_layerwise_casting(torch.float16, torch.float32)
    assert bool(torch.isfinite(pipeline(PROMPT, **settings)).all())


def test_text_states_and_pixels_that_are_not_finite_name_their_layer(make_easyanimate: PipelineMaker) -> None:
    pipeline = make_easyanimate()
    settings: dict[str, Any] = {"seed": 1, "num_inference_steps": 1, "guidance_scale": 1.0}
    weight = pipeline.vae.get_parameter("decoder.conv_out.weight")
    before = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(float("nan"))
    with pytest.raises(NonFiniteError, match=r"infinite pixels in torch.float32, first in decoder\.conv_out"):
        pipeline(PROMPT, **settings)
    with torch.no_grad():
        weight.copy_(before)
        pipeline.text_encoder.get_parameter("shared.weight").fill_(float("inf"))
    with pytest.raises(NonFiniteError, match=r"text encoder .*infinite states in torch.float32, first in shared"):
        pipeline(PROMPT, **settings)


def request_of(**changes: Any) -> GenerateRequest:
    return GenerateRequest.from_flat({"prompt": PROMPT, "model": "tiny", **changes})


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (60, 40), (200, 30, 30)).save("start.png")
    Image.new("L", (32, 32), 255).save("white.png")
    Image.new("L", (32, 32), 0).save("black.png")
    Image.new("L", (20, 30), 255).save("small.png")
    Path("broken.png").write_bytes(b"no picture")
    Video(np.zeros((8, 32, 32, 3), np.uint8)).save("source.mp4")
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"keyframes": {0: "missing.png"}}, InputFileError, "no picture missing.png"),
        ({"keyframes": {0: "broken.png"}}, InputFileError, "broken.png cannot be read"),
        ({"init_video": "missing.mp4"}, InputFileError, "missing.mp4"),
        ({"init_video": "source.mp4", "mask": "small.png"}, ShapeError, "32x32 like the source video; given 20x30"),
        ({"init_video": "source.mp4", "mask": "black.png"}, ConfigError, "black everywhere"),
        ({"mask": "white.png"}, ConfigError, "init_video.*; give that too"),
        ({"strength": 0.5}, ConfigError, "init_video.*; give that too"),
        ({"fit": 512}, ConfigError, "first keyframe, .* or from the source video; give one"),
        ({"fit": 512, "width": 64, "keyframes": {0: "start.png"}}, ConfigError, "leave width and height out"),
    ],
)
@pytest.mark.usefixtures("files")
def test_files_are_checked_without_a_model(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        open_inputs(request_of(**changes))


def test_files_are_opened_once(files: Path, pipeline: EasyAnimatePipeline) -> None:
    request = request_of(init_video="source.mp4", mask="white.png", num_inference_steps=1)
    inputs = open_inputs(request)
    for path in files.iterdir():
        path.unlink()
    assert len(pipeline.make(request, inputs=inputs)) == 8
    with pytest.raises(InputFileError):
        pipeline.make(request)
