"""What the training methods of the video transformer optimise, and what they leave alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection, T5Config, T5EncoderModel

from muybridge.backbones.dit import Transformer3DModel
from muybridge.errors import ConfigError
from muybridge.motion import HybridConfig, MotionAdapter
from muybridge.training.methods.denoise import DiffusionObjective, VideoDiffusionMethod, encode_given, encode_videos
from muybridge.training.methods.text import ContrastiveT5Method
from muybridge.training.methods.vae import VAEMethod
from muybridge.vae import AutoencoderKLMagvit


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


def small_method(**changes: Any) -> VideoDiffusionMethod:
    objective = DiffusionObjective(DDIMScheduler(prediction_type="v_prediction", clip_sample=False))
    return VideoDiffusionMethod(small_transformer(**changes), small_text_encoder(), small_vae(), objective)


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


@pytest.mark.parametrize("num_frames", [1, 8, 16])
def test_the_vae_loss_is_that_of_its_reconstruction(num_frames):
    method = VAEMethod(small_vae(), kl_weight=0.0, gradient_weight=0.0).eval()
    pixels = batch_of(num_frames)["pixels"]

    result = method({"pixels": pixels}, generator())

    vae: Any = method.vae
    posterior = vae.encode(pixels.transpose(1, 2)).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=generator())
    error = vae.decode(posterior.mean + posterior.std * noise).sample.transpose(1, 2) - pixels
    assert torch.allclose(result["loss"], error.abs().mean(), atol=1e-6)
    assert torch.allclose(result["psnr"], 10 * torch.log10(4 / error.square().mean()), atol=1e-4)


def test_the_divergence_is_that_of_the_posterior():
    method = VAEMethod(small_vae(), kl_weight=1.0, gradient_weight=0.0).eval()
    pixels = batch_of(8)["pixels"]
    plain = VAEMethod(method.vae, kl_weight=0.0, gradient_weight=0.0).eval()

    with torch.no_grad():
        added = method({"pixels": pixels}, generator())["loss"] - plain({"pixels": pixels}, generator())["loss"]

    vae: Any = method.vae
    posterior = vae.encode(pixels.transpose(1, 2)).latent_dist
    normal = torch.distributions.Normal(posterior.mean, posterior.std)
    expected = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).mean()
    assert float(added) == pytest.approx(float(expected.detach()), rel=1e-3)


def test_differences_count_in_space_and_in_time():
    method = VAEMethod(small_vae(), kl_weight=0.0, gradient_weight=1.0).eval()
    plain = VAEMethod(method.vae, kl_weight=0.0, gradient_weight=0.0).eval()
    pixels = batch_of(8)["pixels"]

    with torch.no_grad():
        added = method({"pixels": pixels}, generator())["loss"] - plain({"pixels": pixels}, generator())["loss"]

    vae: Any = method.vae
    posterior = vae.encode(pixels.transpose(1, 2)).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=generator())
    error = vae.decode(posterior.mean + posterior.std * noise).sample - pixels.transpose(1, 2)
    assert float(added) == pytest.approx(
        sum(float(error.detach().diff(dim=d).abs().mean()) for d in (2, 3, 4)), rel=1e-4
    )


def test_gradients_are_the_same_in_half_precision():
    """From 16 channels on, torch's bfloat16 gradient is wrong where a convolution itself pads two frames."""
    method = VAEMethod(small_vae(widths=(16, 16, 16)))
    pixels = batch_of(8)["pixels"]
    gradients = []
    for enabled in (False, True):
        method.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = method({"pixels": pixels}, generator())["loss"]
        loss.backward()
        gradients.append({name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None})

    assert gradients[0].keys() == dict(method.named_parameters()).keys()
    for name, exact in gradients[0].items():
        if name.endswith("weight") and exact.ndim == 5 and float(exact.norm()) > 1e-4:
            similarity = F.cosine_similarity(exact.flatten(), gradients[1][name].flatten(), dim=0)
            assert float(similarity) > 0.95, name


def test_contrastive_accuracy_is_about_the_nearest_caption():
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
        projection_dim=8,
    )
    method = ContrastiveT5Method(small_text_encoder(), CLIPVisionModelWithProjection(vision))
    batch = batch_of(1)
    twice = {name: value[:1].repeat(2, *[1] * (value.ndim - 1)) for name, value in batch.items()}

    train(method, batch, steps=30)
    with torch.no_grad():
        learned, ambiguous = method(batch, generator()), method(twice, generator())

    assert float(learned["accuracy"]) == 1.0
    assert float(learned["loss"]) < 0.3
    assert float(ambiguous["accuracy"]) == 0.5


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
    assert {name.split(".")[0] for name in moved} == {"transformer", "text_encoder"}
    assert any("attn_temporal" in name for name in moved)
    assert any("attn1" in name for name in moved)
    assert not any(module.training for module in method.vae.modules())
    assert method.transformer.training


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


@pytest.mark.parametrize("changes", [{"in_channels": 4}, {"out_channels": 8}])
def test_a_transformer_of_other_channels_is_refused(changes):
    with pytest.raises(ConfigError, match="12 input and 4 output channels"):
        small_method(**changes)
