"""One engine: models that stay warm, reports, cancelling, and files that say no path."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.tiny_models import make_easyanimate
from torch import nn

from muybridge.checkpoints.lora import LoraChange, write_lora
from muybridge.errors import Cancelled, ConfigError
from muybridge.pipelines import load_pipeline
from muybridge.pipelines.planning import PartialShape
from muybridge.request import GenerateRequest
from muybridge.service.costing import smaller_shapes
from muybridge.service.engine import Engine, Report
from muybridge.service.long_generation import segments_folder
from muybridge.video import read_request, read_video

FAMILIES = ("animatediff", "easyanimate")
PROMPT = "a red circle"
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def models(saved_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models") / "easyanimate"
    make_easyanimate().save_pretrained(folder)
    return {"animatediff": saved_pipeline, "easyanimate": folder}


@pytest.fixture(scope="module")
def lora(make_pipeline: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = torch.Generator().manual_seed(0)
    layers = {
        name: each
        for name, each in make_pipeline().unet.named_modules()
        if isinstance(each, nn.Linear) and ".attn" in name
    }
    changes = {
        name: LoraChange(
            torch.randn(4, each.in_features, generator=generator),
            torch.randn(each.out_features, 4, generator=generator),
            4,
        )
        for name, each in layers.items()
    }
    return write_lora(tmp_path_factory.mktemp("lora") / "style.safetensors", {"backbone": changes}, "unet", "kohya")


def request_of(model: Path, **given: Any) -> GenerateRequest:
    frames = 8 if "easyanimate" in str(model) else 2
    values = {"prompt": PROMPT, "model": str(model), "num_frames": frames, "num_inference_steps": 2, "seed": 1}
    return GenerateRequest.from_flat({**values, **given})


def made(engine: Engine, request: GenerateRequest, folder: Path) -> np.ndarray:
    return read_video(engine.run(request, folder / "video.png").path).frames


@pytest.mark.parametrize("family", FAMILIES)
def test_a_warm_model_makes_what_a_cold_one_makes(
    models: dict[str, Path], lora: Path, tmp_path: Path, family: str
) -> None:
    own = tmp_path / f"{family}-model"
    shutil.copytree(models[family], own)
    plain, other = request_of(own), request_of(own, prompt="a blue square", seed=2, scheduler="euler")
    cold = made(Engine(), plain, tmp_path)
    warm = Engine()
    assert np.array_equal(made(warm, plain, tmp_path), cold)
    shutil.rmtree(own)  # so that nothing can be loaded again
    if family == "animatediff":
        made(warm, request_of(own, lora={str(lora): 1.0}), tmp_path)
    made(warm, other, tmp_path)
    assert np.array_equal(made(warm, plain, tmp_path), cold)
    assert warm.loaded == (str(own),)


def test_loras_come_and_go_with_requests(models: dict[str, Path], lora: Path, tmp_path: Path) -> None:
    plain = request_of(models["animatediff"])
    with_lora = request_of(models["animatediff"], lora={str(lora): 0.7})
    cold = [made(Engine(), each, tmp_path) for each in (plain, with_lora)]
    assert not np.array_equal(cold[0], cold[1])
    engine = Engine()
    for request, expected in ((with_lora, cold[1]), (plain, cold[0]), (with_lora, cold[1])):
        assert np.array_equal(made(engine, request, tmp_path), expected)
    tagged = request_of(models["animatediff"], prompt=f"{PROMPT} <lora:style:0.2>")
    with pytest.raises(ConfigError, match="names the LoRA style; loaded: none"):
        engine.run(tagged, tmp_path / "a.png")


def test_models_go_when_there_is_no_room(models: dict[str, Path], tmp_path: Path) -> None:
    engine = Engine(memory=1)
    for family in FAMILIES:
        made(engine, request_of(models[family]), tmp_path)
        assert engine.loaded == (str(models[family]),)
    roomy = Engine(memory=10**9)
    for family in FAMILIES:
        made(roomy, request_of(models[family]), tmp_path)
    assert roomy.loaded == (str(models["easyanimate"]), str(models["animatediff"]))
    roomy.unload()
    assert roomy.loaded == ()


@pytest.mark.parametrize("family", FAMILIES)
def test_it_tells_what_it_does(models: dict[str, Path], tmp_path: Path, family: str) -> None:
    reports: list[Report] = []
    request = request_of(models[family])
    result = Engine().run(request, tmp_path / "video.mp4", report=reports.append)
    told = list(dict.fromkeys((each.phase, each.step, each.steps) for each in reports))
    steps = [("denoise", 0, 2), ("denoise", 1, 2), ("denoise", 2, 2)]
    assert told == [("load", 0, 0), ("encode", 0, 0), *steps, ("decode", 2, 2), ("write", 2, 2)]
    assert list(result.phase_seconds) == ["load", "encode", "denoise", "decode", "write"]
    assert sum(result.phase_seconds.values()) == pytest.approx(result.seconds, abs=0.5)
    video = read_video(result.path)
    assert (result.num_frames, result.height, result.width) == video.frames.shape[:3]
    assert (result.fps, result.seed) == (video.fps, 1)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("when", [("encode", 0), ("denoise", 0), ("denoise", 1), ("decode", 2), ("write", 2)])
def test_cancelling_leaves_nothing(
    models: dict[str, Path], engine: Engine, tmp_path: Path, family: str, when: tuple[str, int]
) -> None:
    after: list[Report] = []

    def cancel(report: Report) -> None:
        after.append(report)
        if (report.phase, report.step) == when:
            raise Cancelled("no more")

    with pytest.raises(Cancelled, match="no more"):
        engine.run(request_of(models[family]), tmp_path / "video.mp4", report=cancel)
    assert (after[-1].phase, after[-1].step) == when
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine()


def test_a_cancelled_request_changes_nothing_for_the_next(
    models: dict[str, Path], lora: Path, engine: Engine, tmp_path: Path
) -> None:
    plain = request_of(models["animatediff"])
    before = made(engine, plain, tmp_path)

    def cancel(report: Report) -> None:
        if report.step == 1:
            raise Cancelled

    with pytest.raises(Cancelled):
        engine.run(request_of(models["animatediff"], lora={str(lora): 1.0}), tmp_path / "a.mp4", report=cancel)
    assert np.array_equal(made(engine, plain, tmp_path), before)


@pytest.mark.parametrize("strategy", ["crossfade", "latent"])
def test_a_long_video_is_cancelled_and_gone_on_with(
    models: dict[str, Path], engine: Engine, tmp_path: Path, strategy: str
) -> None:
    asked = {"num_frames": 24, "segment_frames": 16, "overlap_strategy": strategy, "num_inference_steps": 2}
    request, output = request_of(models["easyanimate"], **asked), tmp_path / "long.mp4"
    seen: list[Report] = []

    def cancel_in_the_second(report: Report) -> None:
        seen.append(report)
        if report.segment == 1 and report.step == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        engine.run(request, output, report=cancel_in_the_second)
    assert [each.step for each in seen] == sorted(each.step for each in seen)
    assert {each.segments for each in seen if each.steps} == {2}
    assert (seen[-1].step, seen[-1].steps, seen[-1].segment) == (3, 4, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["long.mp4.segments"]
    assert (segments_folder(output) / "00000.json").is_file()

    again: list[Report] = []
    result = engine.run(request, output, report=again.append)
    assert {each.steps for each in again if each.steps} == {2}  # of what is to be made
    assert {each.segment for each in again if each.step} == {1}
    assert (result.num_frames, result.height, result.width) == (24, 32, 32)
    whole = engine.run(request, tmp_path / "whole.mp4")
    assert np.array_equal(read_video(result.path).frames, read_video(whole.path).frames)

    redone: list[Report] = []
    engine.run(request, output, report=redone.append, redo=[1])
    assert {each.steps for each in redone if each.steps} == {2}


def test_a_file_says_public_names_and_no_path(
    models: dict[str, Path], lora: Path, engine: Engine, tmp_path: Path
) -> None:
    upload = tmp_path / "uploads"
    upload.mkdir()
    for index in range(2):
        Image.fromarray(np.full((16, 16, 3), 80 * index, np.uint8)).save(upload / f"{index:04d}.png")
    given = {"init_video": str(upload), "strength": 0.9, "plain_prompt": True}
    private = request_of(models["animatediff"], lora={str(lora): 0.5}, vae=str(models["animatediff"] / "vae"), **given)
    public = private.plain()
    public["model"] = {"model": "tiny", "loras": {"style": 0.5}}  # where the VAE is from is nobody's business
    public["conditions"][0]["video"] = "upload_1"

    result = engine.run(private, tmp_path / "video.mp4", public=public)

    record = read_request(result.path)
    assert record is not None
    assert record == result.settings
    assert record["model"] == {"model": "tiny", "loras": {"style": 0.5}, "dtype": "float32"}
    assert record["conditions"][0]["video"] == "upload_1"
    assert list(record["inputs"]) == ["upload_1"]
    data = result.path.read_bytes()
    for place in (tmp_path, models["animatediff"], lora.parent, Path("/tmp")):
        assert str(place).encode() not in data


def test_a_long_file_says_public_names_too(models: dict[str, Path], engine: Engine, tmp_path: Path) -> None:
    picture = tmp_path / "start.png"
    Image.fromarray(np.full((32, 32, 3), 80, np.uint8)).save(picture)
    private = request_of(models["easyanimate"], num_frames=16, segment_frames=8, keyframes={0: str(picture)})
    public = private.plain()
    public["model"]["model"] = "tiny"
    public["conditions"][0]["pictures"] = {0: "upload_1"}
    result = engine.run(private, tmp_path / "video.mp4", public=public)
    assert str(tmp_path).encode() not in result.path.read_bytes()
    record = read_request(result.path)
    assert record is not None
    assert list(record["inputs"]) == ["upload_1"]


def test_what_it_costs_is_known_before(
    models: dict[str, Path], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    cost = engine.cost(request_of(models["animatediff"]))
    assert cost.fits
    assert cost.least is None
    assert 0 < cost.peak_bytes < (cost.budget_bytes or 0)
    cost.require()
    monkeypatch.setattr("muybridge.service.costing.bytes_allowed", lambda *_: 1000)
    tight = engine.cost(request_of(models["animatediff"]))
    assert not tight.fits
    with pytest.raises(ConfigError, match=r"Nothing fits 1e-06 GB: the least is .* GB"):
        tight.require()


def test_giants_are_tried_from_small_on() -> None:
    assert smaller_shapes(PartialShape(16, 512, 512)) == []
    shapes = smaller_shapes(PartialShape(100_000, 65_536, None))
    pixels = [(each.num_frames or 0) * (each.height or 0) for each in shapes]
    assert pixels == sorted(pixels)
    assert 512 * pixels[0] <= 16 * 1024**2
    assert {each.width for each in shapes} == {None}
    assert smaller_shapes(PartialShape(64, None, None)) == []


@pytest.mark.slow
def test_what_cannot_fit_is_known_soon(models: dict[str, Path], engine: Engine) -> None:
    giant = engine.cost(request_of(models["animatediff"], num_frames=100_000, width=65536, height=65536))
    assert not giant.fits
    assert "more was asked for" in (giant.least or "")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_is_described_without_its_weights(models: dict[str, Path], tmp_path: Path, family: str) -> None:
    hollow = tmp_path / "model"
    shutil.copytree(models[family], hollow, ignore=shutil.ignore_patterns("*.safetensors"))
    described = Engine().describe(str(hollow))
    pipeline = load_pipeline(models[family])
    assert described["family"] == type(pipeline).__name__
    assert described["takes"] == sorted(pipeline.can.takes)
    assert described["default"] == {
        "num_frames": pipeline.frames_at_once,
        "height": (pipeline.usual_size or (None, None))[0],
        "width": (pipeline.usual_size or (None, None))[1],
        "fps": pipeline.frames_per_second,
        "num_inference_steps": pipeline.config["default_steps"],
        "guidance_scale": pipeline.config["default_guidance"],
    }
    assert described["size_multiple"] == pipeline.size_multiple
    assert described["frame_multiple"] == pipeline.codec.frame_multiple
