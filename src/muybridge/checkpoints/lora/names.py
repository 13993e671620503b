"""Which layers of a network LoRA files may mean, in all the spellings that they have been given."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from peft.tuners.lora import LoraLayer
from torch import nn

from muybridge.checkpoints.ldm_names import ldm_names
from muybridge.checkpoints.lora.reading import LoraPair, flat_name

AdaptableLayer = nn.Linear | nn.Conv2d

ORIGINAL_SPELLING = (r"(motion_modules\.\d+|attn_temporal)\.(?!temporal_transformer\.)", r"\1.temporal_transformer.")
"""AnimateDiff and EasyAnimate have a wrapper module around their motion modules."""
_MOTION_BLOCK = r"(motion_modules\.\d+\.transformer_blocks\.\d+)\.attention_blocks\."
DIFFUSERS_SPELLINGS = ((_MOTION_BLOCK + r"0\.", r"\1.attn1."), (_MOTION_BLOCK + r"1\.", r"\1.attn2."))
"""diffusers has other names for the attentions of motion modules."""
CLIP_SPELLING = (r"^(?=encoder\.layers\.)", "text_model.")
"""transformers took a level off CLIP's text encoder, which every published LoRA has."""
_OLDER_SPELLINGS = (
    (r"\.to_out\.0$", ".to_out"),
    (r"\.self_attn\.([qkv])_proj$", r".self_attn.to_\1"),
    (r"\.self_attn\.out_proj$", ".self_attn.to_out"),
    (r"^text_model\.", ""),
)
_SPELLINGS = (ORIGINAL_SPELLING, *DIFFUSERS_SPELLINGS, CLIP_SPELLING, *_OLDER_SPELLINGS)

_FAMILIES = (
    (r"^(double_blocks|single_blocks|single_transformer_blocks)_\d", "FLUX"),
    (r"^joint_(transformer_)?blocks_\d|_add_[qkv]_proj$", "Stable Diffusion 3"),
    (r"^blocks_\d+_(self_attn|cross_attn|ffn)_", "Wan"),
    (r"motion_modules_\d+_", "AnimateDiff's motion modules"),
    (r"^(input_blocks|middle_block|output_blocks|down_blocks|mid_block|up_blocks)_", "a Stable Diffusion U-Net"),
    (r"^transformer_blocks_\d+_", "a transformer like EasyAnimate's"),
    (r"encoder_layers_\d+_(self_attn|mlp)_", "a CLIP text encoder"),
    (r"encoder_block_\d+_layer_\d+_", "a T5 text encoder"),
)
_TEXT_WIDTHS = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 2048: "Stable Diffusion XL"}
_READS_TEXT = re.compile(r"attn2_to_[kv]$")
_READS_TOKENS = re.compile(r"^transformer_blocks_\d+_attn1_to_[qkv]$")


def adaptable_layers(model: nn.Module) -> dict[str, AdaptableLayer]:
    """The linear and convolution layers of a network by name, those under a LoRA as they are without it."""
    found: dict[str, AdaptableLayer] = {}
    wrapped = "\0"  # no name begins with it
    for name, module in model.named_modules():
        if name.startswith(wrapped):
            continue
        base = module
        if isinstance(module, LoraLayer):
            wrapped, base = f"{name}.", module.get_base_layer()
        if isinstance(base, AdaptableLayer):
            found[name] = base
    return found


def spelled_layers(names: Iterable[str], layers_per_block: int | None) -> dict[str, str]:
    """From every spelling of a layer, with `_` for `.`, to the layer's name here.

    `layers_per_block` is a U-Net's, which the names of the original Stable Diffusion count through; None has no such.
    """
    found: dict[str, str] = {}
    for name in names:
        spellings = [name]
        for pattern, replacement in _SPELLINGS:
            spellings += [new for old in spellings if (new := re.sub(pattern, replacement, old)) != old]
        if layers_per_block is not None:
            spellings += ldm_names(name, layers_per_block)
        for spelling in spellings:
            found.setdefault(flat_name(spelling), name)
    return found


def described(pairs: Iterable[LoraPair]) -> str:
    """What a LoRA was made for, as far as its names and widths say."""
    return _family({pair.name: pair.down.shape[1] for pair in pairs})


def described_model(layers: Mapping[str, AdaptableLayer]) -> str:
    """The same of a network."""
    return _family({flat_name(name): weight_shape(layer)[1] for name, layer in layers.items()}, whole=True)


def _family(widths: Mapping[str, int], whole: bool = False) -> str:
    """From the layers' names and the channels that each reads; a whole U-Net may have motion modules beside."""
    found = next(
        (
            name
            for pattern, name in _FAMILIES
            if not (whole and "motion" in name) and any(re.search(pattern, key) for key in widths)
        ),
        None,
    )
    if found is None:
        return "a network that is not known here"
    if "U-Net" in found:
        text = next((width for key, width in widths.items() if _READS_TEXT.search(key)), None)
        return found if text is None else _TEXT_WIDTHS.get(text, f"{found} that reads text of {text} channels")
    if "EasyAnimate" in found:
        width = next((width for key, width in widths.items() if _READS_TOKENS.search(key)), None)
        return found if width is None else f"{found} of {width} channels"
    return found


def weight_shape(layer: AdaptableLayer) -> tuple[int, ...]:
    """The shape of a layer's weight, whatever way it is stored."""
    if isinstance(layer, nn.Conv2d):
        return (layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size)
    return (layer.out_features, layer.in_features)
