"""Folders of models that transformers loads: whether they are, what they hold, and where they run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from muybridge.data.record import shown
from muybridge.errors import CheckpointError, ConfigError
from muybridge.files.json_settings import read_json_object

_Model = TypeVar("_Model")
_WHOLE = 2**20  # bytes of a file of which all are looked at


def check_model_folder(folder: str, setting: str) -> Path:
    """The path of a folder with a model.

    Args:
        folder: as it is given.
        setting: that gives it, for messages.

    Raises:
        ConfigError: there is no such folder, or nothing in it that says what model it is.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise ConfigError(f"{setting} must be the folder of a model; there is no folder {shown(folder)}.")
    if not (path / "config.json").is_file():
        raise ConfigError(
            f"{setting} must be the folder of a model as transformers saves it; {shown(folder)} has no config.json."
        )
    return path


def check_writer_folder(folder: str, setting: str, takes_pictures: bool) -> None:
    """Whether the settings of a model say that it writes, of what it is shown or of text.

    Args:
        folder: as it is given.
        setting: that gives it, for messages.
        takes_pictures: or text alone, which those that take pictures do as well.

    Raises:
        ConfigError: there is no model, or one of another kind.
    """
    path = check_model_folder(folder, setting)
    said = read_json_object(path / "config.json", "the settings of a model", ConfigError)
    from transformers.models.auto import modeling_auto

    known = [modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES]
    if not takes_pictures:
        known.append(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    kind, listed = str(said.get("model_type")), said.get("architectures")
    classes = listed if isinstance(listed, list) else []
    if not any(kind in names or any(name in names.values() for name in classes) for names in known):
        task = "image-text-to-text" if takes_pictures else "text-generation"
        raise ConfigError(
            f"{setting} must be the folder of a model for {task}; {shown(folder)} has one of the kind "
            f"{shown(kind)!r}, which transformers does not know as such."
        )


def load_from_folder(load: Callable[[], _Model], folder: Path, kind: str) -> _Model:
    """What `load` gives, with all that goes wrong in transformers as an error of ours.

    Args:
        load: reads the folder.
        folder: it reads.
        kind: of model that is wanted, for messages.

    Raises:
        CheckpointError: it is no such model, or damaged.
    """
    from transformers.utils import logging

    has_bar = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        return load()
    # transformers raises whatever its parts do about files that are missing, damaged or of another kind.
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{shown(str(folder))} cannot be loaded as {kind}: {type(error).__name__}: {shown(said)}"
        ) from error
    finally:
        if has_bar:
            logging.enable_progress_bar()


def folder_digest(folder: Path) -> str:
    """What tells the files of a folder from others: their names and sizes, and their bytes, of large ones both ends."""
    found = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        found.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode(errors="surrogateescape"))
        found.update(file_ends(path))
    return found.hexdigest()


def file_ends(path: Path) -> bytes:
    """A digest of a file, of a large one of its two ends."""
    size = path.stat().st_size
    with path.open("rb") as file:
        content = file.read(_WHOLE)
        if size > 2 * _WHOLE:
            file.seek(-_WHOLE, 2)
        content += file.read()
    return hashlib.sha256(content).digest()


def best_device(wanted: str | None) -> str:
    """Where to run: what is asked for, else a GPU if there is one."""
    if wanted is not None:
        return wanted
    from transformers.utils import is_torch_cuda_available, is_torch_mps_available

    return "cuda" if is_torch_cuda_available() else "mps" if is_torch_mps_available() else "cpu"
