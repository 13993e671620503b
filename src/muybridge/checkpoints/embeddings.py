"""Embeddings of words (textual inversion): vectors that stand in a prompt where their name does."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from muybridge.checkpoints.locate import locate_weights
from muybridge.errors import CheckpointError
from muybridge.weights.files import read_weights
from muybridge.weights.loading import require_finite

_PAIRS = (("clip_l", "clip_g"), ("text_encoders_0", "text_encoders_1"))
"""Names of the vectors for the first and the second encoder of Stable Diffusion XL, as trainers write them."""
_FOLDER_FILES = ("learned_embeds.safetensors", "learned_embeds.bin")
_OF_WEB_UI = "string_to_param."
_UNNAMED = ("*", "emb_params")
"""Keys that files of all embeddings have, which name none."""
_WIDTHS = {(768,): "sd15", (1024,): "sd2", (768, 1280): "sdxl"}
_IN_WORDS = {"sd15": "Stable Diffusion 1.5", "sd2": "Stable Diffusion 2", "sdxl": "Stable Diffusion XL"}


@dataclass(frozen=True, eq=False)
class Embedding:
    """What stands in a prompt under a name.

    Attributes:
        name: to call it by.
        vectors: `[n, d]` for each text encoder, one or two.
        token: what it was called in training, or None where the file does not say.
        path: the file.
    """

    name: str
    vectors: tuple[Tensor, ...]
    token: str | None
    path: str

    @property
    def names(self) -> set[str]:
        """All that it can be called in a prompt."""
        return {self.name} | ({self.token} if self.token else set())


def read_embedding(path: str | os.PathLike[str], name: str | None = None) -> Embedding:
    """Read an embedding as AUTOMATIC1111's web UI writes it, or diffusers, or a trainer for Stable Diffusion XL.

    Args:
        path: a `.pt`, `.bin` or `.safetensors` file (no code in it is run), or a folder with `learned_embeds` in it,
            here or on the hub (see `locate_weights`).
        name: to call it by; by default the name of the file without its ending.

    Raises:
        CheckpointError: a file that cannot be read, holds something else or several embeddings, or is not finite.
    """
    found = _file(locate_weights(path))
    tensors = read_weights(found)
    if (vectors := embedding_vectors(tensors)) is None:
        raise CheckpointError(
            f"{found} is no embedding of one name: it holds {', '.join(list(tensors)[:3]) or 'no tensors'}. Ask "
            "'muybridge inspect' what it is."
        )
    require_finite(tensors.items(), str(found))
    return Embedding(name or Path(path).stem, vectors, embedding_token(tensors), str(path))


def embedding_vectors(state: Mapping[str, Tensor]) -> tuple[Tensor, ...] | None:
    """The vectors `[n, d]` for each text encoder, or None where the tensors are something else than one embedding."""
    tensors = _own(state)
    pair = next((pair for pair in _PAIRS if set(pair) == tensors.keys()), None)
    own = [key for key in tensors if key.startswith(_OF_WEB_UI)]
    if pair is None and len(own) != 1 and len(tensors) != 1:
        return None
    keys = pair or (own[0] if len(own) == 1 else next(iter(tensors)),)
    # Of one key any name may be a token, but those of layers have a dot; vectors are far fewer than they are wide.
    if pair is None and not own and ("." in keys[0] or keys[0] in ("weight", "bias")):
        return None
    vectors = tuple(torch.atleast_2d(tensors[key]) for key in keys)
    if any(each.ndim != 2 or not each.is_floating_point() or not 0 < len(each) <= each.shape[1] for each in vectors):
        return None
    return vectors if len({len(each) for each in vectors}) == 1 else None


def embedding_token(tensors: Mapping[str, Tensor]) -> str | None:
    """What an embedding was called in training, where its file says so."""
    keys = [key.removeprefix(_OF_WEB_UI) for key in _own(tensors)]
    return keys[0] if len(keys) == 1 and keys[0] not in _UNNAMED else None


def _own(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    # Files of the web UI also say which token of its vocabulary was the first that the vectors took the place of.
    return {key: value for key, value in state.items() if not key.startswith("string_to_token")}


def embedding_family(vectors: tuple[Tensor, ...]) -> str | None:
    """Which published models have text encoders of these widths: sd15, sd2 or sdxl."""
    return _WIDTHS.get(_widths(vectors))


def check_fits(embedding: Embedding, widths: tuple[int, ...]) -> None:
    """Whether an embedding is for text encoders of these widths.

    Raises:
        CheckpointError: otherwise.
    """
    if _widths(embedding.vectors) == widths:
        return
    found, wanted = (
        f"{' and '.join(map(str, each))} wide" + (f" ({_IN_WORDS[_WIDTHS[each]]})" if each in _WIDTHS else "")
        for each in (_widths(embedding.vectors), widths)
    )
    raise CheckpointError(
        f"{embedding.path} is an embedding of vectors {found}; the text encoders of this model take vectors {wanted}. "
        "Use an embedding that was made for this kind of model."
    )


def _widths(vectors: tuple[Tensor, ...]) -> tuple[int, ...]:
    return tuple(each.shape[1] for each in vectors)


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in _FOLDER_FILES:
        if (path / name).is_file():
            return path / name
    raise CheckpointError(f"{path} has no embedding: neither {' nor '.join(_FOLDER_FILES)}. Name the file.")
