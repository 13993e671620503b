"""Denoising networks: image models and video models as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextModel

from muybridge.pipelines.family import Networks, Training
from muybridge.training.data import Batch
from muybridge.training.objective.diffusion import DiffusionObjective, Drawn
from muybridge.types import SettingsDict
from muybridge.vae import encode_images


class DenoisingSteps(Protocol):
    """A step of training a denoising network, taken apart: what it is given, and what it says to noisy latents."""

    @property
    def objective(self) -> DiffusionObjective:
        """Noise levels, targets and loss."""
        ...

    def encode(self, batch: Batch) -> tuple[Tensor, SettingsDict]:
        """Scaled latents `[b, c, (f,) h, w]` of a batch, and what the network is told besides them."""
        ...

    def predict(self, drawn: Drawn, told: SettingsDict) -> Tensor:
        """What the network says to `drawn.noisy`."""
        ...


def denoising_loss(method: DenoisingSteps, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
    """The objective's loss of a batch at drawn noise levels and noise, with its `loss_weights [b]`, if there are."""
    latents, told = method.encode(batch)
    drawn = method.objective.draw(latents, generator)
    return method.objective.loss(drawn, method.predict(drawn, told), batch.get("loss_weights"))


@contextmanager
def overridden(network: nn.Module, **arguments: object) -> Iterator[None]:
    """While the block runs, `network` is called with these arguments, whatever its callers give for them."""
    hook = network.register_forward_pre_hook(lambda _, given, named: (given, {**named, **arguments}), with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


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
        return denoising_loss(self, batch, generator)

    def encode(self, batch: Batch) -> tuple[Tensor, SettingsDict]:
        """Latents of the pictures, and the states of their captions."""
        with torch.no_grad():
            latents = encode_images(self.vae, batch["pixels"])
        return latents, {"encoder_hidden_states": self.text_encoder(input_ids=batch["input_ids"]).last_hidden_state}

    def predict(self, drawn: Drawn, told: SettingsDict) -> Tensor:
        """What the U-Net says."""
        return self.unet(drawn.noisy, drawn.timesteps, **told).sample


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
        return denoising_loss(self, batch, generator)

    def encode(self, batch: Batch) -> tuple[Tensor, SettingsDict]:
        """Latents of the clips, and what the backbone is told besides."""
        with torch.no_grad():
            latents = self.how.latents(self, batch)
        return latents, self.how.told(self, batch)

    def predict(self, drawn: Drawn, told: SettingsDict) -> Tensor:
        """What the backbone says."""
        return self.backbone(drawn.noisy, drawn.timesteps, **told).sample
