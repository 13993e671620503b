"""Denoising networks: image models and video models as a whole."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextModel, T5EncoderModel

from muybridge.backbones.dit import Transformer3DModel
from muybridge.errors import ConfigError
from muybridge.training.data import Batch
from muybridge.vae import AutoencoderKLMagvit, encode_images


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


class VideoDiffusionMethod(nn.Module):
    """The video model: text encoder, transformer and its motion modules learn to denoise stills and clips alike.

    Batches: `pixels [b, f, 3, h, w]` in [-1, 1], `input_ids [b, n]`, `attention_mask [b, n]`, and `unknown [b, f]`,
    true for frames that are to be made.
    """

    def __init__(
        self,
        transformer: Transformer3DModel,
        text_encoder: T5EncoderModel,
        vae: AutoencoderKLMagvit,
        objective: DiffusionObjective,
    ) -> None:
        """Train `transformer`, with the motion adapter attached to it, and `text_encoder`; `vae` is frozen.

        Raises:
            ConfigError: the transformer's channels are not those of noise, mask and masked video.
        """
        super().__init__()
        config, channels = transformer.transformer_config, vae.config["latent_channels"]
        if (config.in_channels, config.out_channels) != (3 * channels, channels):
            raise ConfigError(
                f"Training with masks needs a transformer of {3 * channels} input and {channels} output channels for "
                f"this VAE; given {config.in_channels} and {config.out_channels}."
            )
        self.transformer = transformer
        self.text_encoder = text_encoder
        self.vae = vae.requires_grad_(False)
        self.objective = objective

    def train(self, mode: bool = True) -> VideoDiffusionMethod:
        """Switch what is trained; the VAE stays in evaluation mode."""
        super().train(mode)
        self.vae.eval()
        return self

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Mean squared error of the prediction; one noise level a video, independent noise a latent frame."""
        with torch.no_grad():
            latents = encode_videos(self.vae, batch["pixels"])
            given = encode_given(self.vae, batch["pixels"], batch["unknown"])
        timesteps, noisy, target = self.objective.draw(latents, generator)
        mask = batch["attention_mask"]
        states = self.text_encoder(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state
        prediction = self.transformer(
            noisy, timesteps, states, encoder_attention_mask=mask, inpaint_latents=given
        ).sample
        return {"loss": F.mse_loss(prediction.float(), target)}


def encode_videos(vae: AutoencoderKLMagvit, pixels: Tensor) -> Tensor:
    """`pixels [b, f, 3, h, w]` in [-1, 1] to the mean latents `[b, c, n, h / s, w / s]` times `scaling_factor`."""
    posterior: Any = cast("Any", vae.encode(pixels.transpose(1, 2).to(vae.dtype))).latent_dist
    return posterior.mean.float() * vae.config["scaling_factor"]


def encode_given(vae: AutoencoderKLMagvit, pixels: Tensor, unknown: Tensor) -> Tensor:
    """Scaled mean latents of the mask (1 where unknown) and of the video (black where unknown), one after the other.

    The VAE's pieces are independent of each other, so each kind of mask and all that is black are encoded only once.

    Args:
        vae: in slice mode.
        pixels: `[b, f, 3, h, w]` in [-1, 1].
        unknown: bool `[b, f]`.

    Returns:
        `[b, 2 c, n, h / s, w / s]`.
    """
    size = 1 if pixels.shape[1] == 1 else vae.frame_multiple
    parts = pixels.unflatten(1, (-1, size)).flatten(0, 1)
    gone = unknown.unflatten(1, (-1, size)).flatten(0, 1)
    masks, which = gone.unique(dim=0, return_inverse=True)
    mask_latents = encode_videos(vae, masks[..., None, None, None].expand(-1, -1, *pixels.shape[2:]).float())[which]
    seen = ~gone.all(dim=1)
    black = torch.full_like(parts[:1], -1.0)
    shown = torch.where(gone[seen][..., None, None, None], black, parts[seen])
    encoded = encode_videos(vae, torch.cat((black, shown)))
    video_latents = encoded[:1].repeat(len(parts), 1, 1, 1, 1)
    video_latents[seen] = encoded[1:]
    latents = torch.cat((mask_latents, video_latents), dim=1)
    return latents.unflatten(0, (len(pixels), -1)).transpose(1, 2).flatten(2, 3)
