"""Weights in 8 bits and fewer: multiplied with their scales where these lie beside them, refused by name otherwise."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from muybridge.errors import CheckpointError
from muybridge.weights.names import listed

_SCALE = re.compile(r"\.(scale_weight|weight_scale)$")
_ABOUT_ACTIVATIONS = re.compile(r"(^|\.)(scaled_fp8|scale_input|input_scale|comfy_quant)$")
"""What programs that compute in 8 bits keep beside the scales."""
_PACKED = (
    (re.compile(r"\.(absmax|quant_map|SCB)$|quant_state\.bitsandbytes"), "bitsandbytes"),
    (re.compile(r"\.(qweight|qzeros)$"), "GPTQ, AWQ or Nunchaku"),
    (re.compile(r"\.weight\._(data|scale)$"), "quanto"),
    (re.compile(r"\.weight_scale_(2|inv)$"), "a format with a scale for every block"),
)


def dequantized(
    state: Mapping[str, Tensor], source: str, precision: Mapping[str, torch.dtype] | None = None
) -> dict[str, Tensor] | None:
    """Weights in 8 bits with scales beside them as the numbers that they mean, others as they are; None if none have.

    A scale is one number, or one for every row, as `X.scale_weight` or `X.weight_scale` of `X.weight`. They are
    multiplied in float32, and then converted to what `precision` says of their key, if it does.

    Raises:
        CheckpointError: packed in a way that is not read here, or a scale that does not fit its weight.
    """
    for pattern, program in _PACKED:
        if found := [key for key in state if pattern.search(key)]:
            raise CheckpointError(
                f"{source} is quantized as by {program} ({listed(found)}), which is not read here. Use the version in "
                "half or full precision."
            )
    scales = {f"{match.string[: match.start()]}.weight": match.string for key in state if (match := _SCALE.search(key))}
    scales = {key: scale for key, scale in scales.items() if key in state and state[key].element_size() == 1}
    marked = scales or any(key.endswith("scaled_fp8") for key in state)
    if not marked:
        return None
    left_out = {*scales.values(), *(key for key in state if _ABOUT_ACTIVATIONS.search(key))}
    return {
        key: _multiplied(key, value, state[scales[key]], source).to((precision or {}).get(key, torch.float32))
        if key in scales
        else value
        for key, value in state.items()
        if key not in left_out
    }


def _multiplied(key: str, weight: Tensor, scale: Tensor, source: str) -> Tensor:
    fits = weight.dtype != torch.uint8 and weight.ndim > 0 and scale.numel() in (1, len(weight))
    if not fits:
        raise CheckpointError(
            f"{source} has {key} as {list(weight.shape)} in {str(weight.dtype).removeprefix('torch.')} with a scale of "
            f"{list(scale.shape)}; read is one scale, or one for every row. Use the version in half or full precision."
        )
    return weight.float() * scale.float().reshape(-1, *(1,) * (weight.ndim - 1))


def read_gguf(path: Path) -> dict[str, Tensor]:
    """Read a GGUF file through diffusers, every weight as the number that it means.

    Raises:
        CheckpointError: the package that reads such files is not installed, or this one cannot be read.
    """
    from diffusers.utils import is_gguf_available  # slow to import, and only needed here

    if not is_gguf_available():
        raise CheckpointError(
            f"{path} is a GGUF file, whose weights are packed in few bits, and the package that reads such files is "
            "not installed: `pip install gguf`. Or use a .safetensors version of the model in place of GGUF."
        )
    from diffusers.models.model_loading_utils import load_gguf_checkpoint
    from diffusers.quantizers.gguf.utils import GGUFParameter, dequantize_gguf_tensor

    try:
        found = load_gguf_checkpoint(path)
        return {
            key: dequantize_gguf_tensor(value) if isinstance(value, GGUFParameter) else value
            for key, value in found.items()
        }
    except Exception as error:  # that package has no errors of its own
        raise CheckpointError(
            f"{path} is a GGUF file that is damaged, or packed in a way that diffusers does not know. Download it "
            "again, or use a .safetensors version of the model."
        ) from error
