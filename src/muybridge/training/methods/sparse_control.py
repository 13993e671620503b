"""A SparseCtrl for keyframes, trained beside a video model that stays as it is."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from transformers import CLIPTextModel

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.backbones.unet.sparse_control import SparseControlModel
from muybridge.errors import ConfigError
from muybridge.motion import MotionAdapter, TemporalConfig
from muybridge.pipelines.family import Training
from muybridge.training.data import Batch
from muybridge.training.objective.diffusion import DiffusionObjective


def make_keyframe_control(
    unet: UNet3DConditionModel, config: TemporalConfig, motion_levels: int | None = None
) -> SparseControlModel:
    """A fresh SparseCtrl for keyframes: a copy of the U-Net's down path that adds nothing until it is trained.

    Args:
        unet: of the video model that it is for; its motion modules are not taken over.
        config: settings of the motion modules of the SparseCtrl.
        motion_levels: how many levels of the down path have them, from the finest on, as that is where empty frames
            are first told of the known ones; by default all. The deepest are the largest.

    Raises:
        ConfigError: more levels than there are, or a U-Net with features that are not supported.
    """
    control = SparseControlModel.from_unet(unet, "rgb", config)
    if motion_levels is None:
        return control
    if not 1 <= motion_levels <= len(control.down_blocks):
        raise ConfigError(
            f"This U-Net has {len(control.down_blocks)} levels, of which 1 or more can have motion modules; given "
            f"motion_levels {motion_levels}."
        )
    prefixes = tuple(f"down_blocks.{level}." for level in range(motion_levels))
    sites = [site for name, site in control.motion_sites().items() if name.startswith(prefixes)]
    control.set_motion_adapter(MotionAdapter.for_sites(sites, config=config))
    return control


def condition_of(latents: Tensor, known: Tensor) -> Tensor:
    """What a SparseCtrl is shown of clips: as `conditioning.keyframe_condition` makes it, for a batch.

    Args:
        latents: of whole clips, `[b, c, f, h, w]`, scaled.
        known: `bool [b, f]`, true for the frames that are given.

    Returns:
        `[b, c + 1, f, h, w]`: the known latents and zeros, and the mask as last channel.
    """
    mask = known[:, None, :, None, None].to(latents)
    return torch.cat((latents * mask, mask.expand(-1, 1, -1, *latents.shape[-2:])), dim=1)


class SparseControlMethod(nn.Module):
    """A SparseCtrl alone: the U-Net, its motion modules, the text encoder and the VAE stay as they are.

    Batches: `pixels [b, f, 3, h, w]` in [-1, 1], `known [b, f]`, `input_ids [b, n]`, `frame_positions [f]`.
    """

    def __init__(
        self,
        unet: UNet3DConditionModel,
        control: SparseControlModel,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        objective: DiffusionObjective,
        how: Training,
    ) -> None:
        """Train `control`, with its motion modules; `make_keyframe_control` makes a new one.

        Args:
            unet: of the video model.
            control: beside it.
            vae: of the clips.
            text_encoder: of the captions.
            objective: noise levels and targets.
            how: what the family of the video model makes of a batch.

        Raises:
            ConfigError: it is for drawings, or for a U-Net of other widths.
        """
        super().__init__()
        if control.kind != "rgb":
            raise ConfigError("This method trains a SparseCtrl for pictures, and this one is for drawings.")
        names = ("block_out_channels", "layers_per_block")
        if any(_plain(control.config[name]) != _plain(unet.config[name]) for name in names):
            raise ConfigError(
                f"This SparseCtrl has levels of {_plain(control.config['block_out_channels'])} channels with "
                f"{control.config['layers_per_block']} layers, and the U-Net of "
                f"{_plain(unet.config['block_out_channels'])} with {unet.config['layers_per_block']}. Make it of this "
                "U-Net, with make_keyframe_control(unet, config)."
            )
        self.backbone = unet.requires_grad_(False)
        self.control = control.requires_grad_(True)
        control.conv_in.weight.requires_grad_(False)  # all it ever sees is zeros
        self.vae = vae.requires_grad_(False)
        self.text_encoder = text_encoder.requires_grad_(False)
        self.objective = objective
        self.how = how

    def train(self, mode: bool = True) -> SparseControlMethod:
        """Switch the SparseCtrl; everything else stays in evaluation mode."""
        super().train(False)
        self.control.train(mode)
        self.training = mode
        return self

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """The objective's loss of the U-Net's prediction over all frames, the known ones among them."""
        with torch.no_grad():
            latents = self.how.latents(self, batch)
            told = self.how.told(self, batch)
        drawn = self.objective.draw(latents, generator)
        shown = condition_of(latents, batch["known"])
        residuals = self.control(drawn.noisy, drawn.timesteps, condition=shown, **told)
        prediction = self.backbone(
            drawn.noisy,
            drawn.timesteps,
            **told,
            down_block_additional_residuals=residuals.down_block_residuals,
            mid_block_additional_residual=residuals.mid_block_residual,
        ).sample
        return self.objective.loss(drawn, prediction)


def _plain(value: object) -> object:
    # A config that was saved and read again has lists where a new one has tuples.
    return list(value) if isinstance(value, list | tuple) else value
