"""What a file or folder is: a video with its request, or weights with what they fit and how they are run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from muybridge.checkpoints.detect import Detection, detect_weights
from muybridge.checkpoints.easyanimate import is_published_folder
from muybridge.checkpoints.image_prompt_files import read_nested
from muybridge.checkpoints.locate import SHIPPED_MODELS, locate_model
from muybridge.checkpoints.motion_files import detect_saved_motion, read_motion_config
from muybridge.checkpoints.motion_variants import VARIANTS, motion_variant
from muybridge.checkpoints.parts import read_model_index
from muybridge.errors import CheckpointError, MuybridgeError
from muybridge.video import read_facts
from muybridge.weights.files import WEIGHT_SUFFIXES, read_folder_weights, read_weights

_PIPELINES = {
    "AnimateDiffPipeline": ("pipeline", "animatediff"),
    "EasyAnimatePipeline": ("pipeline", "easyanimate"),
    "StableDiffusionPipeline": ("base-model", "base-sd15"),
    "StableDiffusionXLPipeline": ("base-model", "base-sdxl"),
}
_MODELS = {
    "SparseControlNetModel": ("sparse-control", "sparsectrl"),
    "UNet3DConditionModel": ("base-model", "unet"),
    "Transformer3DModel": ("transformer", "easyanimate-transformer"),
    "AutoencoderKLMagvit": ("vae", "easyanimate-vae"),
}


def inspect_path(path: str | Path) -> dict[str, Any]:
    """Describe a file or folder, as plain values.

    Every description has `kind` and `path`. Videos have `num_frames`, `width`, `height` and `fps` as they are read,
    `in_file` (what they are before that: `is_variable_rate` and the names of `video.decoded.Traits`), and `request`.
    Weights have `variant`, `layout`, `decided_by`, `candidates`, `notes`, `settings` (how a motion module is run), and
    the figures `size_bytes`, `num_tensors`, `num_parameters`, `dtypes`, `non_finite` (names of weights that are not
    numbers). Pipelines have `variant` and `parts`, each described likewise, without figures.

    All weights are read, which for a file of 2 GB takes as long as reading it.

    Raises:
        MuybridgeError: nothing there, or nothing that can be read.
    """
    folder = locate_model(path) if str(path) in SHIPPED_MODELS else Path(path)
    if folder.is_dir():
        if (folder / "model_index.json").is_file() or is_published_folder(folder):
            return _pipeline(folder)
        if (folder / "config.json").is_file():
            return _model_folder(folder)
    if folder.suffix.lower() in WEIGHT_SUFFIXES:
        return _weights(folder, _read_weights(folder), folder.name)
    return _video(folder)


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return read_weights(path)
    except CheckpointError:
        if path.suffix.lower() == ".safetensors" or not path.is_file():
            raise
        nested = read_nested(path)  # pickled image prompt adapters keep their parts apart
        if detect_weights(nested).kind != "ip-adapter":
            raise
        return nested


def _video(path: Path) -> dict[str, Any]:
    found = read_facts(path)
    return {
        "kind": "video",
        "path": str(path),
        "num_frames": found.num_frames,
        "width": found.width,
        "height": found.height,
        "fps": float(found.fps),
        "in_file": {"is_variable_rate": found.is_variable, **asdict(found.traits)},
        "request": found.request,
    }


def _weights(path: Path, state: Mapping[str, Tensor], name: str) -> dict[str, Any]:
    found = detect_weights(state, name)
    return {**_described(path, found, name), **_figures(path, state)}


def _described(path: Path, found: Detection, name: str) -> dict[str, Any]:
    description = {
        "kind": found.kind,
        "variant": found.variant,
        "path": str(path),
        "layout": found.layout,
        "decided_by": found.decided_by,
        "candidates": list(found.candidates or (found.variant,)),
        "notes": list(found.notes),
    }
    if found.variant in VARIANTS:
        description["settings"] = motion_variant(found.variant, name).settings()
    return description


def _figures(path: Path, state: Mapping[str, Tensor]) -> dict[str, Any]:
    files = [path] if path.is_file() else [file for file in path.iterdir() if file.suffix in WEIGHT_SUFFIXES]
    return {
        "size_bytes": sum(file.stat().st_size for file in files),
        "num_tensors": len(state),
        "num_parameters": sum(value.numel() for value in state.values()),
        "dtypes": dict(Counter(str(value.dtype).removeprefix("torch.") for value in state.values())),
        "non_finite": [key for key, value in state.items() if not _is_finite(value)],
    }


def _is_finite(value: Tensor) -> bool:
    if not value.is_floating_point():
        return True
    # torch cannot test 8-bit floats themselves.
    return bool(torch.isfinite(value if value.element_size() > 1 else value.float()).all())


def _model_folder(folder: Path) -> dict[str, Any]:
    config = _read_config(folder)
    name = config.get("_class_name")
    state = _folder_weights(folder)
    if name == "MotionAdapter":
        saved = detect_saved_motion(read_motion_config(folder), folder.name)
        if saved is None:  # of diffusers: its weights say what it is
            return _weights(folder, state, folder.name)
        found = Detection("motion-module", saved.variant, "muybridge", saved.candidates, saved.decided_by)
    elif name in _MODELS:
        found = Detection(*_MODELS[name], layout="muybridge", decided_by="config.json")
        detected = detect_weights(state, folder.name)
        found = detected if detected.kind == found.kind else found
    else:
        return _weights(folder, state, folder.name)
    return {**_described(folder, found, folder.name), **_figures(folder, state)}


def _folder_weights(folder: Path) -> dict[str, Tensor]:
    for name in ("diffusion_pytorch_model", "diffusion_pytorch_model.fp16", "model", "pytorch_model"):
        if any(folder.glob(f"{name}.safetensors*")) or any(folder.glob(f"{name}.bin*")):
            return read_folder_weights(folder, name)
    raise CheckpointError(f"{folder} has a config.json, but no weights that are known by name.")


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}).") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} holds a {type(config).__name__}, not the settings of a model.")
    return config


def _pipeline(folder: Path) -> dict[str, Any]:
    index = {"_class_name": "EasyAnimatePipeline"} if is_published_folder(folder) else read_model_index(folder)
    name = str(index.get("_class_name"))
    kind, variant = _PIPELINES.get(name, ("pipeline", "unknown"))
    notes = [] if name in _PIPELINES else [f"{name} is not known here"]
    unet = folder / "unet" / "config.json"
    if variant == "base-sd15" and unet.is_file() and _read_config(unet.parent).get("cross_attention_dim") == 1024:
        variant = "base-sd2"
    parts = {part.name: _part(part) for part in sorted(folder.iterdir()) if part.is_dir()}
    settings = {key: index[key] for key in ("default_steps", "default_guidance") if key in index}
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return {
        "kind": kind,
        "variant": variant,
        "path": str(folder),
        "class": name,
        "decided_by": "model_index.json",
        "notes": notes,
        "settings": settings,
        "parts": parts,
        "size_bytes": size,
    }


def _part(folder: Path) -> dict[str, Any]:
    for file in ("config.json", "scheduler_config.json", "tokenizer_config.json", "preprocessor_config.json"):
        if not (folder / file).is_file():
            continue
        try:
            config = json.loads((folder / file).read_text())
            named = config.get("_class_name") or config.get("tokenizer_class") or config.get("architectures") or [None]
        except (ValueError, OSError, AttributeError) as error:
            return {"class": None, "problem": f"{file} cannot be read ({error})"}
        found: dict[str, Any] = {"class": named if isinstance(named, str) else named[0]}
        if found["class"] == "MotionAdapter":
            found["variant"] = _adapter_variant(folder)
        return found
    return {"class": None}


def _adapter_variant(folder: Path) -> str | None:
    try:
        saved = detect_saved_motion(read_motion_config(folder), folder.name)
    except MuybridgeError:
        return None
    return None if saved is None else saved.variant
