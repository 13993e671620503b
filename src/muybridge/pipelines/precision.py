"""Precision of a part for the time of its work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers import AutoencoderKL
from torch import nn


@contextmanager
def in_float32(vae: AutoencoderKL, wanted: bool) -> Iterator[None]:
    """Within, the VAE is in float32 if that is wanted; afterwards bit for bit what it was.

    The VAE of Stable Diffusion XL needs it: its activations are beyond the range of float16.
    """
    before = vae.dtype
    if not wanted or before == torch.float32:
        yield
        return
    nn.Module.to(vae, torch.float32)  # `vae.to` of diffusers would log a warning about nothing
    try:
        yield
    finally:
        nn.Module.to(vae, before)
