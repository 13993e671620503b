"""What is trained for a video transformer, and against which losses; beside `methods`, whose rules hold here too."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPVisionModelWithProjection, T5EncoderModel

from muybridge.backbones.dit import Transformer3DModel
from muybridge.errors import ConfigError
from muybridge.training.methods import Batch, DiffusionObjective
from muybridge.vae import AutoencoderKLMagvit


class VideoVAEMethod(nn.Module):
    """Reconstruction with L1 on pixels and on their differences in space and time, and a faint KL term.

    Batches: `pixels [b, f, 3, h, w]` in [-1, 1]; one frame, or as many as the VAE takes.
    """

    def __init__(self, vae: AutoencoderKLMagvit, kl_weight: float = 1e-4, gradient_weight: float = 1.0) -> None:
        """Train all of `vae`."""
        super().__init__()
        self.vae = vae
        self.kl_weight = kl_weight
        self.gradient_weight = gradient_weight

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Loss, and the PSNR in dB of the batch (of pictures in [0, 1])."""
        pixels = batch["pixels"].transpose(1, 2)
        posterior: Any = cast("Any", self.vae.encode(pixels)).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(posterior.mean)
        decoded = cast("Any", self.vae.decode(posterior.mean + posterior.std * noise)).sample.float()
        mean, variance, log_variance = (x.float() for x in (posterior.mean, posterior.var, posterior.logvar))
        divergence = 0.5 * (mean.square() + variance - 1 - log_variance).mean()
        metrics = pixel_metrics(decoded - pixels, self.gradient_weight)
        return {**metrics, "loss": metrics["loss"] + self.kl_weight * divergence}


def pixel_metrics(error: Tensor, gradient_weight: float) -> dict[str, Tensor]:
    """L1 of an error `[b, 3, f, h, w]` and of its differences along each axis as `loss`, and `psnr` in dB."""
    loss = error.abs().mean()
    for axis in (2, 3, 4):
        if error.shape[axis] > 1:
            loss = loss + gradient_weight * error.diff(dim=axis).abs().mean()
    return {"loss": loss, "psnr": -10 * torch.log10(error.detach().square().mean() / 4)}


class ContrastiveT5Method(nn.Module):
    """CLIP's contrastive loss between captions and pictures for a T5 encoder, so that its words mean something.

    Batches: `pixels [b, 1, 3, h, w]` in [-1, 1], `input_ids [b, n]`, `attention_mask [b, n]`.
    """

    def __init__(self, text_encoder: T5EncoderModel, vision_encoder: CLIPVisionModelWithProjection) -> None:
        """Train both, and a projection of the mean text state; only the text encoder is used afterwards."""
        super().__init__()
        self.text_encoder = text_encoder
        self.vision_encoder = vision_encoder
        self.projection = nn.Linear(text_encoder.config.d_model, vision_encoder.config.projection_dim, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(1 / 0.07).log())

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Loss, and the share of pictures whose own caption is the nearest of the batch."""
        mask = batch["attention_mask"]
        states = self.text_encoder(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state
        weights = (mask / mask.sum(dim=1, keepdim=True))[:, :, None]
        texts = self.projection((states * weights).sum(dim=1)).float()
        pictures = self.vision_encoder(pixel_values=batch["pixels"][:, 0]).image_embeds.float()
        logits = self.log_scale.exp() * F.normalize(pictures, dim=1) @ F.normalize(texts, dim=1).mT
        target = torch.arange(len(logits), device=logits.device)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.mT, target)) / 2
        return {"loss": loss, "accuracy": (logits.argmax(1) == target).float().mean()}


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
