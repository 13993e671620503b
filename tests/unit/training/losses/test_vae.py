"""What a VAE's loss is made of, and who learns from which part of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn

from muybridge.training.losses.discriminators import FrameDiscriminator, VideoDiscriminator
from muybridge.training.losses.perceptual import DifferenceDistance
from muybridge.training.losses.settings import AdversarialSettings, VAELossSettings
from muybridge.training.losses.vae import VAELoss, adaptive_weight, hinge_loss, kl_divergence

START = 10
SIDE = 32


@dataclass
class Posterior:
    mean: Tensor
    logvar: Tensor


@dataclass
class Made:
    """What a decoder of one convolution makes of noise."""

    pixels: Tensor
    decoder: nn.Conv3d
    reconstruction: Tensor
    posterior: Posterior

    def judged(self, judge: VAELoss, step: int) -> dict[str, Tensor]:
        return judge(self.pixels, self.reconstruction, self.posterior, self.decoder.weight, step)


def make(frames: int = 2) -> Made:
    generator = torch.Generator().manual_seed(3)
    pixels = torch.rand(2, 3, frames, SIDE, SIDE, generator=generator) * 2 - 1
    torch.manual_seed(1)
    decoder = nn.Conv3d(4, 3, 3, padding=1)
    reconstruction = decoder(torch.randn(2, 4, frames, SIDE, SIDE, generator=generator))
    mean, logvar = torch.randn(2, 2, 4, 1, 4, 4, generator=generator)
    return Made(pixels, decoder, reconstruction, Posterior(mean, logvar))


def judge(**settings: Any) -> VAELoss:
    torch.manual_seed(2)
    return VAELoss(VAELossSettings.model_validate({"adversarial": {"start": START, "width": 32}, **settings}))


def test_errors_are_means_and_the_divergence_is_a_videos_by_the_elements_of_a_frame() -> None:
    made = make()
    settings = VAELossSettings(l1=0.5, l2=2.0, kl=1e-3)
    terms = made.judged(VAELoss(settings, DifferenceDistance()), 0)

    error = made.reconstruction - made.pixels
    between = error.diff(dim=3).abs().mean() + error.diff(dim=4).abs().mean()
    normal = torch.distributions.Normal(made.posterior.mean, (0.5 * made.posterior.logvar).exp())
    divergence = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).flatten(1).sum(1)
    pixels = 0.5 * error.abs().mean() + 2 * error.square().mean()
    expected = pixels + between + 1e-3 * divergence.mean() / (3 * SIDE * SIDE)
    torch.testing.assert_close(terms["loss"], expected)
    torch.testing.assert_close(terms["kl"], divergence.mean())
    torch.testing.assert_close(terms["perceptual"], between)
    torch.testing.assert_close(terms["psnr"], 10 * torch.log10(4 / error.square().mean()).detach())


def test_one_loss_trains_both_and_each_learns_its_own_part() -> None:
    made, judging = make(), judge()
    terms = made.judged(judging, START)
    terms["loss"].backward()

    assert made.decoder.weight.grad is not None
    alone, aside = make(), judge()
    alone.judged(aside, START)
    aside.generator(alone.pixels, alone.reconstruction, alone.posterior, alone.decoder.weight, START)["loss"].backward()
    assert torch.allclose(made.decoder.weight.grad, alone.decoder.weight.grad, atol=1e-7)  # type: ignore[arg-type]
    assert all(parameter.grad is None and parameter.requires_grad for parameter in aside.parameters())

    by_itself = judge()
    by_itself.discriminator(made.pixels, made.reconstruction)["discriminator_loss"].backward()
    for ours, theirs in zip(judging.parameters(), by_itself.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(
        terms["loss"].detach(),
        (
            terms["reconstruction"]
            + (1e-6 * terms["kl"] + terms["adversarial_weight"] * terms["adversarial"]) / (3 * SIDE * SIDE)
            + terms["discriminator_loss"]
        ).detach(),
    )


def test_before_their_start_discriminators_are_not_asked() -> None:
    made, judging = make(), judge()
    asked: list[nn.Module] = []
    for network in judging.discriminators:
        network.register_forward_hook(lambda module, *_: asked.append(module))

    before = made.judged(judging, START - 1)
    assert not asked
    assert "adversarial" not in before
    assert torch.equal(before["loss"], make().judged(VAELoss(VAELossSettings()), START)["loss"])

    made.judged(judging, START)
    assert len(asked) == 6, "each once for what is made, and once for real and made to learn from"


@pytest.mark.parametrize("frames", [1, 5])
def test_videos_of_any_number_of_frames_are_judged(frames: int) -> None:
    made, judging = make(frames), judge()
    assert made.judged(judging, START)["loss"].isfinite()


def test_pictures_are_videos_of_one_frame() -> None:
    made = make(1)
    as_video = made.judged(judge(), START)["loss"]
    shown = made.pixels[:, :, 0], made.reconstruction[:, :, 0]
    assert torch.equal(judge()(*shown, made.posterior, made.decoder.weight, START)["loss"], as_video)


def test_the_hinge_is_flat_beyond_its_margin() -> None:
    assert float(hinge_loss(torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 1.0]))) == pytest.approx(0.5 * (0.25 + 1.0))


def test_the_adaptive_weight_is_the_ratio_of_gradients() -> None:
    last = torch.tensor([1.0, 2.0], requires_grad=True)
    error, verdict = (last * torch.tensor([3.0, 4.0])).sum(), last[0] * 2
    assert float(adaptive_weight(error, verdict, last)) == pytest.approx(5 / (2 + 1e-4))
    assert float(adaptive_weight(error * 1e9, verdict, last)) == 1e4
    assert not adaptive_weight(error, verdict, last).requires_grad
    error.backward()  # what it looked at is still there


def test_the_divergence_of_extreme_variances_is_finite() -> None:
    divergence = kl_divergence(torch.zeros(1, 2), torch.tensor([[-1e4, 1e4]]))
    assert float(divergence) == pytest.approx(0.5 * (torch.tensor(20.0).exp().item() - 1 - 20 + 30 - 1), rel=1e-5)


def test_discriminators_halve_what_they_judge() -> None:
    with torch.no_grad():
        assert FrameDiscriminator(8)(torch.zeros(2, 3, 32, 32)).shape == (2, 1, 2, 2)
        assert VideoDiscriminator((32, 32, 64))(torch.zeros(1, 3, 5, 32, 32)).shape == (1, 1, 1, 4, 4)


def test_discriminators_begin_as_the_original_ones() -> None:
    torch.manual_seed(0)
    network = FrameDiscriminator(32)
    assert float(network.main[2].weight.detach().std()) == pytest.approx(0.02, rel=0.05)  # type: ignore[union-attr]
    assert float(network.main[3].weight.detach().mean()) == pytest.approx(1, abs=0.01)  # type: ignore[union-attr]
    assert network.main[2].bias is None


def test_discriminators_learn_to_tell_bright_from_dark() -> None:
    judging = judge()
    optimizer = torch.optim.Adam(judging.parameters(), lr=1e-3, betas=(0.5, 0.9))
    dark, bright = torch.full((2, 3, 1, SIDE, SIDE), -0.5), torch.full((2, 3, 1, SIDE, SIDE), 0.5)
    noise = torch.randn(dark.shape, generator=torch.Generator().manual_seed(0)) * 0.1
    first = last = 0.0
    for step in range(6):
        optimizer.zero_grad()
        loss = judging.discriminator(bright + noise, dark + noise)["discriminator_loss"]
        loss.backward()
        optimizer.step()
        first, last = (float(loss.detach()), last) if step == 0 else (first, float(loss.detach()))
    assert last < 0.7 * first


def test_a_loss_without_pixels_is_refused() -> None:
    with pytest.raises(ValidationError, match="l1 and l2 are both 0"):
        VAELossSettings(l1=0)


def test_what_is_absent_is_not_there() -> None:
    assert not list(VAELoss(VAELossSettings()).parameters())
    assert AdversarialSettings().start == 50_001


def test_judges_learn_the_same_in_half_precision() -> None:
    """Of 8 frames the middle layers see two, where torch's bfloat16 gradient for the weight is wrong."""
    torch.manual_seed(0)
    judge = VideoDiscriminator((32, 64, 64))
    pixels = torch.rand(2, 3, 8, SIDE, SIDE) * 2 - 1
    gradients = []
    for enabled in (False, True):
        judge.zero_grad()
        used = [torch.full((1 << size,), 3e4) for size in range(8, 21)]  # so that memory is not zero by chance
        del used
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            verdict = judge(pixels)
        verdict.float().square().mean().backward()
        gradients.append({name: p.grad.clone() for name, p in judge.named_parameters() if p.grad is not None})

    for name, exact in gradients[0].items():
        if name.endswith("weight") and exact.ndim == 5:
            assert float(F.cosine_similarity(exact.flatten(), gradients[1][name].flatten(), dim=0)) > 0.95, name
