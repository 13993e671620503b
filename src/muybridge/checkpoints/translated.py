"""Networks of single files: built without numbers, and filled with what diffusers translated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from muybridge.weights.loading import load_strictly

ModelT = TypeVar("ModelT", bound=nn.Module)


def filled(model: ModelT, translated: Mapping[str, Tensor | None], dtype: torch.dtype | None, source: str) -> ModelT:
    """The model with these weights, in evaluation mode.

    Args:
        model: on the meta device.
        translated: weights under its names; what diffusers looked for and did not find, it gives as None.
        dtype: of the weights; None keeps every one as it is stored.
        source: of them, for messages.

    Raises:
        CheckpointError: weights missing, left over, of other shapes, or not finite.
    """
    found = {key: value for key, value in translated.items() if value is not None}
    state = {key: value if dtype is None else value.to(dtype) for key, value in found.items()}
    load_strictly(model, state, source, assign=True)
    return model.eval()
