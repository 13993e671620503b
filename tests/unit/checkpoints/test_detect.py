"""What a file is, from keys and shapes alone; its name only chooses where these cannot."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

from muybridge.checkpoints.detect import detect_weights
from muybridge.checkpoints.motion_export import diffusers_weights, original_weights
from muybridge.errors import ConfigError
from muybridge.motion import MotionAdapter
from muybridge.motion.variants import VARIANTS, motion_variant

AdapterMaker = Callable[..., MotionAdapter]


def empty(*shapes: tuple[str, tuple[int, ...]]) -> dict[str, Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes}


def on_meta(state: Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return {key: torch.empty(value.shape, device="meta", dtype=dtype) for key, value in state.items()}


def without_tables(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if not key.endswith(".pe")}


@pytest.mark.parametrize(
    ("levels", "mid", "frames", "name", "variant", "decided_by"),
    [
        (4, False, 24, "x.ckpt", "animatediff-v1", "keys and shapes"),
        (4, False, 16, "x.ckpt", "animatediff-v1", "keys and shapes"),
        (4, False, 32, "x.ckpt", "animatediff-v3", "keys and shapes"),
        (4, False, 32, "mm_sd_v15.ckpt", "animatediff-v3", "keys and shapes"),
        (4, True, 32, "x.ckpt", "animatediff-v2", "guess"),
        (4, True, 32, "mm_sd_v15_v2.ckpt", "animatediff-v2", "file name"),
        (4, True, 32, "animatediff_lightning_4step_comfyui.safetensors", "lightning", "file name"),
        (4, True, 32, "AnimateLCM_sd15_t2v.ckpt", "animatelcm", "file name"),
        (4, True, None, "x.ckpt", "animatelcm", "guess"),
        (4, True, None, "mm_sd_v15_v2.ckpt", "animatediff-v2", "file name"),
        (4, False, None, "x.ckpt", "animatediff-v3", "guess"),
        (4, False, None, "mm_sd_v15.ckpt", "animatediff-v1", "file name"),
        (4, False, None, "mm_sd_v14.ckpt", "animatediff-v1", "file name"),
        (4, False, None, "v3_sd15_mm.ckpt", "animatediff-v3", "file name"),
        (3, False, 32, "lightning.ckpt", "animatediff-sdxl", "keys and shapes"),
    ],
)
def test_motion_files_of_the_original(
    make_adapter: AdapterMaker, levels: int, mid: bool, frames: int | None, name: str, variant: str, decided_by: str
) -> None:
    state = on_meta(original_weights(make_adapter(levels, mid, frames or 32)))
    found = detect_weights(without_tables(state) if frames is None else state, name)
    assert (found.kind, found.variant, found.layout) == ("motion-module", variant, "original")
    assert found.decided_by == decided_by
    assert found.candidates[0] == variant
    assert (len(found.candidates) == 1) == (decided_by == "keys and shapes")


@pytest.mark.parametrize(
    ("dtype", "name", "variant"),
    [
        (torch.float16, "unknown.safetensors", "lightning"),
        (torch.float32, "unknown.safetensors", "animatediff-v2"),
        (torch.float16, "animatediff-motion-adapter-v1-5-2", "animatediff-v2"),
        (torch.float16, "diffusion_pytorch_model.fp16.safetensors", "animatediff-v2"),
        (torch.float16, "AnimateLCM", "animatelcm"),
    ],
)
def test_motion_files_in_the_names_of_diffusers(
    make_adapter: AdapterMaker, dtype: torch.dtype, name: str, variant: str
) -> None:
    found = detect_weights(on_meta(diffusers_weights(make_adapter(mid=True)), dtype), name)
    assert (found.variant, found.layout) == (variant, "diffusers")
    assert set(found.candidates) == {"animatediff-v2", "animatelcm", "lightning"}


def test_a_checkpoint_of_the_originals_training(make_adapter: AdapterMaker) -> None:
    state = on_meta(original_weights(make_adapter(mid=True))) | empty(("conv_in.weight", (320, 4, 3, 3)))
    found = detect_weights({f"module.{key}": value for key, value in state.items()}, "checkpoint.ckpt")
    assert (found.kind, found.variant, found.decided_by) == ("motion-module", "animatediff-v2", "keys and shapes")
    assert any("whole U-Net" in note for note in found.notes)


def test_notes_tell_tables_and_widths(make_adapter: AdapterMaker) -> None:
    state = on_meta(original_weights(make_adapter()))
    assert "position tables of 32 frames" in detect_weights(state).notes
    assert "no position tables" in detect_weights(without_tables(state)).notes
    assert any("no published model" in note for note in detect_weights(state).notes)
    full = empty(*((f"down_blocks.{i}.motion_modules.0.norm.weight", (w,)) for i, w in enumerate((320, 640, 1280))))
    assert not any("no published model" in note for note in detect_weights(full).notes)


UP = "down_blocks.0.attentions.0.transformer_blocks.0.attn1."
MOTION = "down_blocks.0.motion_modules.0."
WRAPPED = MOTION + "temporal_transformer."


@pytest.mark.parametrize(
    ("keys", "kind", "variant"),
    [
        (
            [
                (
                    MOTION
                    + "temporal_transformer.transformer_blocks.0.attention_blocks.0.processor.to_q_lora.up.weight",
                    64,
                )
            ],
            "lora",
            "motion-lora",
        ),
        ([("unet." + MOTION + "transformer_blocks.0.attn1.to_q.lora_A.weight", 64)], "lora", "motion-lora"),
        ([(UP + "processor.to_q_lora.down.weight", 128)], "lora", "domain-adapter"),
        ([(UP + "processor.to_q_lora.down.weight", 4)], "lora", "diffusers-lora"),
        ([("unet." + UP + "to_q.lora_A.weight", 4)], "lora", "diffusers-lora"),
        ([("lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", 4)], "lora", "kohya-lora"),
        ([("lora_te_text_model_encoder_layers_0_mlp_fc1.alpha", 1)], "lora", "kohya-lora"),
        ([("lora_unet__transformer_blocks_0_attn1_to_q.lora_down.weight", 128)], "lora", "easyanimate-lora"),
        ([("controlnet_cond_embedding.weight", 320)], "sparse-control", "sparsectrl-rgb"),
        (
            [("controlnet_cond_embedding.conv_in.weight", 16), (WRAPPED + "norm.weight", 320)],
            "sparse-control",
            "sparsectrl-scribble",
        ),
        ([("controlnet_cond_embedding.conv_in.weight", 16)], "control", "controlnet"),
        (
            [("transformer_blocks.0.attn_temporal.temporal_transformer.norm.weight", 1152)],
            "transformer",
            "easyanimate-transformer",
        ),
        ([("encoder.down_blocks.0.convs.0.norm1.weight", 128)], "vae", "easyanimate-vae"),
        ([("encoder.conv_in.weight", 128), ("quant_conv.weight", 8)], "vae", "image-vae"),
        ([("conv_in.weight", 320), ("down_blocks.0.resnets.0.norm1.weight", 320)], "base-model", "base-sd15"),
        (
            [
                ("conv_in.weight", 320),
                ("down_blocks.0.resnets.0.norm1.weight", 320),
                ("add_embedding.linear_1.weight", 1280),
            ],
            "base-model",
            "base-sdxl",
        ),
        ([("model.diffusion_model.input_blocks.0.0.weight", 320)], "base-model", "base-sd15"),
        ([("model.diffusion_model.label_emb.0.0.weight", 1280)], "base-model", "base-sdxl"),
        (
            [
                ("model.diffusion_model.input_blocks.0.0.weight", 320),
                ("cond_stage_model.model.token_embedding.weight", 4),
            ],
            "base-model",
            "base-sd2",
        ),
        ([("something.else", 4)], "unknown", "unknown"),
    ],
)
def test_everything_else(keys: list[tuple[str, int]], kind: str, variant: str) -> None:
    found = detect_weights(empty(*((name, (width, 1000)) for name, width in keys)))
    assert (found.kind, found.variant) == (kind, variant)


PROJECTIONS: dict[str, tuple[tuple[str, tuple[int, ...]], ...]] = {
    "": (("proj.weight", (3072, 1024)), ("norm.weight", (768,))),
    "-plus": (("latents", (1, 16, 768)), ("proj_in.weight", (768, 1280))),
    "-full": (("proj.0.weight", (1280, 1280)), ("proj.3.weight", (768,))),
}


@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize(("base", "count", "width"), [("-sd15", 16, 768), ("-sdxl", 70, 2048), ("", 7, 16)])
def test_image_prompt_adapters(projection: str, base: str, count: int, width: int) -> None:
    state = empty(
        *((f"image_proj.{name}", shape) for name, shape in PROJECTIONS[projection]),
        *((f"ip_adapter.{2 * i + 1}.to_{n}_ip.weight", (320, width)) for i in range(count) for n in "kv"),
    )
    found = detect_weights(state)
    assert (found.kind, found.variant) == ("ip-adapter", f"ip-adapter{projection}{base}")
    assert re.search(
        {"": "4 tokens.* 1024", "-plus": "16 tokens.* 1280", "-full": "each .*1280"}[projection], found.notes[0]
    )
    assert any("no published model" in note for note in found.notes) == (not base)
    faces = detect_weights(state | empty(("ip_adapter.1.to_q_lora.down.weight", (4, 320))))
    assert faces.variant == f"ip-adapter-faceid{base}"
    assert "not supported" in faces.notes[0]


@pytest.mark.parametrize(
    "odd",
    [
        {"latents": (16,), "proj_in.weight": (4, 8)},
        {"latents": (), "proj_in.weight": (4,)},
        {"proj.weight": (8, 4), "norm.weight": (0,)},
        {"proj.weight": (8,), "norm.weight": ()},
        {"proj.0.weight": (4,), "proj.3.weight": (4,)},
    ],
)
def test_damaged_image_prompt_adapters(odd: dict[str, tuple[int, ...]]) -> None:
    image = empty(*((f"image_proj.{name}", shape) for name, shape in odd.items()))
    found = detect_weights(image | empty(("ip_adapter.1.to_k_ip.weight", ())))
    assert (found.kind, found.variant) == ("ip-adapter", "ip-adapter-other")
    assert "not supported" in found.notes[0]
    assert found.notes[1] == "0 text attentions, as no published model has them"


def test_a_domain_adapter_by_its_name() -> None:
    state = empty((UP + "processor.to_q_lora.down.weight", (4, 320)))
    found = detect_weights(state, "my_adapter.ckpt")
    assert (found.variant, found.decided_by) == ("domain-adapter", "file name")
    assert found.candidates == ("domain-adapter", "diffusers-lora")


def test_what_a_single_file_holds() -> None:
    state = empty(("model.diffusion_model.input_blocks.0.0.weight", (320, 9, 3, 3)), ("first_stage_model.x", (1,)))
    notes = " | ".join(detect_weights(state).notes)
    assert re.search(r"holds the VAE.*holds no text encoder.*inpainting", notes)
    averaged = detect_weights(state | empty(("model_ema.x", (1,)))).notes
    assert any("EMA" in note for note in averaged)


def test_settings_of_the_variants() -> None:
    assert motion_variant("lightning", "animatediff_lightning_2step_comfyui.safetensors").steps == 2
    assert motion_variant("lightning").settings() == {
        "numerics": "official-v2",
        "scheduler": "euler",
        "beta_schedule": "linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "timestep_spacing": "trailing",
        "num_inference_steps": 4,
        "guidance_scale": 1.0,
        "num_frames": 16,
    }
    sdxl = motion_variant("animatediff-sdxl").settings()
    assert (sdxl["beta_schedule"], sdxl["beta_end"], sdxl["numerics"]) == ("scaled_linear", 0.02, "diffusers")
    assert motion_variant("animatediff-v1").steps == motion_variant("animatediff-v1", "a_4step.ckpt").steps == 25
    with pytest.raises(ConfigError, match=f"Unknown motion variant 'x'. Known: {', '.join(VARIANTS)}"):
        motion_variant("x")
