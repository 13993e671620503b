"""Training a LoRA: it learns, and nothing else does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from muybridge.backbones.dit import Transformer3DModel
from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.checkpoints.lora import AttachedLoras, adaptable_layers, match_lora, read_lora
from muybridge.errors import ConfigError
from muybridge.motion import HybridConfig, MotionAdapter, TemporalConfig
from muybridge.pipelines.animatediff.family import TRAINING as ANIMATEDIFF
from muybridge.pipelines.easyanimate.family import TRAINING as EASYANIMATE
from muybridge.pipelines.family import LoraTargets
from muybridge.training.methods.adapters import MotionMethod
from muybridge.training.methods.denoise import (
    DenoisingMethod,
    DiffusionObjective,
    ImageDiffusionMethod,
    TrainedNetworks,
)
from muybridge.training.methods.lora import LORA_LAYERS, DiffusionMethod, LoraMethod, LoraParts, LoraShape
from muybridge.vae import AutoencoderKLMagvit

OBJECTIVE = DiffusionObjective(DDIMScheduler(prediction_type="v_prediction", clip_sample=False))


@pytest.fixture(autouse=True)
def _same_weights() -> None:
    torch.manual_seed(0)


def image_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=4,
    )


def image_parts() -> tuple[CLIPTextModel, AutoencoderKL]:
    text = CLIPTextConfig(
        vocab_size=12,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=0,
        eos_token_id=1,
    )
    settings: dict[str, Any] = {
        "block_out_channels": (8,),
        "down_block_types": ("DownEncoderBlock2D",),
        "up_block_types": ("UpDecoderBlock2D",),
        "norm_num_groups": 4,
    }
    return CLIPTextModel(text), AutoencoderKL(**settings)


def small_method(kind: str) -> tuple[DiffusionMethod, dict[str, Tensor]]:
    ids, mask = torch.tensor([[0, 3, 4, 1]] * 2), torch.ones(2, 4)
    if kind == "image":
        batch = {"pixels": torch.rand(2, 3, 8, 8) * 2 - 1, "input_ids": ids}
        return ImageDiffusionMethod(image_unet(), *image_parts(), OBJECTIVE), batch
    pixels = torch.rand(2, 4, 3, 8, 8) * 2 - 1
    if kind == "motion":
        unet = UNet3DConditionModel.from_unet2d(image_unet())
        adapter = MotionAdapter.for_sites(unet.motion_sites().values(), config=TemporalConfig(num_heads=4))
        for _, module in adapter.motion_modules():
            nn.init.normal_(module.get_parameter("proj_out.weight"), std=0.1)
        unet.set_motion_adapter(adapter)
        batch = {"pixels": pixels, "input_ids": ids, "frame_positions": torch.arange(4.0)}
        return MotionMethod(TrainedNetworks(unet, *image_parts()), OBJECTIVE, ANIMATEDIFF), batch
    transformer = Transformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        out_channels=4,
        num_layers=4,
        sample_size=4,
        caption_channels=16,
        clip_channels=None,
    )
    config = HybridConfig(num_heads=2, trained_frames=4)
    adapter = MotionAdapter.for_sites(transformer.motion_sites().values(), "hybrid", config)
    transformer.set_motion_adapter(adapter)
    for parameter in transformer.parameters():
        nn.init.normal_(parameter, std=0.1)
    text = T5EncoderModel(T5Config(vocab_size=12, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2))
    vae = AutoencoderKLMagvit(
        down_block_types=("SpatialTemporalDownBlock3D",) * 3,
        up_block_types=("SpatialTemporalUpBlock3D",) * 3,
        block_out_channels=(4, 4, 8),
        layers_per_block=1,
        norm_num_groups=2,
        slice_compression_vae=True,
    )
    batch = {
        "pixels": torch.rand(2, 8, 3, 16, 16) * 2 - 1,
        "input_ids": ids,
        "attention_mask": mask,
        "unknown": torch.ones(2, 8, dtype=torch.bool),
    }
    return DenoisingMethod(TrainedNetworks(transformer, text, vae), OBJECTIVE, EASYANIMATE), batch


@pytest.mark.parametrize(
    ("kind", "layers"), [("image", "spatial"), ("motion", "motion"), ("motion", "spatial"), ("video", "linear")]
)
def test_the_loss_falls_and_nothing_else_changes(kind: str, layers: str, tmp_path: Path) -> None:
    method, batch = small_method(kind)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    targets = LoraTargets("transformer" if kind == "video" else "unet")
    trained = LoraMethod(method, layers, LoraShape(rank=4), targets).train()
    learning = {name: p for name, p in trained.named_parameters() if p.requires_grad}
    assert learning
    assert all("lora_" in name for name in learning)
    optimizer = torch.optim.AdamW(learning.values(), lr=1e-2)

    def step(update: bool) -> float:
        loss = trained(batch, torch.Generator().manual_seed(1))["loss"]
        if update:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return float(loss.detach())

    with torch.no_grad():
        plain = float(method(batch, torch.Generator().manual_seed(1))["loss"])
    first = step(update=True)
    assert first == pytest.approx(plain, rel=1e-5)
    for _ in range(8):
        step(update=True)
    assert step(update=False) < 0.98 * first
    assert all(not torch.equal(p, torch.zeros_like(p)) for p in learning.values())

    path = trained.save(tmp_path / "trained.safetensors")
    with torch.no_grad():
        final = step(update=False)
    trained.remove()
    after = method.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)

    network = method.backbone
    attached = AttachedLoras(network)
    attached.attach("again", match_lora(path, read_lora(path), {"backbone": network}, "kohya")["backbone"])
    attached.weigh({"again": 1.0})
    with torch.no_grad():
        assert float(method(batch, torch.Generator().manual_seed(1))["loss"]) == pytest.approx(final, rel=1e-6)


def test_a_lora_trained_on_pictures_fits_the_video_model(tmp_path: Path) -> None:
    method, _ = small_method("image")
    path = LoraMethod(method, shape=LoraShape(rank=2)).save(tmp_path / "a.safetensors", "kohya")
    assert isinstance(method, ImageDiffusionMethod)
    video = UNet3DConditionModel.from_unet2d(image_unet())
    found = match_lora(path, read_lora(path), {"backbone": video}, "kohya")["backbone"]
    assert len(found) == 32
    assert {change.alpha for change in found.values()} == {1.0}


def test_which_layers_learn() -> None:
    method, _ = small_method("motion")
    assert isinstance(method, MotionMethod)
    everything = {n for n, layer in adaptable_layers(method.backbone).items() if layer.weight.shape[2:] in ((), (1, 1))}
    chosen: dict[str, set[str]] = {}
    for layers in LORA_LAYERS:
        trained = LoraMethod(method, layers, LoraShape(rank=1))
        chosen[layers] = set(trained.changes()["backbone"])
        trained.remove()
    assert chosen["linear"] == everything
    assert not chosen["motion"] & chosen["spatial"]
    assert all(("motion_modules" in name) for name in chosen["motion"])
    sites = len(method.backbone.motion_sites())
    assert len(chosen["motion"]) == sites * 2 * 4


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"rank": 0}, "rank of at least 1"),
        ({"alpha": 0.0}, "alpha above 0"),
        ({"alpha": float("inf")}, "alpha above 0"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
    ],
)
def test_shapes_that_are_refused(shape: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LoraShape(**shape)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ("(to_q", r"'\(to_q' is no regular expression .*; use one, or one of motion, spatial, attention, linear"),
        ("nowhere", "matches 'nowhere'; use one of motion, spatial, attention, linear"),
        (LoraParts(text={"text_encoder_2": "attention"}), "has no text_encoder_2"),
        (LoraParts(text={"text_encoder": "(q"}), "one of attention, linear"),
        (LoraParts(backbone=None), "must change something"),
    ],
)
def test_layers_that_are_refused(parts: LoraParts | str, message: str) -> None:
    method, _ = small_method("image")
    with pytest.raises(ConfigError, match=message):
        LoraMethod(method, parts)


@pytest.mark.parametrize("kind", ["motion", "video"])
def test_text_encoders_learn_with_their_own_layers(kind: str, tmp_path: Path) -> None:
    method, batch = small_method(kind)
    parts = LoraParts("spatial", {"text_encoder": "attention"}, {"text_encoder": 0.5})
    trained = LoraMethod(method, parts, LoraShape(rank=2), LoraTargets("transformer" if kind == "video" else "unet"))

    optimizer = torch.optim.AdamW([p for p in trained.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(2):
        trained.train()(batch, torch.Generator().manual_seed(1))["loss"].backward()
        optimizer.step()

    changes = trained.changes()
    assert all(float(change.up.abs().max()) > 0 for part in changes.values() for change in part.values())
    assert len(changes["text_encoder"]) == 4
    (prefix,) = trained.rate_factors
    named = [name for name, p in trained.named_parameters() if p.requires_grad and name.startswith(prefix)]
    assert len(named) == 8
    for dialect in ("diffusers", "kohya"):
        path = trained.save(tmp_path / f"{dialect}.safetensors", dialect)
        networks = {"backbone": method.backbone, "text_encoder": method.text_encoder}
        found = match_lora(path, read_lora(path), networks, "kohya")
        assert found.keys() == {"backbone", "text_encoder"}
        assert all(torch.equal(found[p][n].up, changes[p][n].up) for p in found for n in found[p])


def test_dropout_follows_from_the_step() -> None:
    method, batch = small_method("motion")
    trained = LoraMethod(method, "motion", LoraShape(rank=4, dropout=0.5)).train()
    with torch.no_grad():
        for parameter in trained.parameters():
            if parameter.requires_grad:
                nn.init.normal_(parameter, std=0.3)

    def loss(seed: int) -> float:
        return float(trained(batch, torch.Generator().manual_seed(seed))["loss"].detach())

    first, state = loss(1), torch.get_rng_state()
    torch.rand(3)
    assert loss(1) == first
    assert loss(1) != loss(2)
    torch.set_rng_state(state)
    trained.eval()
    with torch.no_grad():
        assert float(method(batch, torch.Generator().manual_seed(1))["loss"]) == loss(1)


@pytest.mark.parametrize(("dialect", "layers"), [("diffusers", "linear"), ("kohya", "spatial")])
def test_dora_learns_and_comes_back(dialect: Any, layers: str, tmp_path: Path) -> None:
    method, batch = small_method("motion")
    with torch.no_grad():
        plain = float(method(batch, torch.Generator().manual_seed(1))["loss"])
    trained = LoraMethod(method, layers, LoraShape(rank=4, dora=True)).train()
    optimizer = torch.optim.AdamW([p for p in trained.parameters() if p.requires_grad], lr=1e-2)
    for step in range(2):
        loss = trained(batch, torch.Generator().manual_seed(1))["loss"]
        assert step or float(loss.detach()) == pytest.approx(plain, rel=1e-5), "it changes nothing at first"
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        final = float(trained(batch, torch.Generator().manual_seed(1))["loss"])
    path = trained.save(tmp_path / "dora.safetensors", dialect)
    trained.remove()

    attached = AttachedLoras(method.backbone)
    attached.attach("again", match_lora(path, read_lora(path), {"backbone": method.backbone}, "kohya")["backbone"])
    attached.weigh({"again": 1.0})
    with torch.no_grad():
        assert float(method(batch, torch.Generator().manual_seed(1))["loss"]) == pytest.approx(final, rel=1e-6)
        attached.fuse()
        assert float(method(batch, torch.Generator().manual_seed(1))["loss"]) == pytest.approx(final, rel=1e-5)
    assert final != pytest.approx(plain, rel=1e-4)


def test_animatediffs_layout_has_no_alphas(tmp_path: Path) -> None:
    method, _ = small_method("motion")
    trained = LoraMethod(method, "motion", LoraShape(rank=4, alpha=1.0))
    with torch.no_grad():
        for parameter in trained.parameters():
            if parameter.requires_grad:
                nn.init.normal_(parameter)
    path = trained.save(tmp_path / "motion.safetensors", "original")

    keys = {key for key in load_file(path) if "to_out" in key}
    site = next(iter(dict(method.backbone.motion_sites())))
    block = f"{site}.temporal_transformer.transformer_blocks.0.attention_blocks"
    assert f"{block}.0.processor.to_out_lora.down.weight" in keys
    wanted = trained.changes()["backbone"]
    found = match_lora(path, read_lora(path), {"backbone": method.backbone}, "official")["backbone"]
    assert found.keys() == wanted.keys()
    for name, change in wanted.items():
        again = found[name]
        assert again.alpha == again.rank
        torch.testing.assert_close(again.up @ again.down, change.up @ change.down / 4)

    with pytest.raises(ConfigError, match="plain LoRAs of attentions in a U-Net only"):
        LoraMethod(small_method("motion")[0], "linear").save(tmp_path / "no.safetensors", "original")
