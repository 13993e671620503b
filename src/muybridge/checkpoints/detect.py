"""What a weight file is, from its keys and shapes alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from muybridge.checkpoints.embeddings import embedding_family, embedding_token, embedding_vectors
from muybridge.checkpoints.image_layouts import AVERAGED_PREFIX, UNET_PREFIX, unified_unet
from muybridge.checkpoints.lora_kinds import other_kinds
from muybridge.motion.detection import MotionLayout, detect_motion, motion_layout
from muybridge.weights.names import listed

State = Mapping[str, Tensor]

_LORA = re.compile(
    r"(\.processor\.|^(lora|lycoris)_|_lora\.|\.lora_(A|B|down|up)\.|\.lora\.(down|up)\.|\.lora_linear_layer\.|"
    r"[._](hada|lokr|b?oft|ia3|vera_lambda)_)"
)
_DOMAIN_ADAPTER_RANK = 128
IMAGE_PROMPT_BASES = {
    (16, 768): ("sd15", "Stable Diffusion 1.5"),
    (16, 1024): ("sd2", "Stable Diffusion 2"),
    (70, 2048): ("sdxl", "SDXL"),
}
"""What an IP-Adapter is for, in names of files and in words, by the number of text attentions and the channels of the
text that they read."""
_PROJECTIONS: dict[str, dict[str, int]] = {
    "plus": {"latents": 3, "proj_in.weight": 2},
    "plain": {"proj.weight": 2, "norm.weight": 1},
    "full": {"proj.0.weight": 2, "proj.3.weight": 1},
}
"""By the kind of an IP-Adapter the weights that tell it, and how many axes they have."""


@dataclass(frozen=True)
class Detection:
    """What a file turned out to be.

    Attributes:
        kind: motion-module, lora, sparse-control, control, ip-adapter, embedding, base-model, vae, transformer,
            pipeline or unknown.
        variant: which of the kind.
        layout: whose names the keys have.
        candidates: the variants that keys and shapes cannot tell apart, the chosen one first; one where they can.
        decided_by: "keys and shapes"; "file name" where that chose among the candidates; "guess" where it said
            nothing and the likeliest was taken.
        notes: what else a reader should know.
    """

    kind: str
    variant: str
    layout: str = "original"
    candidates: tuple[str, ...] = ()
    decided_by: str = "keys and shapes"
    notes: tuple[str, ...] = ()


def detect_weights(state: State, name: str = "") -> Detection:
    """Tell what a flat dictionary of weights is.

    Args:
        state: keys and tensors; only their shapes and dtypes are looked at, so they may be on the meta device.
        name: of the file, or of the folder around a file that is always called the same. It only chooses among
            variants that keys and shapes cannot tell apart.

    Returns:
        The answer; kind "unknown" where no rule knows the keys.
    """
    state = {key.removeprefix("module."): value for key, value in state.items()}
    rules: tuple[Callable[[State, str], Detection | None], ...] = (
        _image_prompt,  # before LoRAs, which some of these have inside
        _lora,
        _sparse_control,
        _easyanimate,
        _motion,
        _base_model,
        _embedding,
    )
    for rule in rules:
        if (found := rule(state, name)) is not None:
            return found
    return Detection("unknown", "unknown", "unknown", notes=(f"no rule knows its keys: {listed(list(state))}",))


def _image_prompt(state: State, _name: str) -> Detection | None:
    image, adapter = (
        {key.removeprefix(part): value for key, value in state.items() if key.startswith(part)}
        for part in ("image_proj.", "ip_adapter.")
    )
    if not image or not adapter:
        return None
    kind, note = _projection_of_pictures(image, adapter)
    keys = [value for key, value in adapter.items() if key.endswith(".to_k_ip.weight") and value.ndim == 2]
    base, _ = IMAGE_PROMPT_BASES.get((len(keys), keys[0].shape[1]) if keys else (0, 0), (None, None))
    notes = [note] if base else [note, f"{len(keys)} text attentions, as no published model has them"]
    return Detection("ip-adapter", "-".join(("ip-adapter", *kind, *([base] if base else []))), notes=tuple(notes))


def picture_projection(image: State) -> str | None:
    """How an IP-Adapter makes tokens of a picture, from the weights below `image_proj.`: plus, plain or full.

    None where it is none of these, or the weights that tell it have not the axes they should have.
    """
    for kind, axes in _PROJECTIONS.items():
        if all(key in image and image[key].ndim == count and image[key].numel() for key, count in axes.items()):
            return kind
    return None


def _projection_of_pictures(image: State, adapter: State) -> tuple[tuple[str, ...], str]:
    """What stands in the name of the published files, and what of CLIP is read."""
    if any("_lora." in key for key in adapter):
        return ("faceid",), "reads faces with a network of its own and brings a LoRA; not supported"
    kind = picture_projection(image)
    if kind == "plus":
        tokens, width = image["latents"].shape[1], image["proj_in.weight"].shape[1]
        return ("plus",), f"{tokens} tokens from CLIP's patches of {width} channels"
    if kind == "plain":
        tokens, width = len(image["proj.weight"]) // len(image["norm.weight"]), image["proj.weight"].shape[1]
        return (), f"{tokens} tokens from CLIP's embedding of {width} channels"
    if kind == "full":
        return ("full",), f"a token from each of CLIP's patches of {image['proj.0.weight'].shape[1]} channels"
    return ("other",), "makes tokens of a picture in a way that is not supported"


def _lora(state: State, name: str) -> Detection | None:
    keys = [key for key in state if _LORA.search(key)]
    if not keys:
        return None
    if kinds := other_kinds(state):
        layout = "kohya" if keys[0].startswith(("lora_", "lycoris_")) else "diffusers"
        return Detection("lora", "other-lora", layout, notes=(f"holds {' and '.join(kinds)}, which is not supported",))
    if any(key.startswith(("lora_unet_", "lora_te")) for key in keys):
        # EasyAnimate's has two underscores, as its network has no name of its own.
        of_easyanimate = any(key.startswith(("lora_unet__", "lora_te_encoder_block")) for key in keys)
        return Detection("lora", "easyanimate-lora" if of_easyanimate else "kohya-lora", "kohya")
    layout = "original" if any(".processor." in key for key in keys) else "diffusers"
    if any("motion_modules." in key for key in keys):
        return Detection("lora", "motion-lora", layout)
    ranks = {min(state[key].shape) for key in keys if state[key].ndim == 2}
    if layout == "original" and all(re.search(r"\.attn[12]\.processor\.", key) for key in keys):
        # Old LoRAs of diffusers have the same names; the published adapter has rank 128.
        adapter_first = _DOMAIN_ADAPTER_RANK in ranks or "adapter" in name.lower()
        order = ("domain-adapter", "diffusers-lora")
        by = "file name" if "adapter" in name.lower() else "guess"
        return Detection("lora", order[not adapter_first], layout, order[:: 1 if adapter_first else -1], by)
    return Detection("lora", "diffusers-lora", layout)


def _sparse_control(state: State, _name: str) -> Detection | None:
    layout = "diffusers" if any(".attn1.pos_embed." in key or ".norm3." in key for key in state) else "original"
    if "controlnet_cond_embedding.conv_in.weight" in state and any("motion_modules." in key for key in state):
        return Detection("sparse-control", "sparsectrl-scribble", layout)
    if "controlnet_cond_embedding.weight" in state:
        return Detection("sparse-control", "sparsectrl-rgb", layout)
    if "controlnet_cond_embedding.conv_in.weight" in state:
        return Detection("control", "controlnet", "diffusers")
    return None


def _easyanimate(state: State, _name: str) -> Detection | None:
    if any(".attn_temporal." in key for key in state):
        own = any(".attn_temporal.temporal_transformer." in key for key in state)
        return Detection("transformer", "easyanimate-transformer", "original" if own else "muybridge")
    if any(re.match(r"encoder\.down_blocks\.\d+\.convs\.", key) for key in state):
        return Detection("vae", "easyanimate-vae")
    return None


def _motion(state: State, name: str) -> Detection | None:
    layout = motion_layout(state)
    if layout is MotionLayout.NONE:
        return None
    found = detect_motion(state, layout, name)
    return Detection("motion-module", found.variant, layout.value, found.candidates, found.decided_by, found.notes)


def _base_model(state: State, _name: str) -> Detection | None:
    unified, layout = unified_unet(state)
    if layout is not None:
        return _image_model(unified, layout)
    if "encoder.conv_in.weight" in state and "quant_conv.weight" in state:
        layout = "diffusers" if any(".down_blocks." in key for key in state) else "ldm"
        return Detection("vae", "image-vae", layout)
    return None


def _embedding(state: State, _name: str) -> Detection | None:
    if (vectors := embedding_vectors(state)) is None:
        return None
    family, token = embedding_family(vectors), embedding_token(state)
    widths = " and ".join(str(each.shape[1]) for each in vectors)
    count = f"{len(vectors[0])} vector{'s' if len(vectors[0]) > 1 else ''} of width {widths}"
    notes = [f"stands for {token} in prompts"] if token else []
    return Detection(
        "embedding",
        "textual-inversion" + (f"-{family}" if family else ""),
        "diffusers" if token else "original",
        notes=(*notes, count),
    )


def _image_model(state: State, layout: str) -> Detection:
    unet = UNET_PREFIX
    linear = any(key.startswith(unet) and key.endswith(".1.proj_in.weight") and v.ndim == 2 for key, v in state.items())
    if unet + "label_emb.0.0.weight" in state:
        variant = "base-sdxl"
    else:
        variant = "base-sd2" if linear or "cond_stage_model.model.token_embedding.weight" in state else "base-sd15"
    notes = ["the U-Net alone"] if layout in ("diffusers", "bare") else _parts_of_image_model(state)
    if layout == "averaged":
        notes.append("holds the averaged weights (EMA) of the U-Net, no plain ones")
    entry = state.get(unet + "input_blocks.0.0.weight")
    if entry is not None and entry.ndim == 4 and entry.shape[1] == 9:
        notes.append("an inpainting model: its first convolution takes 9 channels")
    return Detection("base-model", variant, "diffusers" if layout == "diffusers" else "ldm", notes=tuple(notes))


def _parts_of_image_model(state: State) -> list[str]:
    prefixes = {
        "VAE": ("first_stage_model.", "vae."),
        "text encoder": ("cond_stage_model.", "conditioner."),
        "averaged weights (EMA) besides the plain ones": (AVERAGED_PREFIX,),
    }
    present = {part: any(key.startswith(start) for key in state) for part, start in prefixes.items()}
    notes = [f"holds the {part}" if part[0] != "a" else f"holds {part}" for part, there in present.items() if there]
    return notes + [f"holds no {part}" for part, there in present.items() if not there and part[0] != "a"]
