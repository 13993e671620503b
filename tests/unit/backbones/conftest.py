"""Small U-Nets with random weights: the image model of diffusers, and our video model around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.motion import MotionAdapter, TemporalConfig

TINY: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (32, 64),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "cross_attention_dim": 16,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
}
Inputs = tuple[Tensor, Tensor, Tensor]


def randomise(module: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)


@pytest.fixture(scope="session")
def make_image_model() -> Callable[..., UNet2DConditionModel]:
    """A maker: settings besides the tiny ones -> diffusers' image U-Net with random weights."""

    def make(**settings: Any) -> UNet2DConditionModel:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = UNet2DConditionModel(**{**TINY, **settings})
        randomise(model)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def make_adapter() -> Callable[..., MotionAdapter]:
    """A maker: U-Net, and the sites to fill where not all -> adapter; `fresh` ones are the identity."""

    def make(
        unet: UNet3DConditionModel, only: tuple[str, ...] = ("",), fresh: bool = False, **options: Any
    ) -> MotionAdapter:
        sites = [site for site in unet.motion_sites().values() if site.name.startswith(only)]
        with torch.random.fork_rng():
            torch.manual_seed(0)
            adapter = MotionAdapter.for_sites(sites, config=TemporalConfig(num_heads=4), **options)
        if not fresh:
            randomise(adapter)
        return adapter.eval()

    return make


@pytest.fixture
def image_model(make_image_model: Callable[..., UNet2DConditionModel]) -> UNet2DConditionModel:
    return make_image_model()


@pytest.fixture
def unet(image_model: UNet2DConditionModel) -> UNet3DConditionModel:
    """The video model without motion modules."""
    return UNet3DConditionModel.from_unet2d(image_model)


@pytest.fixture
def moving(unet: UNet3DConditionModel, make_adapter: Callable[..., MotionAdapter]) -> UNet3DConditionModel:
    """The video model with motion modules that do something, at all sites."""
    unet.set_motion_adapter(make_adapter(unet))
    return unet


@pytest.fixture(scope="session")
def inputs() -> Inputs:
    """Two videos of three frames: latents, timesteps, text states."""
    generator = torch.Generator().manual_seed(1)
    sample = torch.randn(2, 4, 3, 8, 8, generator=generator)
    return sample, torch.tensor([500, 20]), torch.randn(2, 5, 16, generator=generator)
