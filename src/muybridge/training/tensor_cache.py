"""Tensors on disk by what they were made of, for what would be computed again and again.

An entry says inside what it was made of, and has a digest of its values. One that says something else, or is damaged,
is as if it were not there, so the folder may be changed or deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from muybridge.errors import OutputError
from muybridge.files.atomic import new_file
from muybridge.types import SettingsView

_KEY, _DIGEST = "key", "digest"
_PLACE = "_name_or_path"
"""Where a network was loaded from, which makes no difference."""


class TensorCache:
    """Entries of one kind in a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        """The folder is made when the first entry is written; `name` is that of the tensor in each file."""
        self.folder = folder
        self.name = name

    def get(self, made_of: SettingsView) -> Tensor | None:
        """What was made of these values; None where nothing was, or it is not whole."""
        key = _key(made_of)
        try:
            with safe_open(self._path(key), framework="pt") as file:
                said = file.metadata() or {}
                if said.get(_KEY) != key:
                    return None
                value = file.get_tensor(self.name)
        except (OSError, SafetensorError):
            return None
        return value if said.get(_DIGEST) == _digest(value) else None

    def put(self, made_of: SettingsView, value: Tensor) -> None:
        """Keep what was made.

        Raises:
            OutputError: the folder cannot be written.
        """
        key = _key(made_of)
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"The cache {self.folder} cannot be written ({error.strerror}); choose another data.cache, or none."
            ) from error
        value = value.contiguous()
        with new_file(path) as temporary:
            save_file({self.name: value}, temporary, {_KEY: key, _DIGEST: _digest(value)})

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(key.encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.safetensors"


def _key(made_of: SettingsView) -> str:
    return json.dumps(made_of, sort_keys=True)


def _digest(value: Tensor) -> str:
    """Of type, shape and values."""
    found = hashlib.blake2b(f"{value.dtype} {tuple(value.shape)}".encode(), digest_size=16)
    found.update(_bytes_of(value))
    return found.hexdigest()


def _bytes_of(value: Tensor) -> memoryview:
    return value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def digest_of_network(network: nn.Module) -> str:
    """Of a network's settings and weights; reads all of them."""
    config: Any = getattr(network, "config", {})
    settings = (config if isinstance(config, Mapping) else config.to_dict()).items()
    said = sorted((key, str(value)) for key, value in settings if key != _PLACE)
    found = hashlib.sha256(repr(said).encode())
    for name, tensor in network.state_dict().items():
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(_bytes_of(tensor))
    return found.hexdigest()
