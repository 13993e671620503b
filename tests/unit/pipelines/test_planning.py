"""Plans of memory against what runs take."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from muybridge.debug.tensor_memory import TensorMemory
from muybridge.errors import CheckpointError, ShapeError
from muybridge.pipelines import load_pipeline, planning
from muybridge.pipelines.planning import plan_video
from muybridge.runtime.plan import PlanSettings
from muybridge.types import VideoShape

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SHAPE = VideoShape(4, 32, 32)


def weight_bytes(pipeline: Any) -> int:
    # As one module, since a motion adapter is a part of its own and of the U-Net.
    whole = nn.ModuleList(part for part in pipeline.components.values() if isinstance(part, nn.Module))
    return sum(tensor.nbytes for tensor in [*whole.parameters(), *whole.buffers()])


@pytest.mark.parametrize("guidance", ["batched", "sequential"])
def test_a_plan_for_a_cpu_is_within_a_tenth_of_what_a_run_takes(
    make_pipeline: Any, saved_pipeline: Path, guidance: Any
) -> None:
    pipeline = make_pipeline()
    settings = PlanSettings("float32", guidance)
    planned = plan_video(saved_pipeline, SHAPE, device="cpu", choices=(settings,)).runs[0]

    with TensorMemory() as memory:
        pipeline(
            "a red circle",
            num_frames=4,
            height=32,
            width=32,
            num_inference_steps=1,
            seed=0,
            batched_guidance=guidance == "batched",
        )

    assert planned.peak == pytest.approx(weight_bytes(pipeline) + memory.peak_bytes, rel=0.1)


def test_a_plan_counts_the_weights_of_a_sparse_control() -> None:
    model, shape = "demo/animatediff", VideoShape(2, 16, 16)
    planned = plan_video(model, shape, device="cpu", choices=(PlanSettings("float32", "batched"),)).runs[0]
    pipeline: Any = load_pipeline(model)

    with TensorMemory() as memory:
        pipeline("a red circle", num_frames=2, height=16, width=16, num_inference_steps=1, seed=0, guidance_scale=5.0)

    assert planned.peak == pytest.approx(weight_bytes(pipeline) + memory.peak_bytes, rel=0.05)


def test_a_plan_of_sdxl_counts_both_text_encoders(sdxl_folder: Path, tmp_path: Path) -> None:
    load_pipeline(sdxl_folder / "base", motion_adapter=sdxl_folder / "motion").save_pretrained(tmp_path)
    pipeline: Any = load_pipeline(tmp_path)
    shape = VideoShape(2, 16, 16)
    planned = plan_video(tmp_path, shape, device="cpu", choices=(PlanSettings("float32", "batched"),)).runs[0]

    with TensorMemory() as memory:
        pipeline("a red circle", num_frames=2, height=16, width=16, num_inference_steps=1, seed=0, guidance_scale=5.0)

    assert planned.peak == pytest.approx(weight_bytes(pipeline) + memory.peak_bytes, rel=0.1)


def test_half_precision_takes_half(saved_pipeline: Path) -> None:
    choices = (PlanSettings("float32"), PlanSettings("bfloat16"))
    plain, half = plan_video(saved_pipeline, SHAPE, choices=choices).runs

    assert half.peaks["text"] == pytest.approx(plain.peaks["text"] / 2, rel=0.05)
    assert half.peak < 0.7 * plain.peak


def test_no_weight_file_is_needed(saved_pipeline: Path, tmp_path: Path) -> None:
    for path in saved_pipeline.rglob("*"):
        if path.is_file() and path.suffix != ".safetensors":
            copy = tmp_path / path.relative_to(saved_pipeline)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())

    choices = (PlanSettings("float32"),)

    assert plan_video(tmp_path, SHAPE, choices=choices) == plan_video(saved_pipeline, SHAPE, choices=choices)


def test_precision_of_torch_is_left_as_it_was(saved_pipeline: Path) -> None:
    plan_video(saved_pipeline, SHAPE, choices=(PlanSettings("bfloat16"),))

    assert torch.get_default_dtype() == torch.float32


def test_a_size_that_cannot_be_made(saved_pipeline: Path) -> None:
    with pytest.raises(ShapeError, match="multiples of 2"):
        plan_video(saved_pipeline, VideoShape(4, 33, 32))


def test_settings_that_describe_no_network(saved_pipeline: Path, tmp_path: Path) -> None:
    for name in ("unet", "text_encoder"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"_class_name": "UNet3DConditionModel", "sample_size": "big"}')
    (tmp_path / "model_index.json").write_text((saved_pipeline / "model_index.json").read_text())

    with pytest.raises(CheckpointError, match=r"(does not describe a network|is missing)"):
        plan_video(tmp_path, SHAPE)


@pytest.mark.parametrize(
    ("model", "shape", "device"),
    [
        pytest.param("demo/animatediff", VideoShape(2, 16, 16), "cpu", marks=pytest.mark.slow),
        ("demo/easyanimate", VideoShape(16, 64, 64), "cuda"),
    ],
)
def test_counting_one_layer_of_each_kind_counts_all(
    model: str, shape: VideoShape, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    choices = (PlanSettings("bfloat16", "sequential", True),)
    once = plan_video(model, shape, device=device, choices=choices).runs
    monkeypatch.setattr(planning, "CountOnce", lambda *_: nullcontext())

    assert plan_video(model, shape, device=device, choices=choices).runs == once
