"""What is trained, and against which loss. A method is a module whose forward turns a batch into a loss.

Only parameters with `requires_grad` are trained; the rest is frozen and in evaluation mode.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPModel, CLIPTextModel

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.errors import ConfigError
from muybridge.vae import encode_images

Batch = dict[str, Tensor]


class ImageVAEMethod(nn.Module):
    """Reconstruction with L1 on pixels and on their differences, and a faint KL term.

    Batches: `pixels [b, 3, h, w]` in [-1, 1].
    """

    def __init__(self, vae: AutoencoderKL, kl_weight: float = 1e-4, gradient_weight: float = 1.0) -> None:
        """Train all of `vae`."""
        super().__init__()
        self.vae = vae
        self.kl_weight = kl_weight
        self.gradient_weight = gradient_weight

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Loss, and the PSNR in dB of the batch (of images in [0, 1])."""
        pixels = batch["pixels"]
        posterior: Any = cast("Any", self.vae.encode(pixels)).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(posterior.mean)
        decoded = cast("Any", self.vae.decode(posterior.mean + posterior.std * noise)).sample.float()
        error = decoded - pixels
        loss = error.abs().mean() + self.kl_weight * posterior.kl().mean() / posterior.mean[0].numel()
        for axis in (2, 3):
            loss = loss + self.gradient_weight * error.diff(dim=axis).abs().mean()
        psnr = -10 * torch.log10(error.detach().square().mean() / 4)
        return {"loss": loss, "psnr": psnr}


class ContrastiveTextMethod(nn.Module):
    """CLIP's contrastive loss between captions and pictures: gives the text encoder words that mean pictures.

    Batches: `pixels [b, 3, h, w]` in [-1, 1], `input_ids [b, n]`.
    """

    def __init__(self, clip: CLIPModel) -> None:
        """Train both towers; only the text tower is used afterwards."""
        super().__init__()
        self.clip = clip

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Loss, and the share of pictures whose own caption is the nearest of the batch."""
        output = self.clip(input_ids=batch["input_ids"], pixel_values=batch["pixels"])
        logits = output.logits_per_image.float()
        target = torch.arange(len(logits), device=logits.device)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.mT, target)) / 2
        return {"loss": loss, "accuracy": (logits.argmax(1) == target).float().mean()}


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


class MotionMethod(nn.Module):
    """Motion modules alone: text encoder, VAE and image U-Net stay as they are.

    Batches: `pixels [b, f, 3, h, w]` in [-1, 1], `input_ids [b, n]`, `frame_positions [f]`.
    """

    def __init__(
        self,
        unet: UNet3DConditionModel,
        text_encoder: CLIPTextModel,
        vae: AutoencoderKL,
        objective: DiffusionObjective,
    ) -> None:
        """`unet` must have the motion adapter to train attached."""
        super().__init__()
        self.unet = unet.requires_grad_(False)
        self.text_encoder = text_encoder.requires_grad_(False)
        self.vae = vae.requires_grad_(False)
        self.objective = objective
        if unet.motion_adapter is None:
            raise ConfigError("There is no motion adapter to train; attach one with unet.set_motion_adapter(adapter).")
        unet.motion_adapter.requires_grad_(True)

    def train(self, mode: bool = True) -> MotionMethod:
        """Switch the motion modules; everything else stays in evaluation mode."""
        super().train(False)
        if self.unet.motion_adapter is not None:
            self.unet.motion_adapter.train(mode)
        self.training = mode
        return self

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Mean squared error of the prediction; one noise level a clip, independent noise a frame."""
        with torch.no_grad():
            latents = encode_images(self.vae, batch["pixels"].flatten(0, 1))
            latents = latents.unflatten(0, batch["pixels"].shape[:2]).transpose(1, 2)
            states = self.text_encoder(input_ids=batch["input_ids"]).last_hidden_state
        timesteps, noisy, target = self.objective.draw(latents, generator)
        prediction = self.unet(noisy, timesteps, states, frame_positions=batch["frame_positions"]).sample
        return {"loss": F.mse_loss(prediction.float(), target)}
