"""Where a VAE computes, which is not where its weights wait while it is offloaded."""

from __future__ import annotations

import torch
from torch import nn


def working_device(vae: nn.Module) -> torch.device:
    """The device of the hook that fetches its weights, where there is one; otherwise that of the weights."""
    hook = getattr(vae, "_hf_hook", None)
    return torch.device(getattr(hook, "execution_device", None) or next(vae.parameters()).device)
