"""ControlNets for Stable Diffusion 1.5: in a file, in a folder, or on the hub."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate import init_empty_weights
from diffusers import ControlNetModel
from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint
from torch import Tensor

from muybridge.backbones.unet.sparse_control_keys import control_settings
from muybridge.checkpoints.locate import locate_weights
from muybridge.checkpoints.places import require_kind
from muybridge.checkpoints.translated import filled
from muybridge.errors import CheckpointError
from muybridge.files.json_settings import read_json_object
from muybridge.weights.files import read_weights
from muybridge.weights.loading import load_folder
from muybridge.weights.names import listed

_PREFIX = "control_model."
_PART = "controlnet"
_HEADS = 8  # of Stable Diffusion 1.5, at every level
_OTHERS = (
    (r"^(lora_controlnet$|.*\.(up|down)$)", "a Control-LoRA, which is a change of the image model's own layers"),
    (r"^lllite_", "a ControlNet-LLLite, which is a change of the image model's own layers"),
    (r"^(adapter\.)?body\.\d+\.", "a T2I-Adapter, which is run once for a picture, not in every step"),
    (r"^(control_add_embedding|task_embedding)", "a ControlNet of several tasks (union), which is told which of them"),
    (r"^(add_embedding|label_emb)\.", "a ControlNet for Stable Diffusion XL"),
    (r"^(pos_embed_input|transformer_blocks|controlnet_blocks)\b", "a ControlNet for a transformer"),
)
"""By a key that tells them: networks of the same use that are not supported."""
_OTHER_CLASSES = {
    "T2IAdapter": "a T2I-Adapter",
    "MultiAdapter": "several T2I-Adapters",
    "ControlNetUnionModel": "a ControlNet of several tasks (union)",
    "ControlNetXSAdapter": "a ControlNet-XS",
    "SD3ControlNetModel": "a ControlNet for Stable Diffusion 3",
    "FluxControlNetModel": "a ControlNet for Flux",
}


def read_control(name: str | os.PathLike[str], dtype: torch.dtype | None = torch.float32) -> ControlNetModel:
    """Read a ControlNet.

    Files have the original's names, with `control_model.` before them or not, or diffusers'. Folders are of a
    `ControlNetModel` of diffusers', or, here, of a pipeline that has one in `controlnet`.

    Args:
        name: the file or folder, here or on the hub (see `locate_weights`).
        dtype: of the weights; None keeps every one of a file as it is stored.

    Raises:
        CheckpointError: missing, damaged, or something else; networks of the same use are named.
    """
    path = locate_weights(name)
    if path.is_dir():
        return _read_folder(path, dtype)
    if not path.exists():
        raise CheckpointError(
            f"There is no ControlNet {name}: no such file or folder here. Give the folder of one, a file, or its "
            "place on the hub, as in organisation/repository."
        )
    return control_from_weights(read_weights(path, dtype), str(path), dtype)


def control_from_weights(state: Mapping[str, Tensor], source: str, dtype: torch.dtype | None) -> ControlNetModel:
    """The ControlNet in what a file holds; without `dtype` it shares its tensors.

    Raises:
        CheckpointError: as of `read_control`.
    """
    plain = {key.removeprefix("module."): value for key, value in state.items()}
    # The first files hold the image model too.
    own = {key.removeprefix(_PREFIX): value for key, value in plain.items() if key.startswith(_PREFIX)} or plain
    for pattern, what in _OTHERS:
        if any(re.match(pattern, key) for key in own):
            raise CheckpointError(f"{source} is {what}; not supported. Use a ControlNet for Stable Diffusion 1.5.")
    is_original = "input_hint_block.0.weight" in own
    if not is_original:
        require_kind(state, "control", source)
        if "controlnet_cond_embedding.conv_in.weight" not in own:
            raise CheckpointError(f"{source} is no ControlNet that is known here (its keys: {listed(list(own))}).")
    else:
        translated = convert_controlnet_checkpoint(own, {"layers_per_block": _layers(own, source)})
        own = {key: value for key, value in translated.items() if value is not None}
    settings = control_settings(own, source)
    del settings["use_simplified_condition_embedding"]
    with init_empty_weights():
        control = ControlNetModel(**settings, attention_head_dim=_HEADS)
    return filled(control, own, dtype, source)


def _layers(state: Mapping[str, Tensor], source: str) -> int:
    """Residual blocks of a level, by where the first level ends."""
    for block in range(1, 10):
        if f"input_blocks.{block}.0.op.weight" in state:
            return block - 1
    raise CheckpointError(f"{source} is incomplete: it has no layer that halves the size.")


def _read_folder(path: Path, dtype: torch.dtype | None) -> ControlNetModel:
    folder = path / _PART if not (path / "config.json").is_file() and (path / _PART).is_dir() else path
    config = folder / "config.json"
    if config.is_file():
        found = read_json_object(config, "the settings of a ControlNet").get("_class_name")
        if what := _OTHER_CLASSES.get(str(found)):
            raise CheckpointError(f"{folder} holds {what}; not supported. Use a ControlNet for Stable Diffusion 1.5.")
        if found == "SparseControlNetModel":
            raise CheckpointError(
                f"{folder} holds a SparseCtrl; its place is --keyframe-control or --sketch-control, or "
                "set_sparse_control of the pipeline."
            )
    return load_folder(ControlNetModel.from_pretrained, folder, "ControlNetModel", {"torch_dtype": dtype})
