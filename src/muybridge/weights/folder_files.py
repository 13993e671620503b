"""The weight files of a model folder, as diffusers and transformers name them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from muybridge.errors import CheckpointError
from muybridge.types import SettingsDict
from muybridge.weights.files import read_shard_index, read_weights
from muybridge.weights.formats import FileFormat, file_format
from muybridge.weights.precision import Precision

_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
_HALF = "fp16"


@dataclass(frozen=True)
class FolderFiles:
    """What a folder is loaded from.

    Attributes:
        files: all files with weights.
        options: of the `from_pretrained` that shall take these and look for no others.
    """

    files: tuple[Path, ...]
    options: SettingsDict

    def problem(self) -> str | None:
        """Why these files cannot be loaded, in the words of our own readers; None where they can be read."""
        for file in self.files:
            try:
                read_weights(file)
            except CheckpointError as error:
                return str(error)
        return self.misnamed()

    def misnamed(self) -> str | None:
        """The file whose name does not say what it is, in a sentence; other programs go by names."""
        for file in self.files:
            found = file_format(file)
            right = ".safetensors" if found is FileFormat.SAFETENSORS else ".bin"
            if found.holds_weights and file.suffix != right:
                return f"{file} has another ending than its content: rename it so that it ends in {right}."
        return None


def find_folder_files(folder: Path, variant: str | None = None) -> FolderFiles:
    """Choose among the weight files of a folder: full precision before `fp16`, safetensors before pickles.

    Args:
        folder: of one model.
        variant: the only one to look for; by default full precision, and where there is none `fp16`, as some published
            folders hold nothing else.

    Raises:
        CheckpointError: no weights, or shards that are missing, empty or outside the folder.
    """
    if (found := search_folder_files(folder, variant)) is None:
        raise CheckpointError(
            f"{folder} has no weights: no .safetensors or .bin called {', '.join(_STEMS)}, nor shards of one. Get the "
            "folder again."
        )
    return found


def search_folder_files(folder: Path, variant: str | None = None) -> FolderFiles | None:
    """As `find_folder_files`, but None where there are no weights of a usual name."""
    for which in (None, _HALF) if variant is None else (variant,):
        for suffix in (".safetensors", ".bin"):
            if files := _files(folder, f".{which}" if which else "", suffix):
                options: SettingsDict = {} if which is None else {"variant": which}
                # Or they look for safetensors first, and say on the screen that an error occurred.
                return FolderFiles(tuple(files), options | ({"use_safetensors": False} if suffix == ".bin" else {}))
    return None


def read_folder_weights(folder: str | os.PathLike[str], precision: Precision = None) -> dict[str, Tensor]:
    """The weights of a model folder, of the files that `find_folder_files` chooses; `precision` as of `read_weights`.

    Raises:
        CheckpointError: no weights, or files that cannot be read.
    """
    files = find_folder_files(Path(folder)).files
    return {key: value for file in files for key, value in read_weights(file, precision).items()}


def _files(folder: Path, variant: str, suffix: str) -> Sequence[Path]:
    for stem in _STEMS:
        index = folder / f"{stem}{suffix}.index{variant}.json"
        if index.is_file():
            return read_shard_index(index)
        single = folder / f"{stem}{variant}{suffix}"
        if single.is_file():
            return [single]
    return []
