"""Motion modules alone, in a U-Net or a transformer that stays as it is."""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn
from transformers import CLIPTextModel, T5EncoderModel

from muybridge.backbones.dit import Transformer3DModel
from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.errors import ConfigError
from muybridge.motion import MotionAdapter
from muybridge.training.data import Batch
from muybridge.training.methods.denoise import DiffusionObjective, VideoDiffusionMethod
from muybridge.vae import AutoencoderKLMagvit, encode_images

Network = TypeVar("Network", UNet3DConditionModel, Transformer3DModel)


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
        """`unet` must have the motion adapter to train attached.

        Raises:
            ConfigError: there is none.
        """
        super().__init__()
        self.unet = _learning_motion(unet, "unet")
        self.text_encoder = text_encoder.requires_grad_(False)
        self.vae = vae.requires_grad_(False)
        self.objective = objective

    def train(self, mode: bool = True) -> MotionMethod:
        """Switch the motion modules; everything else stays in evaluation mode."""
        _switch(self, self.unet.motion_adapter, mode)
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


class TransformerMotionMethod(VideoDiffusionMethod):
    """The motion modules of a transformer; the rest of it, its text encoder and its VAE stay as they are.

    Batches and loss are those of `VideoDiffusionMethod`.
    """

    def __init__(
        self,
        transformer: Transformer3DModel,
        text_encoder: T5EncoderModel,
        vae: AutoencoderKLMagvit,
        objective: DiffusionObjective,
    ) -> None:
        """`transformer` must have the motion adapter to train attached.

        Raises:
            ConfigError: there is none, or the transformer's channels are not those of noise, mask and masked video.
        """
        super().__init__(
            _learning_motion(transformer, "transformer"), text_encoder.requires_grad_(False), vae, objective
        )

    def train(self, mode: bool = True) -> TransformerMotionMethod:
        """Switch the motion modules; everything else stays in evaluation mode."""
        _switch(self, self.transformer.motion_adapter, mode)
        return self


def _learning_motion(network: Network, name: str) -> Network:
    """The network, all frozen but its motion modules."""
    network.requires_grad_(False)
    if network.motion_adapter is None:
        raise ConfigError(f"There is no motion adapter to train; attach one with {name}.set_motion_adapter(adapter).")
    network.motion_adapter.requires_grad_(True)
    return network


def _switch(method: nn.Module, adapter: MotionAdapter | None, mode: bool) -> None:
    nn.Module.train(method, False)
    if adapter is not None:
        adapter.train(mode)
    method.training = mode
