"""The most memory that a run has taken."""

from __future__ import annotations

import resource
import sys

import torch


def start_measuring(device: torch.device) -> None:
    """Forget what earlier runs took, where a device can; the memory of a process is counted since it began."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """Bytes: of tensors on a GPU, where that is one, since `start_measuring`; else of the process since it began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
