"""Networks that tell real frames and videos from what a VAE makes of them, patch by patch.

Sources: Isola et al., "Image-to-image translation with conditional adversarial networks" (2017) for frames; the one
for videos is EasyAnimate's, with the anti-aliased downsampling of Zhang (2019).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muybridge.processor import convolve3d

_SLOPE = 0.2
_GROUPS = 32


class FrameDiscriminator(nn.Module):
    """Judges patches of single pictures; they share batch statistics, so real and made ones are judged apart."""

    def __init__(self, width: int = 64, layers: int = 3) -> None:
        """Double the `width` of the first layer in each of `layers`, of which all but the last halve the size."""
        super().__init__()
        widths = [width * min(2**layer, 8) for layer in range(layers + 1)]
        main: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(_SLOPE)]
        for layer in range(1, layers + 1):
            stride = 2 if layer < layers else 1
            main += [
                nn.Conv2d(widths[layer - 1], widths[layer], 4, stride, padding=1, bias=False),
                nn.BatchNorm2d(widths[layer]),
                nn.LeakyReLU(_SLOPE),
            ]
        main.append(nn.Conv2d(widths[-1], 1, 4, padding=1))
        self.main = nn.Sequential(*main)
        self.apply(_initialise)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pictures `[n, 3, h, w]` to a verdict a patch, `[n, 1, h', w']`: above 0 for real."""
        return self.main(pixels)


class VideoDiscriminator(nn.Module):
    """Judges patches of videos over several frames."""

    def __init__(self, widths: tuple[int, ...] = (64, 128, 256)) -> None:
        """A block for each of `widths`, multiples of 32; all but the last halve frames, height and width."""
        super().__init__()
        self.conv_in = _Convolution(3, widths[0], 3, stride=2, padding=1)
        before = (widths[0], *widths[:-1])
        self.blocks = nn.ModuleList(
            _VideoBlock(before[index], width, halves=index < len(widths) - 1) for index, width in enumerate(widths)
        )
        self.conv_out = _Convolution(widths[-1], 1, 3, padding=1)
        self.apply(_initialise)

    def forward(self, pixels: Tensor) -> Tensor:
        """Videos `[b, 3, f, h, w]` to a verdict a patch, `[b, 1, f', h', w']`: above 0 for real."""
        x = self.conv_in(pixels)
        for block in self.blocks:
            x = block(x)
        return self.conv_out(x)


class _Convolution(nn.Conv3d):
    """With the right gradient on every processor."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name
        padding = tuple(int(each) for each in self.padding)
        return convolve3d(input, self.weight, self.bias, self.stride, padding)


class _VideoBlock(nn.Module):
    def __init__(self, channels: int, width: int, halves: bool) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(_GROUPS, channels)
        self.conv1 = _Convolution(channels, width, 3, padding=1)
        self.downsampler = _BlurPool(width) if halves else nn.Identity()
        self.norm2 = nn.GroupNorm(_GROUPS, width)
        self.conv2 = _Convolution(width, width, 3, padding=1)
        pointwise = nn.Conv3d(channels, width, 1)
        self.shortcut = nn.Sequential(*([_BlurPool(channels)] if halves else []), pointwise)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(F.leaky_relu(self.norm1(x), _SLOPE))
        hidden = self.conv2(self.downsampler(F.leaky_relu(self.norm2(hidden), _SLOPE)))
        return (hidden + self.shortcut(x)) / math.sqrt(2)


class _BlurPool(nn.Module):
    """Halves frames, height and width after a blur, so that nothing aliases."""

    filt: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        tap = torch.tensor([1.0, 2.0, 1.0]) / 4
        kernel = torch.einsum("i,j,k->ijk", tap, tap, tap)
        self.register_buffer("filt", kernel.expand(channels, 1, 3, 3, 3).clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv3d(x, self.filt, stride=2, padding=1, groups=x.shape[1])


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
