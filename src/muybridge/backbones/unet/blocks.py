"""Levels of the U-Net: rows of (residual block, spatial transformer, motion module), then resampling."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from muybridge.backbones.unet.config import UNetConfig
from muybridge.backbones.unet.layers import Downsample, FrameLayout, ResidualBlock, SpatialTransformer, Upsample
from muybridge.motion.contract import MotionContext

if TYPE_CHECKING:
    from muybridge.backbones.unet.image_prompt import TextAndImage

    Text = Tensor | TextAndImage


class Level(nn.Module):
    """What all levels have in common: their sites and their rows, run one by one and checkpointed whole."""

    resnets: nn.ModuleList
    attentions: nn.ModuleList
    motion_modules: nn.ModuleList
    width: int

    def __init__(self) -> None:
        """Subclasses add their rows."""
        super().__init__()
        self.gradient_checkpointing = False
        self._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)

    def _make_rows(self, config: UNetConfig, level: int, resnets: list[ResidualBlock], attention: bool) -> None:
        self.width = config.block_out_channels[level]
        self.resnets = nn.ModuleList(resnets)
        if attention:
            self.attentions = nn.ModuleList(SpatialTransformer(config, self.width, level) for _ in resnets)
        self.has_attention = attention
        self.motion_modules = empty_sites(len(resnets))

    def site_names(self) -> Iterator[str]:
        """Names of the sites, relative to the level."""
        for index in range(len(self.motion_modules)):
            yield f"motion_modules.{index}"

    def _run_row(
        self,
        index: int,
        x: Tensor,
        time: Tensor,
        text: Text,
        context: MotionContext,
        layout: FrameLayout,
    ) -> Tensor:
        x = self.resnets[index](x, time, layout)
        if self.has_attention:
            x = self.attentions[index](x, text, layout)
        return run_motion(self.motion_modules[index], x, context, layout)

    def _row(self, *arguments: Any) -> Tensor:
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            return self._gradient_checkpointing_func(self._run_row, *arguments)
        return self._run_row(*arguments)


def empty_sites(count: int) -> nn.ModuleList:
    """Sites without modules: absent, so they cost nothing and leave no keys."""
    sites = nn.ModuleList()
    for index in range(count):
        sites.add_module(str(index), None)
    return sites


def run_motion(module: nn.Module | None, x: Tensor, context: MotionContext, layout: FrameLayout) -> Tensor:
    """Apply the module of a site, if there is one, to `[b * f, c, h, w]`."""
    return x if module is None else layout.fold(module(layout.unfold(x), context))


class DownLevel(Level):
    """Rows at one resolution; their outputs are the skips; then half the resolution, except at the last level."""

    def __init__(self, config: UNetConfig, level: int) -> None:
        """Level 0 is the finest."""
        super().__init__()
        channels = config.block_out_channels
        previous = channels[max(0, level - 1)]
        resnets = [
            ResidualBlock(config, previous if i == 0 else channels[level], channels[level])
            for i in range(config.layers_per_block)
        ]
        self._make_rows(config, level, resnets, config.cross_attention_levels[level])
        last = level == len(channels) - 1
        self.downsamplers = None if last else nn.ModuleList([Downsample(channels[level])])

    def forward(
        self, x: Tensor, time: Tensor, text: Text, context: MotionContext, layout: FrameLayout
    ) -> tuple[Tensor, list[Tensor]]:
        """The output, and the skips in order."""
        skips = []
        for index in range(len(self.resnets)):
            x = self._row(index, x, time, text, context, layout)
            skips.append(x)
        if self.downsamplers is not None:
            x = self.downsamplers[0](x)
            skips.append(x)
        return x, skips


class MidLevel(Level):
    """Residual block, spatial transformer, motion module, residual block, at the coarsest resolution."""

    def __init__(self, config: UNetConfig) -> None:
        """Always has a spatial transformer."""
        super().__init__()
        width = config.block_out_channels[-1]
        level = len(config.block_out_channels) - 1
        self._make_rows(config, level, [ResidualBlock(config, width, width)], attention=True)
        self.resnets.append(ResidualBlock(config, width, width))

    def forward(self, x: Tensor, time: Tensor, text: Text, context: MotionContext, layout: FrameLayout) -> Tensor:
        """`[b * f, c, h, w]` to the same shape."""
        x = self._row(0, x, time, text, context, layout)
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            return self._gradient_checkpointing_func(self.resnets[1], x, time, layout)
        return self.resnets[1](x, time, layout)


class UpLevel(Level):
    """Rows that each take one skip; then twice the resolution, except at the finest level."""

    def __init__(self, config: UNetConfig, level: int) -> None:
        """`level` counts from the finest, as in `DownLevel`."""
        super().__init__()
        channels = config.block_out_channels
        rows = config.layers_per_block + 1
        coarser = channels[min(len(channels) - 1, level + 1)]
        finer = channels[max(0, level - 1)]
        resnets = [
            ResidualBlock(
                config,
                (coarser if i == 0 else channels[level]) + (finer if i == rows - 1 else channels[level]),
                channels[level],
            )
            for i in range(rows)
        ]
        self._make_rows(config, level, resnets, config.cross_attention_levels[level])
        self.upsamplers = nn.ModuleList([Upsample(channels[level])]) if level > 0 else None

    def forward(
        self,
        x: Tensor,
        skips: list[Tensor],
        size: tuple[int, int],
        time: Tensor,
        text: Text,
        context: MotionContext,
        layout: FrameLayout,
    ) -> Tensor:
        """Uses up `skips`, one for each row, from the end; `size` is the height and width that the next level needs."""
        for index in range(len(self.resnets)):
            x = self._row(index, torch.cat([x, skips.pop()], dim=1), time, text, context, layout)
        return x if self.upsamplers is None else self.upsamplers[0](x, *size)
