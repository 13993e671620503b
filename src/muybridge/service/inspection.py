"""What a file or folder is: a video with its request, or weights with what they fit and how they are run."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from muybridge.checkpoints.detect import Detection, detect_weights
from muybridge.checkpoints.locate import SHIPPED_MODELS, locate_model
from muybridge.checkpoints.motion_files import detect_saved_motion, read_motion_config
from muybridge.checkpoints.parts import read_model_index
from muybridge.checkpoints.prediction import prediction_of_file
from muybridge.errors import CheckpointError, MuybridgeError
from muybridge.files.json_settings import read_json_object
from muybridge.motion.variants import VARIANTS, motion_variant
from muybridge.pipelines.families import Found, known_families, recognised_folder
from muybridge.pipelines.family import Recognised
from muybridge.types import SettingsDict
from muybridge.video import read_facts
from muybridge.weights.files import WEIGHT_SUFFIXES, read_metadata, read_weights
from muybridge.weights.folder_files import find_folder_files
from muybridge.weights.formats import file_format
from muybridge.weights.loading import is_finite, named_class

_OF_A_SCHEDULE = (
    "prediction_type",
    "rescale_betas_zero_snr",
    "beta_schedule",
    "beta_start",
    "beta_end",
    "timestep_spacing",
    "steps_offset",
)
"""What a scheduler says of the model that it is for."""


def inspect_path(path: str | Path) -> SettingsDict:
    """Describe a file or folder, as plain values.

    Every description has `kind` and `path`. Videos have `num_frames`, `width`, `height` and `fps` as they are read,
    `in_file` (what they are before that: `is_variable_rate` and the names of `video.decoded.Traits`), and `request`.
    Weights have `variant`, `layout`, `decided_by`, `candidates`, `notes`, `settings` (how a motion module is run), of
    an image model `prediction` (what it predicts, whether from pure noise on, and what says so), and the figures
    `size_bytes`, `num_tensors`, `num_parameters`, `dtypes`, `non_finite` (names of weights that are not numbers).
    Pipelines have `variant` and `parts`, each described likewise, without figures; a scheduler with its `settings`.

    All weights are read, which for a file of 2 GB takes as long as reading it.

    Raises:
        MuybridgeError: nothing there, or nothing that can be read.
    """
    folder = locate_model(path) if str(path) in SHIPPED_MODELS else Path(path)
    if folder.is_dir():
        if (folder / "model_index.json").is_file() or _recognised(folder)[0] is not None:
            return _pipeline(folder)
        if (folder / "config.json").is_file():
            return _model_folder(folder)
    if _is_about_weights(folder):
        return _weights(folder, read_weights(folder), folder.name)
    return _video(folder)


def _is_about_weights(path: Path) -> bool:
    """Whether a file is one of weights, or would be if it were whole; videos are told by their reader."""
    if not path.is_file():
        return path.suffix.lower() in WEIGHT_SUFFIXES and not path.is_dir()
    found = file_format(path)
    return found.holds_weights or found.stands_for_a_file or path.suffix.lower() in WEIGHT_SUFFIXES


def _video(path: Path) -> SettingsDict:
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


def _weights(path: Path, state: Mapping[str, Tensor], name: str) -> SettingsDict:
    described = _described(path, detect_weights(state, name), name)
    if described["kind"] == "base-model" and path.is_file():
        described |= _prediction(path, state, described["notes"])
    return {**described, **_figures(path, state)}


def _prediction(path: Path, state: Mapping[str, Tensor], notes: list[str]) -> SettingsDict:
    """What a single file says that its model predicts; what is wrong with that goes to the notes."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            found = prediction_of_file(state, read_metadata(path), path.name)
        except CheckpointError as error:
            return {"notes": [*notes, str(error)]}
    return {
        "prediction": {"type": found.type, "zero_snr": found.zero_snr, "said_by": found.said_by},
        "notes": [*notes, *(str(each.message) for each in said)],
    }


def _described(path: Path, found: Detection, name: str) -> SettingsDict:
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


def _figures(path: Path, state: Mapping[str, Tensor]) -> SettingsDict:
    files = (path,) if path.is_file() else find_folder_files(path).files
    return {
        "size_bytes": sum(file.stat().st_size for file in files),
        "num_tensors": len(state),
        "num_parameters": sum(value.numel() for value in state.values()),
        "dtypes": dict(Counter(str(value.dtype).removeprefix("torch.") for value in state.values())),
        "non_finite": [key for key, value in state.items() if not is_finite(value)],
    }


def _model_folder(folder: Path) -> SettingsDict:
    config = _read_config(folder)
    name = config.get("_class_name")
    state = _folder_weights(folder)
    if name == "MotionAdapter":
        saved = detect_saved_motion(read_motion_config(folder), folder.name)
        if saved is None:  # of diffusers: its weights say what it is
            return _weights(folder, state, folder.name)
        found = Detection("motion-module", saved.variant, "muybridge", saved.candidates, saved.decided_by)
    elif (known := _network(name)) is not None:
        found = Detection(*known, layout="muybridge", decided_by="config.json")
        detected = detect_weights(state, folder.name)
        found = detected if detected.kind == found.kind else found
    else:
        return _weights(folder, state, folder.name)
    return {**_described(folder, found, folder.name), **_figures(folder, state)}


def _network(name: Any) -> tuple[str, str] | None:
    """Kind and variant of a network by its class, where a family has such networks."""
    return next(
        (family.recognise.networks[name] for family in known_families() if name in family.recognise.networks), None
    )


def _folder_weights(folder: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for file in find_folder_files(folder).files:
        state |= read_weights(file)
    return state


def _read_config(folder: Path) -> SettingsDict:
    return read_json_object(folder / "config.json", "the settings of a model")


def _pipeline(folder: Path) -> SettingsDict:
    index = read_model_index(folder) if (folder / "model_index.json").is_file() else {}
    found, problem = _recognised(folder)
    name = str(index.get("_class_name"))
    unknown = Recognised("pipeline", "unknown", name, notes=(problem or f"{name} is not known here",))
    it = unknown if found is None else found.recognised
    parts = {part.name: _part(part) for part in sorted(folder.iterdir()) if part.is_dir()}
    settings = {key: index[key] for key in ("default_steps", "default_guidance") if key in index}
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return {
        "kind": it.kind,
        "variant": it.variant,
        "path": str(folder),
        "class": it.class_name,
        "decided_by": "model_index.json",
        "notes": list(it.notes),
        "settings": settings,
        "parts": parts,
        "size_bytes": size,
    }


def _recognised(folder: Path) -> tuple[Found | None, str | None]:
    """What a folder is, and what keeps one from telling."""
    try:
        return recognised_folder(folder), None
    except CheckpointError as error:
        return None, str(error)


def _part(folder: Path) -> SettingsDict:
    for file in ("config.json", "scheduler_config.json", "tokenizer_config.json", "preprocessor_config.json"):
        if not (folder / file).is_file():
            continue
        try:
            config = read_json_object(folder / file, "settings")
        except CheckpointError as error:
            return {"class": None, "problem": str(error)}
        found: SettingsDict = {"class": named_class(config)}
        if found["class"] == "MotionAdapter":
            found["variant"] = _adapter_variant(folder)
        if file == "scheduler_config.json":
            found["settings"] = {key: config[key] for key in _OF_A_SCHEDULE if key in config}
        return found
    return {"class": None}


def _adapter_variant(folder: Path) -> str | None:
    try:
        saved = detect_saved_motion(read_motion_config(folder), folder.name)
    except MuybridgeError:
        return None
    return None if saved is None else saved.variant
