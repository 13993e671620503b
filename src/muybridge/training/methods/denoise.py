"""Denoising networks: image models and video models as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextModel

from muybridge.errors import ConfigError
from muybridge.pipelines.family import Networks, Training
from muybridge.training.data import Batch
from muybridge.vae import encode_images


class DiffusionObjective:
    """Noise levels, noisy latents and regression targets of a scheduler's training objective."""

    def __init__(self, scheduler: DDIMScheduler, timestep_shift: float = 1.0) -> None:
        """`timestep_shift` s > 1 draws high noise more often: u becomes s u / (1 + (s - 1) u), u uniform in [0, 1).

        Raises:
            ConfigError: the scheduler's prediction type is neither "epsilon" nor "v_prediction".
        """
        prediction = scheduler.config["prediction_type"]
        if prediction not in ("epsilon", "v_prediction"):
            raise ConfigError(f"Training knows the prediction types epsilon and v_prediction; given {prediction!r}.")
        self.scheduler = scheduler
        self.timestep_shift = timestep_shift

    def draw(self, latents: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """(timesteps [b], noisy latents, target), one noise level a batch item, noise drawn on the CPU."""
        shift = self.timestep_shift
        u = torch.rand(len(latents), generator=generator)
        u = shift * u / (1 + (shift - 1) * u)
        last = self.scheduler.config["num_train_timesteps"]
        timesteps = (u * last).long().clamp_(max=last - 1).to(latents.device)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        if self.scheduler.config["prediction_type"] == "v_prediction":
            return timesteps, noisy, self.scheduler.get_velocity(latents, noise, timesteps)
        return timesteps, noisy, noise


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
        """Mean squared error of the prediction."""
        with torch.no_grad():
            latents = encode_images(self.vae, batch["pixels"])
        timesteps, noisy, target = self.objective.draw(latents, generator)
        states = self.text_encoder(input_ids=batch["input_ids"]).last_hidden_state
        prediction = self.unet(noisy, timesteps, states).sample
        return {"loss": F.mse_loss(prediction.float(), target)}


@dataclass(frozen=True)
class TrainedNetworks:
    """Networks without a pipeline around them.

    Attributes:
        backbone: the denoising network, with its motion adapter attached.
        text_encoder: of the captions.
        vae: of the clips.
    """

    backbone: nn.Module
    text_encoder: nn.Module
    vae: nn.Module


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
        self.backbone = networks.backbone
        self.text_encoder = networks.text_encoder
        self.vae = networks.vae.requires_grad_(False)
        self.objective = objective
        self.how = how

    def train(self, mode: bool = True) -> Self:
        """Switch what is trained; the VAE stays in evaluation mode."""
        super().train(mode)
        self.vae.eval()
        return self

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Mean squared error of the prediction; one noise level a clip, independent noise a latent frame."""
        with torch.no_grad():
            latents = self.how.latents(self, batch)
        timesteps, noisy, target = self.objective.draw(latents, generator)
        prediction = self.backbone(noisy, timesteps, **self.how.told(self, batch)).sample
        # What follows the channels of the latents is the variance, which this loss leaves alone.
        return {"loss": F.mse_loss(prediction[:, : target.shape[1]].float(), target)}
