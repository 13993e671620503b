"""Names of U-Net layers in the original Stable Diffusion: single files have them, and kohya's LoRAs for XL."""

from __future__ import annotations

import re

_INSIDE_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_ROW = re.compile(r"(down|mid|up)_blocks?\.(?:(\d+)\.)?(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")


def ldm_names(name: str, layers_per_block: int) -> list[str]:
    """The original's names for a layer that diffusers calls `name`; none for layers that it does not have.

    There every residual block is a numbered block of its own, with its transformer as the next part of it; so is what
    halves the resolution, while what doubles it is the last part of the block before.
    """
    match = _ROW.fullmatch(name)
    if match is None:
        return [_OUTSIDE[name]] if name in _OUTSIDE else []
    where, level, kind, row, rest = match.groups()
    rows = layers_per_block + 1
    first = int(level or 0) * rows
    if kind == "downsamplers":
        return [f"input_blocks.{first + rows}.0.op"]
    if kind == "upsamplers":  # after the transformer, where the level has one
        return [f"output_blocks.{first + rows - 1}.{part}.conv" for part in (1, 2)]
    inside = _INSIDE_RESNET.get(rest) if kind == "resnets" else rest
    part = 1 if kind == "attentions" else 0
    block = {
        "down": f"input_blocks.{1 + first + int(row)}.{part}",
        "mid": "middle_block.1" if part else f"middle_block.{2 * int(row)}",
        "up": f"output_blocks.{first + int(row)}.{part}",
    }[where]
    return [] if inside is None else [f"{block}.{inside}"]
