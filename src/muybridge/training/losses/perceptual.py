"""How alike two pictures look: LPIPS where the user has its files, and what stands in for it where not."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muybridge.errors import CheckpointError
from muybridge.training.losses.settings import PerceptualSettings
from muybridge.weights.files import read_weights

logger = logging.getLogger(__name__)

_STAGES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
"""Convolutions of VGG16 by torchvision's numbers; features are taken after each row, and pooled before the next."""
_FEATURE_KEY = re.compile(r"^(?:features\.|(?:\w+\.)*net\.slice\d\.)?(\d+)\.(weight|bias)$")
_HEAD_KEY = re.compile(r"(?:^|\.)lin(\d)\.(?:model\.1\.)?weight$")
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
_ENCODER_BLOCKS = 3


class Lpips(nn.Module):
    """LPIPS on the features of VGG16 (Zhang et al., 2018): how different pictures look.

    The weights say how wide the network is. They are frozen.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, features: Mapping[str, Tensor], heads: Mapping[str, Tensor]) -> None:
        """Take what is needed out of the files.

        Args:
            features: VGG16's, by torchvision's names `features.N.weight` or those of the original LPIPS.
            heads: `linN.model.1.weight`.

        Raises:
            CheckpointError: layers are missing, or do not fit each other.
        """
        super().__init__()
        layers = {f"{m[1]}.{m[2]}": value for key, value in features.items() if (m := _FEATURE_KEY.match(key))}
        weights = {int(m[1]): value for key, value in heads.items() if (m := _HEAD_KEY.search(key))}
        _check_layers(layers, weights)
        self.layers = nn.ModuleDict()
        for index in (number for row in _STAGES for number in row):
            weight = layers[f"{index}.weight"].float()
            layer = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
            layer.load_state_dict({"weight": weight, "bias": layers[f"{index}.bias"].float()})
            self.layers[str(index)] = layer
        self.heads = nn.ParameterList([weights[index].float().reshape(-1) for index in range(len(_STAGES))])
        self.register_buffer("shift", torch.tensor(_SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)

    def forward(self, pixels: Tensor, others: Tensor) -> Tensor:
        """The distance of pictures `[n, 3, h, w]` in [-1, 1] from others, `[n]`."""
        distance = pixels.new_zeros(len(pixels))
        for ours, theirs, head in zip(self._features(pixels), self._features(others), self.heads, strict=True):
            difference = _unit(ours) - _unit(theirs)
            distance = distance + torch.einsum("nchw,c->nhw", difference.square(), head).mean(dim=(1, 2))
        return distance

    def _features(self, pixels: Tensor) -> list[Tensor]:
        x = (pixels - self.shift) / self.scale
        found = []
        for row in _STAGES:
            if found:
                x = F.max_pool2d(x, 2)
            for index in row:
                x = F.relu(self.layers[str(index)](x))
            found.append(x)
        return found


def _check_layers(layers: Mapping[str, Tensor], heads: Mapping[int, Tensor]) -> None:
    width = 3
    for stage, row in enumerate(_STAGES):
        for index in row:
            weight, bias = layers.get(f"{index}.weight"), layers.get(f"{index}.bias")
            if weight is None or bias is None or weight.ndim != 4:
                raise CheckpointError(
                    f"This is no file of VGG16's features: it lacks the convolution features.{index}. Torchvision's "
                    "vgg16-397923af.pth is one."
                )
            if weight.shape[1:] != (width, 3, 3) or bias.shape != weight.shape[:1]:
                raise CheckpointError(f"Its convolution features.{index} is not for {width} channels, as in VGG16.")
            width = len(weight)
        if stage not in heads or heads[stage].numel() != width:
            raise CheckpointError(
                f"The file of LPIPS heads has no lin{stage} of {width} channels for these features. The one for VGG16 "
                "is weights/v0.1/vgg.pth of the package lpips."
            )


class EncoderDistance(nn.Module):
    """Distances in the features of a VAE's encoder, as it is now: a copy that stays as it is.

    For each block of the encoder, features of a place are brought to length 1 and compared; a picture at a time,
    whatever the VAE is for.
    """

    def __init__(self, vae: nn.Module) -> None:
        """Copy what is needed of a VAE of pictures or videos."""
        super().__init__()
        encoder: Any = vae.encoder
        self.is_for_videos = encoder.conv_in.weight.ndim == 5
        self.conv_in = copy.deepcopy(encoder.conv_in)
        self.blocks = nn.ModuleList(copy.deepcopy(block) for block in encoder.down_blocks[:_ENCODER_BLOCKS])
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> EncoderDistance:
        """It stays in evaluation mode."""
        return super().train(False)

    def forward(self, pixels: Tensor, others: Tensor) -> Tensor:
        """The distance of pictures `[n, 3, h, w]` in [-1, 1] from others, `[n]`."""
        distances = [
            (_unit(ours) - _unit(theirs)).square().sum(dim=1).flatten(1).mean(1)
            for ours, theirs in zip(self._features(pixels), self._features(others), strict=True)
        ]
        return torch.stack(distances).mean(0)

    def _features(self, pixels: Tensor) -> list[Tensor]:
        x = self.conv_in(pixels[:, :, None] if self.is_for_videos else pixels)
        found = []
        for block in self.blocks:
            x = block(x)
            found.append(x)
        return found


class DifferenceDistance(nn.Module):
    """How far the differences of neighbouring pixels are apart, which is where blur shows."""

    def forward(self, pixels: Tensor, others: Tensor) -> Tensor:
        """The distance of pictures `[n, 3, h, w]` from others, `[n]`."""
        error = others - pixels
        return sum((error.diff(dim=axis).abs().flatten(1).mean(1) for axis in (2, 3)), start=error.new_zeros(()))


def make_perceptual(settings: PerceptualSettings, vae: nn.Module) -> nn.Module | None:
    """What judges likeness, of which the log says what it is; None where it would count nothing.

    Args:
        settings: which, and its files.
        vae: that is to be trained, as it is before.

    Raises:
        CheckpointError: a file is missing, damaged, or another network.
    """
    if not settings.weight:
        return None
    if settings.kind == "lpips":
        logger.info("perceptual loss: LPIPS with the features of %s", settings.features)
        return Lpips(read_weights(Path(str(settings.features))), read_weights(Path(str(settings.heads))))
    if settings.kind == "encoder":
        logger.info("perceptual loss: distances in the VAE's own encoder as it was before training, in place of LPIPS")
        return EncoderDistance(vae)
    logger.info("perceptual loss: differences of neighbouring pixels, in place of LPIPS")
    return DifferenceDistance()


def _unit(features: Tensor) -> Tensor:
    """Features of length 1 at every place; no gradient where there are none."""
    return features / (torch.linalg.vector_norm(features, dim=1, keepdim=True) + 1e-10)
