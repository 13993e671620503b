"""Image prompts beside diffusers' IP-Adapter, on the same random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModelWithProjection

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.backbones.unet.image_prompt import attach_image_attentions
from muybridge.checkpoints.image_prompt_files import ImagePromptAdapter, read_image_prompt_adapter
from muybridge.conditioning.image_tokens import encode_image_prompt

TEXT, PROJECTED, HIDDEN, RESAMPLED = 16, 24, 32, 128
ATTENTION_WIDTHS = (32, 64, 64, 64, 32, 32, 64)  # down, up, middle
KINDS = ("plain", "plus", "full")
Parts = dict[str, dict[str, Tensor]]


def make_unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    model = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=TEXT,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


def make_encoder() -> CLIPVisionModelWithProjection:
    torch.manual_seed(1)
    config = CLIPVisionConfig(
        hidden_size=HIDDEN,
        intermediate_size=48,
        projection_dim=PROJECTED,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=16,
        patch_size=8,
    )
    return CLIPVisionModelWithProjection(config).eval()


def projection_shapes(kind: str) -> dict[str, tuple[int, ...]]:
    if kind == "plain":
        return {"proj.weight": (4 * TEXT, PROJECTED), "proj.bias": (4 * TEXT,), **norm("norm", TEXT)}
    if kind == "full":
        return {
            "proj.0.weight": (HIDDEN, HIDDEN),
            "proj.0.bias": (HIDDEN,),
            "proj.2.weight": (TEXT, HIDDEN),
            "proj.2.bias": (TEXT,),
            **norm("proj.3", TEXT),
        }
    shapes: dict[str, tuple[int, ...]] = {
        "latents": (1, 3, RESAMPLED),
        "proj_in.weight": (RESAMPLED, HIDDEN),
        "proj_in.bias": (RESAMPLED,),
        "proj_out.weight": (TEXT, RESAMPLED),
        "proj_out.bias": (TEXT,),
        **norm("norm_out", TEXT),
    }
    for layer in range(4):
        start = f"layers.{layer}"
        shapes |= {**norm(f"{start}.0.norm1", RESAMPLED), **norm(f"{start}.0.norm2", RESAMPLED)}
        shapes |= {f"{start}.0.to_q.weight": (128, RESAMPLED), f"{start}.0.to_kv.weight": (256, RESAMPLED)}
        shapes |= {f"{start}.0.to_out.weight": (RESAMPLED, 128), **norm(f"{start}.1.0", RESAMPLED)}
        shapes |= {f"{start}.1.1.weight": (4 * RESAMPLED, RESAMPLED), f"{start}.1.3.weight": (RESAMPLED, 4 * RESAMPLED)}
    return shapes


def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def make_parts(kind: str) -> Parts:
    generator = torch.Generator().manual_seed(2)
    shapes = {
        f"{1 + 2 * index}.to_{name}_ip.weight": (width, TEXT)
        for index, width in enumerate(ATTENTION_WIDTHS)
        for name in "kv"
    }
    return {
        "image_proj": {k: torch.randn(s, generator=generator) * 0.3 for k, s in projection_shapes(kind).items()},
        "ip_adapter": {k: torch.randn(s, generator=generator) * 0.3 for k, s in shapes.items()},
    }


def save(parts: Parts, folder: Path, suffix: str = ".safetensors") -> Path:
    path = folder / f"ip-adapter{suffix}"
    if suffix == ".safetensors":
        save_file({f"{part}.{key}": value for part, own in parts.items() for key, value in own.items()}, path)
    else:
        torch.save(parts, path)
    return path


def load(kind: str, folder: Path, suffix: str = ".safetensors") -> tuple[UNet2DConditionModel, Any, ImagePromptAdapter]:
    """Diffusers' U-Net and ours, both with the adapter, and what was read of its file."""
    ours = UNet3DConditionModel.from_unet2d(make_unet())
    adapter = read_image_prompt_adapter(save(make_parts(kind), folder, suffix), ours)
    attach_image_attentions(ours, adapter.attentions)
    reference: Any = make_unet()
    reference._load_ip_adapter_weights([make_parts(kind)])
    return reference.eval(), ours, adapter


def set_strength(reference: Any, strength: float) -> None:
    for processor in reference.attn_processors.values():
        if hasattr(processor, "scale"):
            processor.scale = [strength]


def features_of(kind: str, pictures: int) -> Tensor:
    shape = (2, pictures, PROJECTED) if kind == "plain" else (2, pictures, 5, HIDDEN)
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def frame_by_frame(reference: Any, sample: Tensor, text: Tensor, features: Tensor) -> Tensor:
    frames = []
    with torch.no_grad():
        for i in range(sample.shape[2]):
            own = text if text.ndim == 3 else text[:, i]
            given = {"image_embeds": [features]}
            frames.append(reference(sample[:, :, i], 500, own, added_cond_kwargs=given).sample)
    return torch.stack(frames, dim=2)


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found.detach() - expected).abs().max() / expected.abs().max())


def inputs(per_frame: bool = False) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    shape = (2, 3, 5, TEXT) if per_frame else (2, 5, TEXT)
    return torch.randn(2, 4, 3, 8, 8, generator=generator), torch.randn(shape, generator=generator)


@pytest.mark.parametrize("per_frame", [False, True], ids=["one text", "a text for each frame"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_unet_equals_diffusers_on_every_frame(tmp_path: Path, kind: str, per_frame: bool) -> None:
    reference, unet, adapter = load(kind, tmp_path)
    set_strength(reference, 0.7)
    sample, text = inputs(per_frame)
    features = features_of(kind, 1)
    with torch.no_grad():
        tokens = adapter.projection(features[:, 0])
        found = unet(sample, 500, text, image_prompt=tokens, image_prompt_strength=0.7).sample
        alone = unet(sample, 500, text).sample
    expected = frame_by_frame(reference, sample, text, features)
    assert relative_error(found, expected) <= 1e-4
    assert relative_error(alone, expected) > 1e-2


def test_several_pictures_equal_diffusers_in_a_pickle_under_gradient_checkpointing(tmp_path: Path) -> None:
    reference, unet, adapter = load("plain", tmp_path, ".bin")
    sample, text = inputs()
    features = features_of("plain", 2)
    tokens = adapter.projection(features.flatten(0, 1)).unflatten(0, (2, 2)).flatten(1, 2)
    unet.train()
    unet.enable_gradient_checkpointing()
    found = unet(sample.requires_grad_(), 500, text, image_prompt=tokens).sample
    found.sum().backward()
    assert sample.grad is not None
    assert relative_error(found, frame_by_frame(reference, sample.detach(), text, features)) <= 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_become_the_tokens_of_diffusers(
    tmp_path: Path, kind: str, make_picture: Callable[[int], Image.Image]
) -> None:
    _, _, adapter = load(kind, tmp_path)
    encoder = make_encoder()
    processor = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    parts: dict[str, Any] = {
        **dict.fromkeys(("vae", "text_encoder", "tokenizer", "safety_checker")),
        "unet": make_unet(),
        "scheduler": DDIMScheduler(steps_offset=1, clip_sample=False),
        "feature_extractor": processor,
        "image_encoder": encoder,
    }
    reference: Any = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    reference.load_ip_adapter([make_parts(kind)], subfolder="", weight_name="")
    pictures = [make_picture(0), make_picture(1)]
    with torch.no_grad():
        found = encode_image_prompt(adapter, processor, encoder, pictures, guided=True)
        features = reference.prepare_ip_adapter_image_embeds([pictures], None, "cpu", 1, True)
        (tokens,) = reference.unet.encoder_hid_proj(features)
    negative, positive = tokens.flatten(1, 2).chunk(2)
    assert found.negative is not None
    assert torch.allclose(found.positive, positive, atol=1e-5)
    assert torch.allclose(found.negative, negative, atol=1e-5)
    assert not torch.allclose(positive, negative, atol=1e-2)


@pytest.fixture
def make_picture() -> Callable[[int], Image.Image]:
    """A maker: seed -> a picture that is not square."""

    def make(seed: int) -> Image.Image:
        pixels = torch.randint(0, 256, (20, 30, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
        return Image.fromarray(pixels.numpy())

    return make
