"""From the pixels of a condition to the first features of a SparseCtrl."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

from muybridge.motion.linear import Convolution

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class PictureEmbedding(nn.Module):
    """Convolutions from pixels down to the size of the latents, the last of them zero at first.

    Source: ControlNet (arXiv 2302.05543), as AnimateDiff has it in `animatediff/models/sparse_controlnet.py`.
    """

    def __init__(self, in_channels: int, widths: Sequence[int], out_channels: int) -> None:
        """Each of `widths` after the first halves height and width."""
        super().__init__()
        self.conv_in = Convolution(in_channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for narrow, wide in pairwise(widths):
            self.blocks.append(Convolution(narrow, narrow, 3, padding=1))
            self.blocks.append(Convolution(narrow, wide, 3, padding=1, stride=2))
        self.conv_out = zeroed(Convolution(widths[-1], out_channels, 3, padding=1))

    def forward(self, pixels: Tensor) -> Tensor:
        """`[n, c, h, w]` to `[n, d, h / s, w / s]`."""
        x = F.silu(self.conv_in(pixels))
        for block in self.blocks:
            x = F.silu(block(x))
        return self.conv_out(x)


def zeroed(module: ModuleT) -> ModuleT:
    """The module with all parameters zero, so that what it is added to stays as it was."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module
