"""Precision of a part for the time of its work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers import AutoencoderKL


@contextmanager
def in_float32(vae: AutoencoderKL, wanted: bool) -> Iterator[None]:
    """Within, what is half of the VAE is in float32 if that is wanted; afterwards bit for bit what it was.

    The VAE of Stable Diffusion XL needs it: its activations are beyond the range of float16. And it is faster on
    processors that do not multiply halves.
    """
    tensors = [*vae.parameters(), *vae.buffers()] if wanted else []
    halves = {tensor: tensor.dtype for tensor in tensors if tensor.dtype in (torch.float16, torch.bfloat16)}
    try:
        for tensor in halves:
            tensor.data = tensor.data.float()
        yield
    finally:
        for tensor, before in halves.items():
            tensor.data = tensor.data.to(before)
