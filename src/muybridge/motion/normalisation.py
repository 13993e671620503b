"""Group normalisation of channels-last video features, with statistics per frame or over all frames."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

NormScope = Literal["frame", "video"]
"""Over which pixels the statistics run: those of each frame alone, or those of all frames together."""


def group_norm(features: Tensor, norm: nn.GroupNorm, scope: NormScope = "frame") -> Tensor:
    """Normalise `[b, f, h, w, c]`; the result has the same shape, channels last in memory."""
    b, f, h, w, c = features.shape
    pooled = features.reshape(b, f * h, w, c) if scope == "video" else features.reshape(b * f, h, w, c)
    image = pooled.permute(0, 3, 1, 2)
    if torch.is_grad_enabled() and image.device.type == "cpu":
        # torch's CPU backward is about ten times slower on channels-last input, and in 2.13 it crashes there
        # when the weight requires a gradient and the input does not.
        image = image.contiguous()
    # Called as a module, so that hooks which bring its weights (offloading) run.
    return norm(image).permute(0, 2, 3, 1).reshape(b, f, h, w, c)
