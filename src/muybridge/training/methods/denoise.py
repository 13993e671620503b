"""Denoising networks: image models and video models as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextModel

from muybridge.pipelines.family import Networks, Training
from muybridge.training.data import Batch
from muybridge.training.objective.diffusion import DiffusionObjective
from muybridge.vae import encode_images


class ImageDiffusionMethod(nn.Module):
    """The image model: text encoder and U-Net learn to denoise the latents of still pictures.

    Batches: `pixels [b, 3, h, w]` in [-1, 1], `input_ids [b, n]`.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        text_encoder: CLIPTextModel,
        vae: AutoencoderKL,
        objective: DiffusionObjective,
    ) -> None:
        """Train `unet` and `text_encoder`; `vae` is frozen."""
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder
        self.vae = vae.requires_grad_(False)
        self.objective = objective
        if next(unet.parameters()).device.type == "cpu":
            unet.set_attn_processor(AttnProcessor())  # the fused kernel's CPU backward is slower than plain products

    @property
    def backbone(self) -> UNet2DConditionModel:
        """The U-Net."""
        return self.unet

    def train(self, mode: bool = True) -> ImageDiffusionMethod:
        """Switch what is trained; the VAE stays in evaluation mode."""
        super().train(mode)
        self.vae.eval()
        return self

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """The objective's loss of the prediction."""
        with torch.no_grad():
            latents = encode_images(self.vae, batch["pixels"])
        drawn = self.objective.draw(latents, generator)
        states = self.text_encoder(input_ids=batch["input_ids"]).last_hidden_state
        return self.objective.loss(drawn, self.unet(drawn.noisy, drawn.timesteps, states).sample)


@dataclass(frozen=True)
class TrainedNetworks:
    """Networks without a pipeline around them.

    Attributes:
        backbone: the denoising network, with its motion adapter attached.
        text_encoder: of the captions.
        vae: of the clips.
        image_encoder: CLIP of a picture that stands for the clip, where the model is told of one.
        image_processor: what that wants of its pictures.
    """

    backbone: nn.Module
    text_encoder: nn.Module
    vae: nn.Module
    image_encoder: nn.Module | None = None
    image_processor: Any = None


class DenoisingMethod(nn.Module):
    """A video model of any family: backbone and text encoder learn to denoise the latents of clips.

    Batches: `pixels [b, f, 3, h, w]` in [-1, 1], `input_ids [b, n]`, and what the family takes besides.
    """

    def __init__(self, networks: Networks, objective: DiffusionObjective, how: Training) -> None:
        """Train `networks`, a pipeline or `TrainedNetworks`; their VAE is frozen.

        Args:
            networks: of the model.
            objective: noise levels and targets.
            how: what its family makes of a batch.

        Raises:
            ConfigError: networks that cannot be trained.
        """
        super().__init__()
        how.check(networks)
        if objective.settings.learned_range:
            config = networks.backbone.config
            objective.check_channels(config["out_channels"], networks.vae.config["latent_channels"])
        self.backbone = networks.backbone
        self.text_encoder = networks.text_encoder
        self.vae = networks.vae.requires_grad_(False)
        encoder = getattr(networks, "image_encoder", None)
        self.image_encoder = None if encoder is None else encoder.requires_grad_(False)
        self.image_processor = getattr(networks, "image_processor", None)
        self.objective = objective
        self.how = how

    def train(self, mode: bool = True) -> Self:
        """Switch what is trained; the VAE stays in evaluation mode."""
        super().train(mode)
        self.vae.eval()
        if self.image_encoder is not None:
            self.image_encoder.eval()
        return self

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """The objective's loss of the prediction; one noise level a clip."""
        with torch.no_grad():
            latents = self.how.latents(self, batch)
        drawn = self.objective.draw(latents, generator)
        return self.objective.loss(
            drawn, self.backbone(drawn.noisy, drawn.timesteps, **self.how.told(self, batch)).sample
        )
