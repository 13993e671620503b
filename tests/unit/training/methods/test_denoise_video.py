"""What the training methods of the video transformer optimise, and what they leave alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn
from transformers import T5Config, T5EncoderModel

from muybridge.backbones.dit import Transformer3DModel
from muybridge.errors import ConfigError
from muybridge.motion import HybridConfig, MotionAdapter
from muybridge.pipelines.easyanimate.family import TRAINING
from muybridge.training.methods.denoise import DenoisingMethod, TrainedNetworks
from muybridge.training.objective.diffusion import DiffusionObjective
from muybridge.training.objective.settings import ObjectiveSettings
from muybridge.vae import AutoencoderKLMagvit
from muybridge.vae.magvit.batches import encode_given, encode_videos


@pytest.fixture(autouse=True)
def _same_weights() -> None:
    torch.manual_seed(0)


def small_vae(scaling_factor: float = 0.5, widths: tuple[int, ...] = (4, 4, 8)) -> AutoencoderKLMagvit:
    return AutoencoderKLMagvit(
        down_block_types=("SpatialTemporalDownBlock3D",) * 3,
        up_block_types=("SpatialTemporalUpBlock3D",) * 3,
        block_out_channels=widths,
        layers_per_block=1,
        norm_num_groups=2,
        slice_compression_vae=True,
        scaling_factor=scaling_factor,
    )


def small_transformer(**changes: Any) -> Transformer3DModel:
    settings: dict[str, Any] = {
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "out_channels": 4,
        "num_layers": 4,
        "sample_size": 4,
        "caption_channels": 16,
        "clip_channels": None,
    }
    transformer = Transformer3DModel(**{**settings, **changes})
    config = HybridConfig(num_heads=2, trained_frames=4)
    transformer.set_motion_adapter(MotionAdapter.for_sites(transformer.motion_sites().values(), "hybrid", config))
    return transformer


def small_text_encoder() -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(vocab_size=12, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, dropout_rate=0.0)
    )


def small_method(**changes: Any) -> DenoisingMethod:
    objective = DiffusionObjective(DDIMScheduler(prediction_type="v_prediction", clip_sample=False))
    return DenoisingMethod(
        TrainedNetworks(small_transformer(**changes), small_text_encoder(), small_vae()), objective, TRAINING
    )


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch_of(num_frames: int, count: int = 2) -> dict[str, Tensor]:
    unknown = torch.ones(count, num_frames, dtype=torch.bool)
    if num_frames > 1:
        unknown[0, :3] = False
    return {
        "pixels": torch.rand(count, num_frames, 3, 16, 16, generator=generator()) * 2 - 1,
        "input_ids": torch.randint(2, 12, (count, 6), generator=generator()),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 0, 0]]).repeat(count, 1),
        "unknown": unknown,
    }


def train(method: nn.Module, batch: dict[str, Tensor], steps: int) -> None:
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=3e-3)
    method.train()
    for step in range(steps):
        optimizer.zero_grad()
        method(batch, generator(step))["loss"].backward()
        optimizer.step()


def test_padding_does_not_change_a_caption():
    method = small_method().eval()
    batch = batch_of(8)
    other = {**batch, "input_ids": batch["input_ids"].clone()}
    other["input_ids"][:, 4:] = 7
    seen = {**other, "attention_mask": torch.ones_like(batch["attention_mask"])}

    losses = [float(method(each, generator())["loss"].detach()) for each in (batch, other, seen)]

    assert losses[0] == losses[1] != losses[2]


def test_latents_are_means_times_the_factor():
    vae: Any = small_vae(scaling_factor=3.0)
    pixels = batch_of(8)["pixels"]
    posterior = vae.encode(pixels.transpose(1, 2)).latent_dist

    assert torch.equal(encode_videos(vae, pixels), posterior.mean * 3.0)


@pytest.mark.parametrize("num_frames", [1, 8, 16])
def test_what_is_given_is_mask_and_masked_video(num_frames):
    vae = small_vae()
    batch = batch_of(num_frames, count=3)
    if num_frames == 16:
        batch["unknown"][1, -2:] = False
    unknown = batch["unknown"][..., None, None, None]

    given = encode_given(vae, batch["pixels"], batch["unknown"])

    mask = encode_videos(vae, unknown.expand_as(batch["pixels"]).float())
    masked = encode_videos(vae, torch.where(unknown, -1.0, batch["pixels"]))
    assert torch.allclose(given, torch.cat((mask, masked), dim=1), atol=1e-5)


def test_what_is_given_reaches_the_transformer():
    method = small_method().eval()
    batch = batch_of(8)
    nothing = {**batch, "unknown": torch.ones_like(batch["unknown"])}

    losses = [float(method(each, generator())["loss"].detach()) for each in (batch, nothing)]

    assert losses[0] != losses[1]


@pytest.mark.parametrize("num_frames", [1, 16])
def test_training_changes_everything_but_the_vae(num_frames):
    method = small_method()
    before = {name: value.clone() for name, value in method.state_dict().items()}

    train(method, batch_of(num_frames), steps=2)

    moved = {name for name, value in method.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[0] for name in moved} == {"backbone", "text_encoder"}
    assert any("attn_temporal" in name for name in moved)
    assert any("attn1" in name for name in moved)
    assert not any(module.training for module in method.vae.modules())
    assert method.backbone.training


def test_the_loss_falls_on_one_batch():
    method = small_method()
    batch = batch_of(8)
    before = float(method(batch, generator())["loss"].detach())

    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(8):
        optimizer.zero_grad()
        method(batch, generator())["loss"].backward()
        optimizer.step()

    assert float(method(batch, generator())["loss"].detach()) < before


@pytest.mark.parametrize("changes", [{"in_channels": 4}, {"out_channels": 6}])
def test_a_transformer_of_other_channels_is_refused(changes):
    with pytest.raises(ConfigError, match="12 input and 4 output channels"):
        small_method(**changes)


def learning_the_variance(out_channels: int) -> DenoisingMethod:
    scheduler = DDIMScheduler(prediction_type="epsilon", clip_sample=False)
    objective = DiffusionObjective(scheduler, ObjectiveSettings(timesteps="logit-normal", learned_range=True))
    networks = TrainedNetworks(small_transformer(out_channels=out_channels), small_text_encoder(), small_vae())
    return DenoisingMethod(networks, objective, TRAINING)


def test_a_transformer_that_gives_the_variance_is_trained_with_it():
    terms = learning_the_variance(8)(batch_of(1), generator())
    assert terms.keys() == {"loss", "mse", "vb"}


def test_a_transformer_without_a_variance_is_refused_before_it_is_trained():
    with pytest.raises(ConfigError, match="learned_range needs a network of 8 output channels"):
        learning_the_variance(4)
