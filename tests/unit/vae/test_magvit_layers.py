"""The convolution of the video VAE: its gradients in half precision."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from muybridge.vae.magvit.config import MagvitConfig
from muybridge.vae.magvit.layers import VideoConvolution
from muybridge.vae.magvit.model import AutoencoderKLMagvit


def config() -> MagvitConfig:
    return AutoencoderKLMagvit(
        block_out_channels=(16,) * 4, norm_num_groups=4, layers_per_block=1, slice_compression_vae=True
    ).shape


def weight_gradient(num_frames: int, dtype: torch.dtype, stride: int, autocast: bool) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    convolution = VideoConvolution(config(), 16, 16, (stride, 1, 1))
    with torch.no_grad():
        for parameter in convolution.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    x = torch.randn(2, 16, num_frames, 8, 8, generator=generator)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = convolution.to(torch.float32 if autocast else dtype)(x if autocast else x.to(dtype))
    y.float().backward(torch.randn(y.shape, generator=generator))
    assert convolution.weight.grad is not None
    return convolution.weight.grad.float()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("num_frames", [1, 2, 3, 4])
@pytest.mark.parametrize("autocast", [False, True])
def test_weight_gradients_in_half_precision_are_those_of_float32(num_frames: int, stride: int, autocast: bool) -> None:
    exact = weight_gradient(num_frames, torch.float32, stride, autocast=False)
    half = weight_gradient(num_frames, torch.bfloat16, stride, autocast)
    assert float(F.cosine_similarity(exact.flatten(), half.flatten(), dim=0)) > 0.999
