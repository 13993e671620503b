"""Pictures and texts as vectors of one space, by a model such as CLIP or SigLIP; and heads that judge them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from muybridge.data.preparation.captioning.model_folder import best_device, load_from_folder
from muybridge.errors import CheckpointError

Vectors = NDArray[np.float32]
_KIND = "a model of pictures and text, as CLIP and SigLIP"


class EmbeddingModel:
    """A model in a folder that gives vectors of length 1."""

    def __init__(self, folder: Path, has_text: bool, device: str | None = None) -> None:
        """Load it.

        Args:
            folder: of the model and what it makes of pictures; of its tokenizer too, with `has_text`.
            has_text: whether texts are to be compared with pictures.
            device: to run it on; a GPU where there is one, if not given.

        Raises:
            CheckpointError: it is no such model.
        """
        self._device = best_device(device)
        self._model = load_from_folder(lambda: _load_model(folder, self._device), folder, _KIND)
        self._prepare = load_from_folder(lambda: _load_processor(folder), folder, _KIND)
        self._tokenizer = load_from_folder(lambda: _load_tokenizer(folder), folder, _KIND) if has_text else None

    def of_pictures(self, pictures: Sequence[Image.Image]) -> Vectors:
        """A vector for each picture."""
        inputs = self._prepare(images=list(pictures), return_tensors="pt").to(self._device)
        return _unit(self._model.get_image_features(pixel_values=inputs["pixel_values"]))

    def of_text(self, text: str) -> Vectors:
        """The vector of a text, of which what the model has no room for is left out."""
        if self._tokenizer is None:
            raise CheckpointError("The model was loaded without its text half.")
        room = getattr(self._model.config, "text_config", self._model.config).max_position_embeddings
        # Padded to the end, as SigLIP was trained; CLIP does not look at what comes after the end of a text.
        inputs = self._tokenizer(text, padding="max_length", truncation=True, max_length=room, return_tensors="pt")
        inputs = inputs.to(self._device)
        named = {name: inputs[name] for name in ("input_ids", "attention_mask") if name in inputs}
        return _unit(self._model.get_text_features(**named))[0]


def _load_model(folder: Path, device: str) -> Any:
    from transformers import AutoModel

    model: Any = AutoModel.from_pretrained(folder, dtype="float32")
    if not hasattr(model, "get_image_features"):
        raise ValueError(f"{type(model).__name__} gives no vectors of pictures")
    return model.requires_grad_(False).eval().to(device)


def _load_processor(folder: Path) -> Any:
    from transformers import AutoImageProcessor

    return AutoImageProcessor.from_pretrained(folder)


def _load_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def _unit(found: Any) -> Vectors:
    vectors = getattr(found, "pooler_output", found).float().cpu().numpy()
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


class LinearHead:
    """Linear layers one after the other, from a vector to a number, as predictors of aesthetics are published."""

    def __init__(self, file: Path) -> None:
        """Read the layers of a weight file, in the order of their names.

        Raises:
            CheckpointError: no weight file, or not such layers.
        """
        from muybridge.weights.files import read_weights

        state = {name: tensor.float().numpy() for name, tensor in read_weights(file).items()}
        names = sorted((name for name in state if name.endswith("weight") and state[name].ndim == 2), key=_in_order)
        self._layers = [(state[name], state.get(f"{name.removesuffix('weight')}bias")) for name in names]
        sizes = [weight.shape for weight, _ in self._layers]
        fits = all(before[0] == after[1] for before, after in itertools.pairwise(sizes))
        if not sizes or not fits or sizes[-1][0] != 1:
            raise CheckpointError(
                f"{file} is no head: linear layers must lead from a vector to one number; it has {sizes or 'none'}."
            )
        self.width = int(sizes[0][1])

    def __call__(self, vectors: Vectors) -> Vectors:
        """A number for each vector."""
        for weight, bias in self._layers:
            vectors = vectors @ weight.T + (0.0 if bias is None else bias)
        return vectors[..., 0]


def _in_order(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
