"""Equality with the original AnimateDiff, on the numbers it gave for small random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from safetensors.torch import save_file
from torch import Tensor

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.motion import MotionAdapter
from muybridge.sampling import Guidance, StepReport, denoise, make_scheduler

CASE = "animatediff_unet_v2_small"
UNET_SETTINGS = (
    "sample_size",
    "in_channels",
    "out_channels",
    "block_out_channels",
    "layers_per_block",
    "norm_num_groups",
    "norm_eps",
    "cross_attention_dim",
    "attention_head_dim",
)


@pytest.fixture
def original(golden: Any, tmp_path: Path) -> tuple[UNet3DConditionModel, dict[str, Tensor]]:
    tensors, meta = golden(CASE)
    weights = {k.removeprefix("weights/"): v for k, v in tensors.items() if k.startswith("weights/")}
    motion_file = tmp_path / "mm.safetensors"
    save_file({k: v for k, v in weights.items() if "motion_modules." in k}, motion_file)
    unet = UNet3DConditionModel(**{name: meta["config"][name] for name in UNET_SETTINGS})
    unet.load_state_dict({k: v.float() for k, v in weights.items() if "motion_modules." not in k}, strict=True)
    adapter = MotionAdapter.from_single_file(motion_file, variant="animatediff-v2")
    assert adapter.numerics == "official-v2"
    unet.set_motion_adapter(adapter)
    return unet.eval(), tensors


def error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("prefix", ["", "b2."])
@pytest.mark.parametrize("grad", [True, False])
def test_unet_equals_the_original(
    original: tuple[UNet3DConditionModel, dict[str, Tensor]], prefix: str, grad: bool
) -> None:
    unet, tensors = original
    inputs = [tensors[f"inputs/{prefix}{name}"] for name in ("sample", "timestep", "encoder_hidden_states")]
    with torch.set_grad_enabled(grad):
        found = unet(*inputs).sample
    assert error(found.detach(), tensors[f"outputs/{prefix}sample"]) <= 1e-5


def test_intermediate_values_equal_the_original(
    original: tuple[UNet3DConditionModel, dict[str, Tensor]],
) -> None:
    unet, tensors = original
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(_module: object, _inputs: object, output: Any) -> None:
            value = output[0] if isinstance(output, tuple) else output
            if value.ndim == 5:  # features [b, f, h, w, c]
                value = value.permute(0, 4, 1, 2, 3)
            elif value.ndim == 4:
                value = value.unflatten(0, (1, -1)).transpose(1, 2)
            found[name] = value.clone()

        return hook

    names = [k.removeprefix("outputs/sub/").removesuffix(".out") for k in tensors if k.startswith("outputs/sub/")]
    names = [name for name in names if not name.endswith(".in")]
    for name in names:
        unet.get_submodule(name).register_forward_hook(keep(name))
    with torch.no_grad():
        unet(*[tensors[f"inputs/{name}"] for name in ("sample", "timestep", "encoder_hidden_states")])
    assert len(found) == len(names) >= 10
    for name in names:
        assert error(found[name], tensors[f"outputs/sub/{name}.out"]) <= 1e-5, name


def test_other_norm_scope_gives_other_numbers(
    original: tuple[UNet3DConditionModel, dict[str, Tensor]],
) -> None:
    unet, tensors = original
    adapter = unet.remove_motion_adapter()
    assert adapter is not None
    for name in ("official-v1", "diffusers"):
        adapter.set_numerics(name)
        unet.set_motion_adapter(adapter)
        with torch.no_grad():
            found = unet(*[tensors[f"inputs/{n}"] for n in ("sample", "timestep", "encoder_hidden_states")]).sample
        assert error(found, tensors["outputs/sample"]) > 1e-3, name


@pytest.mark.parametrize("batched", [True, False])
def test_denoising_loop_equals_the_original(
    original: tuple[UNet3DConditionModel, dict[str, Tensor]], golden: Any, batched: bool
) -> None:
    unet, _ = original
    tensors, meta = golden("animatediff_pipeline_small")
    scheduler = make_scheduler("ddim")
    scheduler.set_timesteps(meta["config"]["num_inference_steps"])
    assert torch.equal(scheduler.timesteps, tensors["outputs/plain/timesteps"])
    predictions, after = [], []

    def predict(latents: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        predictions.append(unet(latents, timestep, text).sample)
        return predictions[-1]

    def keep(report: StepReport) -> None:
        after.append(report.latents)

    guidance = Guidance(
        predict,
        {"text": tensors["inputs/text_embeddings"]},
        {"text": tensors["inputs/negative_text_embeddings"]},
        meta["config"]["guidance_scale"],
        batched,
    )
    with torch.no_grad():
        denoise(guidance, scheduler, tensors["inputs/latents"], scheduler.timesteps, keep)
    first = predictions[0] if batched else torch.cat(predictions[:2])
    assert error(first, tensors["outputs/plain/noise_pred_raw_each_step"][0]) <= 1e-5
    assert error(torch.stack(after), tensors["outputs/plain/latents_after_each_step"]) <= 1e-3


def test_original_scheduler_settings() -> None:
    scheduler = make_scheduler("ddim")
    scheduler.set_timesteps(25)
    assert scheduler.timesteps[:3].tolist() == [961, 921, 881]
    assert scheduler.timesteps[-1] == 1
    betas = torch.linspace(0.00085, 0.012, 1000)
    assert isinstance(scheduler, DDIMScheduler)
    assert torch.allclose(scheduler.alphas_cumprod, torch.cumprod(1 - betas, 0))
