"""A SparseCtrl for keyframes or sketches, trained beside a video model that stays as it is."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn
from transformers import CLIPTextModel

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.backbones.unet.sparse_control import ConditionKind, SparseControlModel
from muybridge.errors import ConfigError
from muybridge.motion import MotionAdapter, TemporalConfig
from muybridge.pipelines.family import Training
from muybridge.training.data import Batch, BatchSource
from muybridge.training.methods.denoise import denoising_loss, overridden
from muybridge.training.objective.diffusion import DiffusionObjective, Drawn
from muybridge.types import SettingsDict

_LEAST_EDGE = 0.02
"""The change of brightness below which nothing is an edge."""


def make_keyframe_control(
    unet: UNet3DConditionModel,
    config: TemporalConfig,
    motion_levels: int | None = None,
    kind: ConditionKind = "rgb",
    spatial_factor: int = 8,
) -> SparseControlModel:
    """A fresh SparseCtrl: a copy of the U-Net's down path that adds nothing until it is trained.

    Args:
        unet: of the video model that it is for; its motion modules are not taken over.
        config: settings of the motion modules of the SparseCtrl.
        motion_levels: how many levels of the down path have them, from the finest on, as that is where empty frames
            are first told of the known ones; by default all. The deepest are the largest.
        kind: "rgb" for keyframes, "scribble" for sketches.
        spatial_factor: of the VAE, for sketches, which are shown as pixels.

    Raises:
        ConfigError: more levels than there are, or a U-Net with features that are not supported.
    """
    control = SparseControlModel.from_unet(unet, kind, config, spatial_factor)
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
    """What a SparseCtrl is shown of clips, as `conditioning.sparse` makes it, for a batch.

    Args:
        latents: of whole clips, `[b, c, f, h, w]`, scaled; or sketches of them in [0, 1].
        known: `bool [b, f]`, true for the frames that are given.

    Returns:
        `[b, c + 1, f, h, w]`: the known latents and zeros, and the mask as last channel.
    """
    mask = known[:, None, :, None, None].to(latents)
    return torch.cat((latents * mask, mask.expand(-1, 1, -1, *latents.shape[-2:])), dim=1)


def sketches_of(pixels: Tensor) -> Tensor:
    """Drawings of pictures `[..., 3, h, w]` in [-1, 1]: white lines on black in [0, 1], where brightness changes.

    The strongest edges of each picture are white, whatever its contrast; flat pictures are black.
    """
    shape = pixels.shape
    grey = pixels.flatten(0, -4).mean(dim=1, keepdim=True) if pixels.ndim > 3 else pixels.mean(0)[None, None]
    smooth = torch.tensor([1.0, 2.0, 1.0], dtype=grey.dtype, device=grey.device) / 4
    slope = torch.tensor([-1.0, 0.0, 1.0], dtype=grey.dtype, device=grey.device)
    across = torch.stack((smooth[:, None] * slope, slope[:, None] * smooth))[:, None]
    padded = F.pad(grey, (1, 1, 1, 1), mode="replicate")
    strength = F.conv2d(padded, across).square().sum(dim=1, keepdim=True).sqrt()
    strongest = strength.flatten(1).quantile(0.98, dim=1).clamp(min=_LEAST_EDGE).view(-1, 1, 1, 1)
    lines = (2 * strength / strongest - 0.5).clamp(0, 1)
    return lines.expand(-1, 3, -1, -1).reshape(shape)


class KnownFrames:
    """Batches that say anew which frames are known: the first, the first and the last, or some anywhere.

    Of clips of one frame it is known.
    """

    SHARES = (0.4, 0.2, 0.4)
    """How often each; of those anywhere there are 1 to half of the frames."""

    def __init__(self, source: BatchSource, seed: int) -> None:
        """Of `source` all else is taken."""
        self.source = source
        self.seed = seed

    def __call__(self, index: int) -> Batch:
        """Make batch number `index`, with `known [b, f]`."""
        batch = self.source(index)
        count, frames = batch["pixels"].shape[:2]
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + index) * 2 + 1)
        return {**batch, "known": torch.stack([self._known(frames, generator) for _ in range(count)])}

    def _known(self, frames: int, generator: torch.Generator) -> Tensor:
        known = torch.zeros(frames, dtype=torch.bool)
        kind = int(torch.multinomial(torch.tensor(self.SHARES), 1, generator=generator))
        if kind == len(self.SHARES) - 1:
            number = int(torch.randint(1, max(1, frames // 2) + 1, (1,), generator=generator))
            known[torch.randperm(frames, generator=generator)[:number]] = True
            return known
        known[0] = True
        known[-1] |= kind == 1
        return known


class SparseControlMethod(nn.Module):
    """A SparseCtrl alone: the U-Net, its motion modules, the text encoder and the VAE stay as they are.

    Batches: `pixels [b, f, 3, h, w]` in [-1, 1], `known [b, f]`, `input_ids [b, n]`, `frame_positions [f]`; for a
    SparseCtrl for sketches also `sketches [b, f, 3, h, w]` in [0, 1], which are else made of the frames.
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
            ConfigError: it is for a U-Net of other widths.
        """
        super().__init__()
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
        return denoising_loss(self, batch, generator)

    def encode(self, batch: Batch) -> tuple[Tensor, SettingsDict]:
        """Latents of the clips, what both networks are told besides, and what the SparseCtrl is `shown`."""
        with torch.no_grad():
            latents = self.how.latents(self, batch)
            told = self.how.told(self, batch)
        return latents, {**told, "shown": condition_of(self._given(batch, latents), batch["known"])}

    def predict(self, drawn: Drawn, told: SettingsDict) -> Tensor:
        """What the U-Net says, with the SparseCtrl beside it."""
        told = dict(told)
        shown = told.pop("shown")
        residuals = self.control(drawn.noisy, drawn.timesteps, condition=shown, **told)
        return self.backbone(
            drawn.noisy,
            drawn.timesteps,
            **told,
            down_block_additional_residuals=residuals.down_block_residuals,
            mid_block_additional_residual=residuals.mid_block_residual,
        ).sample

    def without(self) -> AbstractContextManager[None]:
        """While it is entered, the U-Net hears nothing of the SparseCtrl."""
        return overridden(self.backbone, down_block_additional_residuals=None, mid_block_additional_residual=None)

    def _given(self, batch: Batch, latents: Tensor) -> Tensor:
        if self.control.kind == "rgb":
            return latents
        sketches = batch["sketches"] if "sketches" in batch else sketches_of(batch["pixels"])
        return sketches.transpose(1, 2)


def _plain(value: object) -> object:
    # A config that was saved and read again has lists where a new one has tuples.
    return list(value) if isinstance(value, list | tuple) else value
