"""The networks of a model folder without their weights: shapes and precisions alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from muybridge.checkpoints.parts import part_folder
from muybridge.errors import CheckpointError
from muybridge.files.json_settings import read_json_object
from muybridge.types import SettingsDict, VideoShape
from muybridge.weights.files import read_weights
from muybridge.weights.folder_files import read_folder_weights

Makers = Mapping[str, Callable[[Path], nn.Module]]
"""By name of a part, what makes its network from the settings in its folder."""


@dataclass(frozen=True, eq=False)
class Skeleton:
    """A model that nothing is loaded of.

    Attributes:
        make: of precision and device: its networks, by name of the part.
        shape: the video that it makes by default.
        is_file: whether it is of a single file, which is planned as for a card wherever it runs.
        is_continued: whether longer videos than that are made in segments where nobody says how.
        profile: the numeric profile of a call that names none; None for families that have one only.
    """

    make: Callable[[torch.dtype, str], Mapping[str, nn.Module]]
    shape: VideoShape
    is_file: bool = False
    is_continued: bool = False
    profile: str | None = None


class Weights(nn.ModuleList):
    """The weights of a network, without numbers and without what they do."""

    def __init__(self, outlines: Mapping[str, Tensor]) -> None:
        """As `read_outlines` gave them, in torch's default precision and on its default device."""
        super().__init__(_Weight(outline) for outline in outlines.values())


class _Weight(nn.Module):
    def __init__(self, outline: Tensor) -> None:
        super().__init__()
        dtype = None if outline.is_floating_point() else outline.dtype
        self.register_buffer("weight", torch.empty(outline.shape, dtype=dtype))


def skeleton_parts(folder: Path, makers: Makers, dtype: torch.dtype, device: str = "meta") -> dict[str, nn.Module]:
    """Build every network of a folder from its settings; no weight file is opened, or needs to be there.

    On the meta device they have no numbers. On another they have random ones, or, under a `FakeTensorMode`, none, but
    the kernels of that device.

    Args:
        folder: of a pipeline.
        makers: of its parts, as its family has them.
        dtype: of the weights that are not there.
        device: of them.

    Raises:
        CheckpointError: a part is missing, or its settings do not describe the network that it should be.
    """
    parts: dict[str, nn.Module] = {}
    for name, make in makers.items():
        path = part_folder(folder, name)
        try:
            with torch.device(device), default_dtype(dtype):
                parts[name] = make(path).eval()
        except CheckpointError:
            raise
        except Exception as error:  # whatever a library finds wrong with settings
            raise CheckpointError(
                f"{path / 'config.json'} does not describe a network: it has settings that are not known, or that do "
                "not go together. Get it again."
            ) from error
    return parts


def read_outlines(path: Path) -> dict[str, Tensor]:
    """The names, shapes and precisions of a weight file, or of the files of a folder, as tensors without numbers.

    Raises:
        CheckpointError: it cannot be read.
    """
    reader = read_folder_weights if path.is_dir() else read_weights
    # With a rule that asks for nothing: so pickles too are mapped into memory, and not read.
    return {key: torch.empty_like(value, device="meta") for key, value in reader(path, lambda _: {}).items()}


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Networks made here are of this precision, since fake weights cannot be cast afterwards."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def settings_of(path: Path) -> SettingsDict:
    """The `config.json` in the folder of a network."""
    return read_json_object(path / "config.json", "the settings of a network")


def in_default_dtype(config: Any) -> Any:
    """For networks of transformers that make their inner one in the precision that their settings name, if any."""
    config.dtype = torch.get_default_dtype()
    return config


def made(result: Any) -> Any:
    """`from_config` gives a model, or a model and what it did not use."""
    return result[0] if isinstance(result, tuple) else result
