"""VAEs of pictures and of videos."""

from __future__ import annotations

from typing import Any, cast

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from muybridge.training.data import Batch
from muybridge.training.losses.perceptual import make_perceptual
from muybridge.training.losses.settings import VAELossSettings
from muybridge.training.losses.vae import VAELoss
from muybridge.vae import AutoencoderKLMagvit


def scale_to_unit(vae: AutoencoderKL | AutoencoderKLMagvit, latents: Tensor) -> None:
    """Set the scaling factor of `vae` so that its latents get unit variance, measured on `latents`, scaled as now."""
    factor = float(vae.config["scaling_factor"] / latents.float().std())
    vae.register_to_config(scaling_factor=round(factor, 5))


class VAEMethod(nn.Module):
    """Reconstruction with L1 on pixels and on their differences in space and time, and a faint KL term.

    Batches: `pixels` in [-1, 1], `[b, 3, h, w]` for a VAE of pictures, `[b, f, 3, h, w]` for one of videos; there one
    frame, or as many as the VAE takes.
    """

    def __init__(
        self, vae: AutoencoderKL | AutoencoderKLMagvit, kl_weight: float = 1e-4, gradient_weight: float = 1.0
    ) -> None:
        """Train all of `vae`."""
        super().__init__()
        self.vae = vae
        self.kl_weight = kl_weight
        self.gradient_weight = gradient_weight

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Loss, and the PSNR in dB of the batch (of pictures in [0, 1])."""
        pixels, posterior, decoded = _reconstruct(self.vae, batch, generator)
        mean, variance, log_variance = (x.float() for x in (posterior.mean, posterior.var, posterior.logvar))
        divergence = 0.5 * (mean.square() + variance - 1 - log_variance).mean()
        metrics = pixel_metrics(decoded - pixels, self.gradient_weight)
        return {**metrics, "loss": metrics["loss"] + self.kl_weight * divergence}


class JudgedVAEMethod(nn.Module):
    """A VAE against pixels, perceived likeness and discriminators, as EasyAnimate trained its own.

    Batches: as those of `VAEMethod`. Discriminators, where `settings` have some, learn in the same step.
    """

    def __init__(
        self, vae: AutoencoderKL | AutoencoderKLMagvit, settings: VAELossSettings, decoder_only: bool = False
    ) -> None:
        """Train all of `vae`, or what of it decodes, so that latents mean what they meant.

        Raises:
            CheckpointError: a file of the perceptual loss is missing, damaged, or another network.
        """
        super().__init__()
        self.loss = VAELoss(settings, make_perceptual(settings.perceptual, vae))
        self.vae = vae.requires_grad_(not decoder_only)
        for part in (vae.decoder, vae.post_quant_conv):
            if part is not None:
                part.requires_grad_(True)
        self.step = 0

    def begin_step(self, step: int) -> None:
        """Say which step of the run comes next; discriminators have a first one."""
        self.step = step

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """The loss, its terms, and the PSNR in dB of the batch (of pictures in [0, 1])."""
        pixels, posterior, decoded = _reconstruct(self.vae, batch, generator)
        return self.loss(pixels, decoded, posterior, self.vae.decoder.conv_out.weight, self.step)


def _reconstruct(
    vae: AutoencoderKL | AutoencoderKLMagvit, batch: Batch, generator: torch.Generator
) -> tuple[Tensor, Any, Tensor]:
    """Pixels, channels before frames; the posterior of their latents; and what a draw of it is decoded to."""
    pixels = batch["pixels"]
    if pixels.ndim == 5:
        pixels = pixels.transpose(1, 2)
    posterior: Any = cast("Any", vae.encode(pixels)).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=generator).to(posterior.mean)
    return pixels, posterior, cast("Any", vae.decode(posterior.mean + posterior.std * noise)).sample.float()


def pixel_metrics(error: Tensor, gradient_weight: float) -> dict[str, Tensor]:
    """L1 of an error `[b, 3, (f,) h, w]` and of its differences along each axis as `loss`, and `psnr` in dB."""
    loss = error.abs().mean()
    for axis in range(2, error.ndim):
        if error.shape[axis] > 1:
            loss = loss + gradient_weight * error.diff(dim=axis).abs().mean()
    return {"loss": loss, "psnr": -10 * torch.log10(error.detach().square().mean() / 4)}
