"""The loss of a VAE and of the discriminators that learn beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muybridge.training.losses.discriminators import FrameDiscriminator, VideoDiscriminator
from muybridge.training.losses.settings import VAELossSettings

_LARGEST_WEIGHT = 1e4


class Posterior(Protocol):
    """The distribution of latents that an encoder gives."""

    mean: Tensor
    logvar: Tensor


class VAELoss(nn.Module):
    """Judges what a VAE makes of pictures or videos, and holds the discriminators where there are some.

    As in EasyAnimate's trainer, errors are summed over the elements of a frame and the divergence over those of a
    video; what it returns is divided by the number of elements of a frame, so that it does not grow with the size.
    """

    def __init__(self, settings: VAELossSettings, perceptual: nn.Module | None = None) -> None:
        """Make the discriminators that `settings` ask for; `perceptual` comes from `make_perceptual`."""
        super().__init__()
        self.settings = settings
        self.perceptual = perceptual
        self.discriminators = nn.ModuleList()
        if settings.adversarial is not None:
            width = settings.adversarial.width
            self.discriminators.append(FrameDiscriminator(width))
            self.discriminators.append(VideoDiscriminator((width, 2 * width, 4 * width)))

    def forward(
        self, pixels: Tensor, reconstruction: Tensor, posterior: Posterior, last_layer: Tensor, step: int
    ) -> dict[str, Tensor]:
        """The loss of the VAE and, from their start on, of the discriminators, in one.

        The gradient of each part reaches only what is to learn from it, so that one optimizer can train both.

        Args:
            pixels: `[b, 3, (f,) h, w]` in [-1, 1].
            reconstruction: of the same shape.
            posterior: of the latents.
            last_layer: the weight of the decoder's last convolution, in whose gradients the verdicts are weighed.
            step: of the run, from 0.
        """
        terms = self.generator(pixels, reconstruction, posterior, last_layer, step)
        if not self.judges(step):
            return terms
        verdicts = self.discriminator(pixels, reconstruction)
        return {**terms, **verdicts, "loss": terms["loss"] + verdicts["discriminator_loss"]}

    def judges(self, step: int) -> bool:
        """Whether the discriminators take part in a step."""
        return self.settings.adversarial is not None and step >= self.settings.adversarial.start

    def generator(
        self, pixels: Tensor, reconstruction: Tensor, posterior: Posterior, last_layer: Tensor, step: int
    ) -> dict[str, Tensor]:
        """The loss of the VAE: the arguments of `forward`, and its terms by name."""
        pixels, reconstruction = as_videos(pixels.float()), as_videos(reconstruction.float())
        elements = pixels[0, :, 0].numel()
        error, terms = self._reconstruction(pixels, reconstruction)
        divergence = kl_divergence(posterior.mean, posterior.logvar).mean()
        loss = error + self.settings.kl * divergence / elements
        terms |= {"kl": divergence}
        if self.settings.adversarial is not None and self.judges(step):
            verdict = self._disapproval(reconstruction)
            weight = adaptive_weight(error * elements, verdict, last_layer) * self.settings.adversarial.weight
            loss = loss + weight * verdict / elements
            terms |= {"adversarial": verdict, "adversarial_weight": weight}
        return {"loss": loss, **terms}

    def _reconstruction(self, pixels: Tensor, reconstruction: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        difference = reconstruction - pixels
        error = self.settings.l1 * difference.abs().mean() + self.settings.l2 * difference.square().mean()
        terms = {"reconstruction": error, "psnr": -10 * torch.log10(difference.detach().square().mean() / 4)}
        if self.perceptual is not None:
            distance = self.perceptual(as_frames(pixels), as_frames(reconstruction)).mean()
            terms["perceptual"] = distance
            error = error + self.settings.perceptual.weight * distance
        return error, terms

    def _disapproval(self, reconstruction: Tensor) -> Tensor:
        """How little the discriminators take a reconstruction for real; they learn nothing from it."""
        frames, videos = self.discriminators
        with _frozen(self.discriminators):
            return -frames(as_frames(reconstruction)).mean() - videos(reconstruction).mean()

    def discriminator(self, pixels: Tensor, reconstruction: Tensor) -> dict[str, Tensor]:
        """The loss of the discriminators, and their mean verdicts on frames; the VAE learns nothing from it."""
        frames, videos = self.discriminators
        real, made = as_videos(pixels.detach().float()), as_videos(reconstruction.detach().float())
        on_real, on_made = frames(as_frames(real)), frames(as_frames(made))
        loss = hinge_loss(on_real, on_made) + hinge_loss(videos(real), videos(made))
        return {
            "discriminator_loss": loss,
            "verdict_on_real": on_real.detach().mean(),
            "verdict_on_made": on_made.detach().mean(),
        }


def as_videos(pixels: Tensor) -> Tensor:
    """Pictures as videos of one frame, `[b, 3, f, h, w]`."""
    return pixels[:, :, None] if pixels.ndim == 4 else pixels


def as_frames(videos: Tensor) -> Tensor:
    """All frames of `[b, 3, f, h, w]` as pictures `[b * f, 3, h, w]`."""
    return videos.transpose(1, 2).flatten(0, 1)


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Of the normal distribution from a posterior, summed over everything but the batch, `[b]`, in nats."""
    mean, log_variance = mean.float(), log_variance.float().clamp(-30, 20)
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1)


def hinge_loss(on_real: Tensor, on_made: Tensor) -> Tensor:
    """What verdicts within 1 of the border, or on the wrong side of it, cost."""
    return 0.5 * (F.relu(1 - on_real).mean() + F.relu(1 + on_made).mean())


def adaptive_weight(error: Tensor, verdict: Tensor, last_layer: Tensor) -> Tensor:
    """How much a verdict must count to pull at the last layer as strongly as the error does; without gradient."""
    (of_error,) = torch.autograd.grad(error, last_layer, retain_graph=True)
    (of_verdict,) = torch.autograd.grad(verdict, last_layer, retain_graph=True)
    return (of_error.norm() / (of_verdict.norm() + 1e-4)).clamp(0, _LARGEST_WEIGHT)


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """What is computed in the block sends no gradient into the module's parameters."""
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
