"""VAEs of pictures and of videos, trained to give clips back, with discriminators or without."""

from __future__ import annotations

from typing import cast

import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from torch import Tensor, nn

from muybridge.training.data import Batch, BatchSource
from muybridge.training.losses.vae import VAELoss
from muybridge.vae import AutoencoderKLMagvit


class NumberedSteps:
    """Batches that say which step of the run they are of, as `step`, a number from 0.

    So what begins late in a run needs no counter of its own, and a run that goes on is the same.
    """

    def __init__(self, source: BatchSource, batches_per_step: int) -> None:
        """`batches_per_step` is over all processes."""
        self.source = source
        self.batches_per_step = batches_per_step

    def __call__(self, index: int) -> Batch:
        """Make batch number `index`."""
        return {**self.source(index), "step": torch.tensor(index // self.batches_per_step)}


class AutoencoderMethod(nn.Module):
    """A VAE and, where its loss has some, the discriminators beside it.

    The discriminators are trained by the same optimizer in the same step: the gradient of each term reaches only what
    is to learn from it. So their state is that of any parameter, and nothing of a run is kept elsewhere.

    Batches: `pixels [b, f, 3, h, w]` in [-1, 1], of which a VAE of pictures takes each frame by itself, and `step`, a
    number.
    """

    def __init__(self, vae: AutoencoderKL | AutoencoderKLMagvit, loss: VAELoss, decoder_only: bool = False) -> None:
        """Train `vae`, or what of it decodes: then latents mean what they meant."""
        super().__init__()
        self.vae = vae
        self.criterion = loss
        if decoder_only:
            vae.requires_grad_(False)
            for part in (vae.decoder, vae.post_quant_conv):
                if isinstance(part, nn.Module):
                    part.requires_grad_(True)

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """The loss of the VAE and of the discriminators, and its terms."""
        pixels = batch["pixels"]
        shown = pixels.transpose(1, 2) if isinstance(self.vae, AutoencoderKLMagvit) else pixels.flatten(0, 1)
        posterior: DiagonalGaussianDistribution = self.vae.encode(shown).latent_dist  # type: ignore[union-attr]
        noise = torch.randn(posterior.mean.shape, generator=generator).to(posterior.mean)
        decoded = cast("DecoderOutput", self.vae.decode(posterior.mean + posterior.std * noise)).sample
        last_layer = self.vae.decoder.conv_out.get_parameter("weight")
        return self.criterion(shown, decoded, posterior, last_layer, int(batch["step"]))
