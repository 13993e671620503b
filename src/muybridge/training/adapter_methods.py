"""Motion modules alone, in a video transformer; `methods.MotionMethod` is the same for a U-Net."""

from __future__ import annotations

from torch import nn
from transformers import T5EncoderModel

from muybridge.backbones.dit import Transformer3DModel
from muybridge.errors import ConfigError
from muybridge.training.methods import DiffusionObjective
from muybridge.training.video_methods import VideoDiffusionMethod
from muybridge.vae import AutoencoderKLMagvit


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
        super().__init__(transformer.requires_grad_(False), text_encoder.requires_grad_(False), vae, objective)
        if transformer.motion_adapter is None:
            raise ConfigError(
                "There is no motion adapter to train; attach one with transformer.set_motion_adapter(adapter)."
            )
        transformer.motion_adapter.requires_grad_(True)

    def train(self, mode: bool = True) -> TransformerMotionMethod:
        """Switch the motion modules; everything else stays in evaluation mode."""
        nn.Module.train(self, False)
        if self.transformer.motion_adapter is not None:
            self.transformer.motion_adapter.train(mode)
        self.training = mode
        return self
