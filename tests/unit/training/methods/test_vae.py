"""What the VAEs of pictures and of videos are trained for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.unit.training.methods.test_denoise import generator, image_batch
from tests.unit.training.methods.test_denoise import small_vae as picture_vae
from tests.unit.training.methods.test_denoise_video import batch_of as video_batch
from tests.unit.training.methods.test_denoise_video import small_vae as video_vae

from muybridge.training.losses.settings import VAELossSettings
from muybridge.training.methods.vae import JudgedVAEMethod, VAEMethod
from muybridge.training.optimizers import OptimizerSettings, make_optimizer


@pytest.fixture(autouse=True)
def _same_weights() -> None:
    torch.manual_seed(0)


def test_the_loss_for_pictures_is_that_of_their_reconstruction():
    method = VAEMethod(picture_vae(), kl_weight=0.0, gradient_weight=0.0).eval()
    pixels = image_batch()["pixels"]

    result = method({"pixels": pixels}, generator())

    vae: Any = method.vae
    posterior = vae.encode(pixels).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=generator())
    error = vae.decode(posterior.mean + posterior.std * noise).sample - pixels
    assert torch.allclose(result["loss"], error.abs().mean())
    assert torch.allclose(result["psnr"], 10 * torch.log10(4 / error.square().mean()))


@pytest.mark.parametrize("weight", ["kl_weight", "gradient_weight"])
def test_each_term_of_the_vae_loss_counts(weight):
    vae = picture_vae().eval()
    weights = {"kl_weight": 0.0, "gradient_weight": 0.0}

    without = VAEMethod(vae, **weights)(image_batch(), generator())["loss"]
    with_term = VAEMethod(vae, **{**weights, weight: 1.0})(image_batch(), generator())["loss"]

    assert with_term > without


@pytest.mark.parametrize("num_frames", [1, 8, 16])
def test_the_loss_for_videos_is_that_of_their_reconstruction(num_frames):
    method = VAEMethod(video_vae(), kl_weight=0.0, gradient_weight=0.0).eval()
    pixels = video_batch(num_frames)["pixels"]

    result = method({"pixels": pixels}, generator())

    vae: Any = method.vae
    posterior = vae.encode(pixels.transpose(1, 2)).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=generator())
    error = vae.decode(posterior.mean + posterior.std * noise).sample.transpose(1, 2) - pixels
    assert torch.allclose(result["loss"], error.abs().mean(), atol=1e-6)
    assert torch.allclose(result["psnr"], 10 * torch.log10(4 / error.square().mean()), atol=1e-4)


def test_the_divergence_is_that_of_the_posterior():
    method = VAEMethod(video_vae(), kl_weight=1.0, gradient_weight=0.0).eval()
    pixels = video_batch(8)["pixels"]
    plain = VAEMethod(method.vae, kl_weight=0.0, gradient_weight=0.0).eval()

    with torch.no_grad():
        added = method({"pixels": pixels}, generator())["loss"] - plain({"pixels": pixels}, generator())["loss"]

    vae: Any = method.vae
    posterior = vae.encode(pixels.transpose(1, 2)).latent_dist
    normal = torch.distributions.Normal(posterior.mean, posterior.std)
    expected = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).mean()
    assert float(added) == pytest.approx(float(expected.detach()), rel=1e-3)


def test_differences_count_in_space_and_in_time():
    method = VAEMethod(video_vae(), kl_weight=0.0, gradient_weight=1.0).eval()
    plain = VAEMethod(method.vae, kl_weight=0.0, gradient_weight=0.0).eval()
    pixels = video_batch(8)["pixels"]

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
    method = VAEMethod(video_vae(widths=(16, 16, 16)))
    pixels = video_batch(8)["pixels"]
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


def judged(make_vae: Any, start: int = 2, **others: Any) -> JudgedVAEMethod:
    settings = VAELossSettings.model_validate({"adversarial": {"start": start, "width": 32}})
    return JudgedVAEMethod(make_vae(), settings, **others)


def test_a_vae_and_its_judges_learn_in_one_step() -> None:
    method = judged(video_vae, start=1).train()
    pixels = F.interpolate(video_batch(8)["pixels"][0], size=(32, 32))[None]  # large enough for patches
    optimizer = make_optimizer(OptimizerSettings(name="adamw", weight_decay=0), method, 1e-3, 1e-3)
    moved: list[dict[str, bool]] = []
    terms: list[set[str]] = []
    for step in range(2):
        before = {name: value.detach().clone() for name, value in method.named_parameters()}
        method.begin_step(step)
        output = method({"pixels": pixels}, generator())
        output["loss"].backward()
        optimizer.step()
        moved.append({name: not torch.equal(value, before[name]) for name, value in method.named_parameters()})
        terms.append(set(output))

    learned = [{name for name, has in step.items() if has} for step in moved]
    judges = {name for name in moved[0] if name.startswith("loss.discriminators")}
    weights = {name for name in judges if name.endswith("weight")}  # of the last biases, real and made cancel out
    frozen = {name for name in moved[0] if name.startswith("loss.perceptual")}
    assert frozen
    assert not learned[0] & (judges | frozen)
    assert learned[1] >= weights
    assert not learned[1] & frozen
    assert any(name.startswith("vae.encoder") for name in learned[0])
    assert terms[1] - terms[0] >= {"adversarial", "adversarial_weight", "discriminator_loss"}


@pytest.mark.parametrize(("make_vae", "batch"), [(picture_vae, image_batch()), (video_vae, video_batch(8))])
def test_a_decoder_alone_learns_to_read_what_latents_meant(make_vae: Any, batch: Any) -> None:
    method = judged(make_vae, decoder_only=True)
    method(batch, generator())["loss"].backward()
    learning = {name.split(".")[1] for name, value in method.named_parameters() if value.grad is not None}
    assert learning == {"decoder", "post_quant_conv"}
