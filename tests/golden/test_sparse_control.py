"""SparseCtrl beside the original's recorded numbers and names, and beside diffusers' own network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import SparseControlNetModel
from diffusers.models.embeddings import SinusoidalPositionalEmbedding
from safetensors.torch import save_file
from torch import Tensor

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.backbones.unet.sparse_control import SparseControlModel
from muybridge.backbones.unet.sparse_control_keys import describe_control_file
from muybridge.motion import MotionAdapter
from muybridge.sampling import Guidance, StepReport, denoise, make_scheduler

CASE = "animatediff_sparsectrl_rgb_small"
MANIFESTS = {"rgb": "latent", "scribble": "image"}
UNET_SETTINGS = ("block_out_channels", "norm_num_groups", "norm_eps", "cross_attention_dim", "attention_head_dim")


@pytest.fixture
def original(golden: Any, tmp_path: Path) -> tuple[SparseControlModel, dict[str, Tensor]]:
    tensors, _ = golden(CASE)
    weights = {k.removeprefix("weights/"): v for k, v in tensors.items() if k.startswith("weights/")}
    # As the published files: wrapped, and with position tables.
    block = "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0"
    weights[f"{block}.attention_blocks.0.pos_encoder.pe"] = torch.zeros(1, 32, 32)
    path = tmp_path / "v3_sd15_sparsectrl_rgb.ckpt"
    torch.save({"controlnet": weights, "epoch": 1}, path)
    return SparseControlModel.from_single_file(path, norm_num_groups=16), tensors


def inputs_of(tensors: dict[str, Tensor]) -> list[Tensor]:
    condition = torch.cat([tensors["inputs/controlnet_cond"], tensors["inputs/conditioning_mask"]], dim=1)
    return [*(tensors[f"inputs/{name}"] for name in ("sample", "timestep", "encoder_hidden_states")), condition]


def error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def recorded_unet(golden: Any, folder: Path) -> UNet3DConditionModel:
    tensors, meta = golden("animatediff_unet_v2_small")
    weights = {k.removeprefix("weights/"): v for k, v in tensors.items() if k.startswith("weights/")}
    save_file({k: v for k, v in weights.items() if "motion_modules." in k}, folder / "mm.safetensors")
    unet = UNet3DConditionModel(**{name: meta["config"][name] for name in UNET_SETTINGS})
    unet.load_state_dict({k: v.float() for k, v in weights.items() if "motion_modules." not in k}, strict=True)
    unet.set_motion_adapter(MotionAdapter.from_single_file(folder / "mm.safetensors", variant="animatediff-v2"))
    return unet.eval()


def test_residuals_equal_the_original(original: tuple[SparseControlModel, dict[str, Tensor]]) -> None:
    model, tensors = original

    with torch.no_grad():
        found = model(*inputs_of(tensors), conditioning_scale=0.8)

    assert model.kind == "rgb"
    assert len(found.down_block_residuals) == 12
    for index, residual in enumerate(found.down_block_residuals):
        assert error(residual, tensors[f"outputs/down_residual.{index}"]) <= 1e-4, index
    assert error(found.mid_block_residual, tensors["outputs/mid_residual"]) <= 1e-4


def test_residuals_with_gradients_equal_the_original(original: tuple[SparseControlModel, dict[str, Tensor]]) -> None:
    model, tensors = original

    found = model(*inputs_of(tensors), conditioning_scale=0.8)

    assert error(found.mid_block_residual.detach(), tensors["outputs/mid_residual"]) <= 1e-4


def test_diffusers_norm_scope_gives_other_numbers(original: tuple[SparseControlModel, dict[str, Tensor]]) -> None:
    model, tensors = original
    model.set_numerics("diffusers")

    with torch.no_grad():
        found = model(*inputs_of(tensors), conditioning_scale=0.8)

    assert error(found.mid_block_residual, tensors["outputs/mid_residual"]) > 1e-2


def test_unet_with_residuals_equals_the_original(
    original: tuple[SparseControlModel, dict[str, Tensor]], golden: Any, tmp_path: Path
) -> None:
    model, tensors = original
    unet = recorded_unet(golden, tmp_path)
    arguments = inputs_of(tensors)

    with torch.no_grad():
        added = model(*arguments, conditioning_scale=0.8)
        found = unet(*arguments[:3], added.down_block_residuals, added.mid_block_residual).sample

    assert error(found, tensors["outputs/unet_sample"]) <= 1e-5


def test_denoising_with_keyframes_equals_the_original(
    original: tuple[SparseControlModel, dict[str, Tensor]], golden: Any, tmp_path: Path
) -> None:
    control, _ = original
    tensors, meta = golden("animatediff_pipeline_small")
    unet = recorded_unet(golden, tmp_path)
    condition = torch.zeros(1, 5, *tensors["inputs/latents"].shape[2:])
    frames = meta["config"]["controlnet_image_index"]
    condition[:, :4, frames] = tensors["inputs/controlnet_images"]
    condition[:, 4, frames] = 1
    after = []

    def predict(latents: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        added = control(latents, timestep, text, condition)
        return unet(latents, timestep, text, added.down_block_residuals, added.mid_block_residual).sample

    def keep(report: StepReport) -> None:
        after.append(report.latents)

    scheduler = make_scheduler("ddim")
    scheduler.set_timesteps(meta["config"]["num_inference_steps"])
    positive = {"text": tensors["inputs/text_embeddings"]}
    negative = {"text": tensors["inputs/negative_text_embeddings"]}
    guidance = Guidance(predict, positive, negative, meta["config"]["guidance_scale"])
    with torch.no_grad():
        denoise(guidance, scheduler, tensors["inputs/latents"], scheduler.timesteps, keep)

    assert error(torch.stack(after), tensors["outputs/sparsectrl/latents_after_each_step"]) <= 1e-3


@pytest.mark.parametrize("kind", ["rgb", "scribble"])
def test_full_size_names_and_shapes(golden: Any, kind: str) -> None:
    _, manifest = golden(f"animatediff_sparsectrl_{MANIFESTS[kind]}_condition_manifest")
    with torch.device("meta"):
        found = {f"module.{key}": torch.empty(shape) for key, shape in manifest["keys"].items()}
        published = describe_control_file(found, "file", num_heads=8)
        model = SparseControlModel(**published.settings)
        model.set_motion_adapter(MotionAdapter(published.modules))

    assert model.kind == kind
    own = {key: value.shape for key, value in model.state_dict().items()}
    assert own == {key: value.shape for key, value in published.state.items()}
    assert len(own) == manifest["n_keys"]
    assert sum(p.numel() for p in model.parameters()) == manifest["n_parameters"]
    assert {json.dumps(spec["config"]["attentions_per_block"]) for spec in published.modules.values()} == {"1"}


def diffusers_model(**settings: Any) -> SparseControlNetModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SparseControlNetModel(block_out_channels=(32, 32, 64, 64), cross_attention_dim=32, **settings)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    assert any(isinstance(module, SinusoidalPositionalEmbedding) for module in model.modules())
    return model.eval()


KINDS: dict[str, dict[str, Any]] = {
    "rgb": {},
    "scribble": {"conditioning_channels": 3, "use_simplified_condition_embedding": False},
}


@pytest.mark.parametrize("layout", ["folder", "file"])
@pytest.mark.parametrize("kind", ["rgb", "scribble"])
def test_equals_diffusers(kind: str, layout: str, tmp_path: Path) -> None:
    # A file does not tell the number of groups, a folder does.
    reference = diffusers_model(**KINDS[kind], norm_num_groups=16 if layout == "folder" else 32)
    reference.save_pretrained(tmp_path)
    if layout == "folder":
        ours = SparseControlModel.from_pretrained(tmp_path)
        assert ours.numerics == "diffusers"
    else:
        path = tmp_path / "diffusion_pytorch_model.safetensors"
        ours = SparseControlModel.from_single_file(path, numerics="diffusers")
    assert not ours.training
    generator = torch.Generator().manual_seed(1)
    sample = torch.randn(2, 4, 5, 8, 16, generator=generator)
    text = torch.randn(2, 7, 32, generator=generator)
    scale = 1 if kind == "rgb" else 8
    shown = torch.randn(1, 4 if kind == "rgb" else 3, 5, 8 * scale, 16 * scale, generator=generator)
    mask = torch.zeros(1, 1, 5, 8 * scale, 16 * scale)
    mask[:, :, [0, 3]] = 1
    shown = shown * mask

    with torch.no_grad():
        expected: Any = reference(
            sample,
            torch.tensor(500),
            text.repeat_interleave(5, dim=0),  # diffusers wants the text states repeated for every frame
            shown,
            conditioning_mask=mask,
            conditioning_scale=0.7,
            guess_mode=True,
        )
        condition = torch.cat([shown, mask], dim=1)
        found = ours(sample, torch.tensor(500), text, condition, conditioning_scale=0.7, guess_mode=True)

    assert len(found.down_block_residuals) == len(expected.down_block_res_samples)
    for one, other in zip(found.down_block_residuals, expected.down_block_res_samples, strict=True):
        assert error(one.transpose(1, 2).flatten(0, 1), other) <= 1e-4
    assert error(found.mid_block_residual.transpose(1, 2).flatten(0, 1), expected.mid_block_res_sample) <= 1e-4
