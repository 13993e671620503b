"""Small motion modules and adapters with weights that do something."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from muybridge.motion import (
    ModuleSpec,
    MotionAdapter,
    MotionSite,
    TemporalConfig,
    TemporalMotionModule,
    build_motion_module,
)

SITES = (
    MotionSite("down_blocks.0.motion_modules.0", 32),
    MotionSite("down_blocks.1.motion_modules.0", 64),
    MotionSite("up_blocks.0.motion_modules.0", 64),
)


def randomise(module: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)


@pytest.fixture
def make_module() -> Callable[..., TemporalMotionModule]:
    """A maker: settings of `TemporalConfig` -> a module of 16 channels with random weights, also in `proj_out`."""

    def make(fresh: bool = False, width: int = 16, **settings: object) -> TemporalMotionModule:
        torch.manual_seed(0)
        config = {"num_heads": 4, "norm_groups": 4, **settings}
        module = build_motion_module(ModuleSpec("temporal", width, config))
        assert isinstance(module, TemporalMotionModule)
        if not fresh:
            randomise(module)
        return module

    return make


@pytest.fixture
def adapter() -> MotionAdapter:
    """Three sites, random weights, 4 heads."""
    torch.manual_seed(0)
    made = MotionAdapter.for_sites(SITES, config=TemporalConfig(num_heads=4))
    randomise(made)
    return made
