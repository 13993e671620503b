"""The model inside the package does what it says, and its motion comes from its motion modules."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from muybridge import AnimateDiffPipeline, load_pipeline
from muybridge.checkpoints import SHIPPED_MODELS, locate_model, locate_weights
from muybridge.demo import world
from muybridge.demo.clip_maker import ClipMaker
from muybridge.demo.evaluation import evaluate_clips, held_out_scenes, score, true_clips
from muybridge.demo.measure import measure_clip
from muybridge.request import Sampling


@pytest.fixture(scope="module")
def pipe() -> AnimateDiffPipeline:
    pipeline = load_pipeline("demo/animatediff")
    assert isinstance(pipeline, AnimateDiffPipeline)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def clips(pipe: AnimateDiffPipeline, prompts: list[str], seeds: list[int]) -> np.ndarray:
    frames = pipe(prompts, seed=seeds[0], num_inference_steps=10, output_type="np")
    return np.rint(frames * 255).astype(np.uint8)


def test_shipped_files_are_small_and_safe() -> None:
    folder = locate_model("demo/animatediff")
    files = [path for path in folder.rglob("*") if path.is_file()]
    control = [path for path in files if path.parent.name == "keyframe_control"]
    assert 0 < sum(path.stat().st_size for path in control) <= 4_000_000
    assert sum(path.stat().st_size for path in set(files) - set(control)) <= 16_000_000
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".md", ".txt"}
    assert (folder / "README.md").is_file()


def test_shipped_weights_are_half_precision() -> None:
    pipeline = load_pipeline("demo/animatediff", torch_dtype=torch.float16)
    adapter = Path(locate_model("demo/animatediff")) / "motion_adapter" / "config.json"
    assert json.loads(adapter.read_text())["_class_name"] == "MotionAdapter"
    assert pipeline.unet.dtype == torch.float16


@pytest.mark.slow
def test_held_out_prompts_come_out_right(pipe: AnimateDiffPipeline) -> None:
    scenes = held_out_scenes(12, seed=11)
    measured, _ = evaluate_clips(scenes, lambda prompts, seeds: clips(pipe, prompts, seeds), seed=11, batch_size=4)
    result = score(scenes, measured)
    assert result["colour"] >= 0.9
    assert result["background"] >= 0.9
    assert result["motion"] >= 0.75
    assert result["shape"] >= 0.6


@pytest.mark.slow
def test_pinned_frames_are_met(pipe: AnimateDiffPipeline) -> None:
    scenes = [world.Scene("circle", "red", "moving right")]
    truth = true_clips(scenes, seed=3)

    def errors(pin: bool) -> list[float]:
        found = []
        for index, (scene, clip) in enumerate(zip(scenes, truth, strict=True)):
            keyframes = {frame: clip[frame] for frame in (0, -1)} if pin else None
            made = pipe(world.full_caption(scene), seed=index, keyframes=keyframes, num_inference_steps=8)
            found += [float(np.square(made.frames[i] / 255.0 - clip[i] / 255.0).mean()) for i in (0, -1)]
        return found

    pinned, free = errors(pin=True), errors(pin=False)
    assert np.mean(pinned) < 0.004  # 24 dB
    assert np.mean(pinned) < np.mean(free) / 5


@pytest.mark.parametrize(
    "ways", [("left", "down"), pytest.param(("left", "right", "up", "down"), marks=pytest.mark.slow)], ids=len
)
def test_motion_comes_from_the_motion_modules(pipe: AnimateDiffPipeline, ways: tuple[str, ...]) -> None:
    prompts = [world.full_caption(world.Scene("circle", "red", f"moving {way}", "large", "black")) for way in ways]
    wanted = [f"moving {way}" for way in ways]
    with_modules = [measure_clip(clip).motion for clip in clips(pipe, prompts, [0])]
    adapter = pipe.remove_motion_adapter()
    try:
        without = [measure_clip(clip) for clip in clips(pipe, prompts, [0])]
    finally:
        assert adapter is not None
        pipe.set_motion_adapter(adapter)
    hits = sum(found == asked for found, asked in zip(with_modules, wanted, strict=True))
    assert hits >= max(2, len(ways) - 1)
    jumps = [np.abs(np.diff(m.centre, axis=0)).mean() for m in without]
    assert min(jumps) > 0.05  # stills that know nothing of each other: the shape jumps from frame to frame


def test_without_the_adapter_the_frames_are_independent_stills(pipe: AnimateDiffPipeline) -> None:
    noise = torch.randn((1, 4, 16, 16, 16), generator=torch.Generator().manual_seed(0))
    settings = {"num_inference_steps": 4, "output_type": "latent"}
    adapter = pipe.remove_motion_adapter()
    try:
        together = pipe("a red circle", latents=noise, **settings)
        apart = [pipe("a red circle", num_frames=1, latents=noise[:, :, i : i + 1], **settings) for i in range(16)]
    finally:
        assert adapter is not None
        pipe.set_motion_adapter(adapter)
    assert torch.allclose(together, torch.cat(apart, dim=2), atol=1e-4)


@pytest.mark.parametrize("model", SHIPPED_MODELS)
def test_shipped_loras_have_names_and_are_small(model: str) -> None:
    path = locate_weights(f"{model}-4-steps")
    assert path.stat().st_size <= 2_000_000
    tensors = load_file(path)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    pipeline = load_pipeline(model)
    bare = pipeline("a red circle moving left", seed=3, num_inference_steps=1, guidance_scale=1.0, output_type="np")
    pipeline.load_lora_weights(f"{model}-4-steps")
    assert pipeline.get_active_adapters() == [f"{model.removeprefix('demo/')}_4_steps"]
    with_it = pipeline("a red circle moving left", seed=3, num_inference_steps=1, guidance_scale=1.0, output_type="np")
    assert not np.array_equal(bare, with_it)


@pytest.mark.slow
@pytest.mark.parametrize("model", SHIPPED_MODELS)
def test_four_steps_are_enough_with_the_shipped_loras(model: str) -> None:
    pipeline = load_pipeline(model)
    pipeline.load_lora_weights(f"{model}-4-steps")
    maker = ClipMaker(pipeline, Sampling(num_inference_steps=4, guidance_scale=1.0, scheduler="ddim"))
    scenes = held_out_scenes(24, seed=11)
    measured, _ = evaluate_clips(scenes, maker.from_prompts, seed=11)
    result = score(scenes, measured)
    assert result["all_correct"] >= 0.8
    assert result["motion"] >= 0.85
