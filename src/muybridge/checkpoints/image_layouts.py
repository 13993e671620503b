"""The U-Net of an image model in any names that it is shared in, under those of a whole single file."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from muybridge.checkpoints.ldm_names import ldm_names
from muybridge.weights.keymap import KeyMap, apply_key_map

UNET_PREFIX = "model.diffusion_model."
"""Before the U-Net's keys in a whole model."""
AVERAGED_PREFIX = "model_ema."
"""Before the averaged (EMA) ones."""
_WRAPPER = "diffusion_model."
_LDM_STEMS = ("input_blocks.", "middle_block.", "output_blocks.", "time_embed.", "label_emb.", "out.")
_DIFFUSERS_STEMS = ("conv_", "down_blocks.", "mid_block.", "up_blocks.", "time_embedding.", "add_embedding.")
_AVERAGED_KEYS = KeyMap(
    keep=r"^model_ema\.diffusion_model",
    replace=(
        (r"^model_ema\.diffusion_model", UNET_PREFIX),
        # A part's number has one digit, and no name begins with one.
        (r"\.(input_blocks|output_blocks)(\d+)(\d)", r".\1.\2.\3."),
        (r"\.label_emb(\d)(\d)", r".label_emb.\1.\2."),
        (r"\.(middle_block|time_embed|out)(\d)", r".\1.\2."),
        (r"transformer_blocks(\d+)", r"transformer_blocks.\1."),
        (r"(in_layers|emb_layers|out_layers|to_out)(\d)", r"\1.\2."),
        (r"(attn[12])(?=to_)", r"\1."),
        (r"ffnet(\d)", r"ff.net.\1."),
        (r"(?<!\.)(weight|bias)$", r".\1"),
    ),
)
"""Averaged weights have the names of the plain ones without their dots."""


def unified_unet(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str | None]:
    """Give the U-Net's keys the names and the prefix that they have in a whole model; others stay as they are.

    Args:
        state: of a single file.

    Returns:
        The dictionary, and how it was found: "ldm"; "averaged", where there are no other weights; "bare", without a
        prefix; "diffusers"; None where there is no U-Net.
    """
    if any(key.startswith(UNET_PREFIX) for key in state):
        return dict(state), "ldm"
    if averaged := apply_key_map(_AVERAGED_KEYS, state):
        return {k: v for k, v in state.items() if not k.startswith(AVERAGED_PREFIX)} | averaged, "averaged"
    for prefix in ("", _WRAPPER):
        if f"{prefix}input_blocks.0.0.weight" in state and f"{prefix}out.2.weight" in state:
            stems = tuple(prefix + stem for stem in _LDM_STEMS)
            return {_prefixed(key, prefix) if key.startswith(stems) else key: v for key, v in state.items()}, "bare"
    plain = {key.removeprefix("unet."): value for key, value in state.items()}
    if "conv_in.weight" in plain and any(key.startswith("down_blocks.0.resnets.") for key in plain):
        return {_from_diffusers(key, plain): value for key, value in plain.items()}, "diffusers"
    return dict(state), None


def _prefixed(key: str, prefix: str) -> str:
    return UNET_PREFIX + key.removeprefix(prefix)


def _from_diffusers(key: str, state: Mapping[str, Tensor]) -> str:
    """The name in a whole model; the key itself where the original has no such weight."""
    if not key.startswith(_DIFFUSERS_STEMS):
        return key
    rows = sum(f"down_blocks.0.resnets.{row}.conv1.weight" in state for row in range(10))
    layer, _, last = key.rpartition(".")
    names = ldm_names(layer, rows)
    if len(names) == 2:  # what enlarges stands behind the transformer, where the level has one
        level = layer.split(".")[1]
        names = [names[any(other.startswith(f"up_blocks.{level}.attentions.") for other in state)]]
    return f"{UNET_PREFIX}{names[0]}.{last}" if names else key
