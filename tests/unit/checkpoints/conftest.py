"""Small motion adapters with the sites of published models, and their weights in every layout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from muybridge.motion import MotionAdapter, MotionSite, TemporalConfig

WIDTHS = (32, 32, 64, 64)
AdapterMaker = Callable[..., MotionAdapter]


def sites_of(widths: tuple[int, ...], mid: bool) -> list[MotionSite]:
    sites = [MotionSite(f"down_blocks.{i}.motion_modules.{j}", w) for i, w in enumerate(widths) for j in range(2)]
    if mid:
        sites.append(MotionSite("mid_block.motion_modules.0", widths[-1]))
    return sites + [
        MotionSite(f"up_blocks.{i}.motion_modules.{j}", w) for i, w in enumerate(reversed(widths)) for j in range(3)
    ]


@pytest.fixture(scope="session")
def make_adapter() -> AdapterMaker:
    """A maker: levels, middle block or not, frames of the position tables -> adapter with random weights."""

    def make(
        levels: int = 4, mid: bool = False, frames: int = 32, widths: tuple[int, ...] = WIDTHS, **options: Any
    ) -> MotionAdapter:
        config = TemporalConfig(num_heads=8, trained_frames=frames, **options)
        adapter = MotionAdapter.for_sites(sites_of(widths[:levels], mid), config=config)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in adapter.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        return adapter.eval()

    return make
