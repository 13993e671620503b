"""What a video VAE's decoder is trained against once there is a transformer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn
from transformers import T5EncoderModel

from muybridge.backbones.dit import Transformer3DModel
from muybridge.errors import ConfigError
from muybridge.training.data import Batch
from muybridge.training.methods.vae import pixel_metrics
from muybridge.vae import AutoencoderKLMagvit
from muybridge.vae.magvit.batches import encode_given, encode_videos


@dataclass(frozen=True)
class Remaking:
    """How the model makes anew what it is shown.

    Attributes:
        most_noise: the highest level that videos are noised up to, as a share of the training timesteps.
        steps: DDIM steps from there back to none.
        guidance: scale of classifier-free guidance.
    """

    most_noise: float = 0.6
    steps: int = 3
    guidance: float = 4.0

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ConfigError: a value out of range.
        """
        if self.steps < 1 or not 0 < self.most_noise <= 1 or not 0 <= self.guidance < float("inf"):
            raise ConfigError(
                "Remaking needs steps of at least 1, most_noise above 0 and at most 1, and a finite guidance of at "
                f"least 0; given {self.steps}, {self.most_noise} and {self.guidance}."
            )


class VideoDecoderMethod(nn.Module):
    """The VAE's decoder learns to read latents as the video model makes them, not as the encoder does.

    A video is noised up to a random level and brought back by the model in a few guided DDIM steps. What comes back
    shows the same video with the model's own inaccuracies, and the decoder is trained to give the true pixels for it:
    the decoder has a part in denoising, as in LTX-Video (HaCohen et al., 2024), here without a noise level to tell it
    how large. Encoder and transformer stay as they are, so latents mean what they meant.

    Batches: `pixels [b, f, 3, h, w]` in [-1, 1], `input_ids [b, n]`, `attention_mask [b, n]`, and `unknown [b, f]`,
    true for frames that are to be made.
    """

    empty_ids: Tensor
    empty_mask: Tensor

    def __init__(
        self,
        vae: AutoencoderKLMagvit,
        transformer: Transformer3DModel,
        text_encoder: T5EncoderModel,
        scheduler: DDIMScheduler,
        empty_caption: tuple[Tensor, Tensor],
        remaking: Remaking | None = None,
        gradient_weight: float = 1.0,
    ) -> None:
        """Train what of `vae` decodes.

        Args:
            vae: in slice mode.
            transformer: with noise, mask and masked video as input; frozen.
            text_encoder: frozen.
            scheduler: its noise levels, of prediction type v.
            empty_caption: token ids and attention mask of the empty caption, `[1, n]` each, for guidance.
            remaking: how latents are made; None for the defaults.
            gradient_weight: of the L1 on differences of neighbouring pixels and frames.

        Raises:
            ConfigError: the scheduler's prediction type is not "v_prediction".
        """
        super().__init__()
        prediction = scheduler.config["prediction_type"]
        if prediction != "v_prediction":
            raise ConfigError(
                f"A decoder is trained with models of the type v_prediction; this one is of {prediction!r}."
            )
        self.vae = vae.requires_grad_(False)
        self.vae.decoder.requires_grad_(True)
        self.vae.post_quant_conv.requires_grad_(True)
        self.transformer = transformer.requires_grad_(False)
        self.text_encoder = text_encoder.requires_grad_(False)
        self.scheduler = scheduler
        self.remaking = remaking or Remaking()
        self.gradient_weight = gradient_weight
        self.register_buffer("empty_ids", empty_caption[0], persistent=False)
        self.register_buffer("empty_mask", empty_caption[1], persistent=False)

    def train(self, mode: bool = True) -> VideoDecoderMethod:
        """Switch the VAE; the others stay in evaluation mode."""
        super().train(mode)
        self.transformer.eval()
        self.text_encoder.eval()
        return self

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """L1 on pixels and on their differences in space and time, and the PSNR in dB of pictures in [0, 1]."""
        latents = self.remake(batch, generator) / self.vae.config["scaling_factor"]
        decoded = cast("Any", self.vae.decode(latents)).sample.float()
        return pixel_metrics(decoded - batch["pixels"].transpose(1, 2), self.gradient_weight)

    @torch.no_grad()
    def remake(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Scaled latents `[b, c, n, h / s, w / s]` of the batch's videos, with one noise level a video."""
        latents = encode_videos(self.vae, batch["pixels"])
        predict = self._guided_prediction(batch)
        scheduler, steps = self.scheduler, self.remaking.steps
        alphas = scheduler.alphas_cumprod.to(latents)
        most = self.remaking.most_noise * (scheduler.config["num_train_timesteps"] - 1)
        start = torch.rand(len(latents), generator=generator).to(latents) * most
        timesteps = start.long()
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        noisy = scheduler.add_noise(latents, noise, timesteps)
        for step in range(1, steps + 1):
            signal, rest = _signal_and_noise(alphas[timesteps], latents.ndim)
            velocity = predict(noisy, timesteps)
            clean, noise = signal * noisy - rest * velocity, signal * velocity + rest * noisy
            timesteps = (start * (1 - step / steps)).long()
            signal, rest = _signal_and_noise(alphas[timesteps], latents.ndim)
            noisy = clean if step == steps else signal * clean + rest * noise
        return noisy

    def _guided_prediction(self, batch: Batch) -> Callable[[Tensor, Tensor], Tensor]:
        masks = torch.cat((self.empty_mask.expand_as(batch["attention_mask"]), batch["attention_mask"]))
        ids = torch.cat((self.empty_ids.expand_as(batch["input_ids"]), batch["input_ids"]))
        states = self.text_encoder(input_ids=ids, attention_mask=masks).last_hidden_state
        given = encode_given(self.vae, batch["pixels"], batch["unknown"]).repeat(2, 1, 1, 1, 1)

        def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
            both = self.transformer(
                noisy.repeat(2, 1, 1, 1, 1),
                timesteps.repeat(2),
                states,
                encoder_attention_mask=masks,
                inpaint_latents=given,
            ).sample.float()
            unconditional, conditional = both.chunk(2)
            return unconditional + self.remaking.guidance * (conditional - unconditional)

        return predict


def _signal_and_noise(alphas: Tensor, ndim: int) -> tuple[Tensor, Tensor]:
    alphas = alphas.reshape(-1, *(1,) * (ndim - 1))
    return alphas.sqrt(), (1 - alphas).sqrt()
