"""Embeddings of a pipeline: load, name in prompts, take out again."""

from __future__ import annotations

import os
from collections.abc import Sequence

from muybridge.checkpoints.embeddings import Embedding, check_fits, read_embedding
from muybridge.errors import ConfigError
from muybridge.pipelines.make import VideoPipeline
from muybridge.request.prompt_syntax import parse_prompt, with_embeddings


class EmbeddingHost(VideoPipeline):
    """A pipeline whose prompts can name embeddings (textual inversion).

    Tokenizers and text encoders stay as they are: vectors stand in for tokens while a prompt is encoded. Embeddings are
    not saved with the pipeline.
    """

    def __init__(self) -> None:
        """Without embeddings."""
        super().__init__()
        self._embeddings: dict[str, Embedding] = {}

    def load_embedding(self, path: str | os.PathLike[str], name: str | None = None) -> str:
        """Load an embedding; prompts then name it, as `easynegative` or `embedding:easynegative`, in either case.

        Args:
            path: a `.pt`, `.bin` or `.safetensors` file of AUTOMATIC1111's web UI, diffusers or a trainer for Stable
                Diffusion XL (no code in it is run), or a folder with `learned_embeds`, here or on the hub.
            name: what to call it; by default after the file. What it was called in training names it too.

        Returns:
            Its name.

        Raises:
            CheckpointError: a file that cannot be read, is something else, or is for other text encoders.
            ConfigError: a name or a file in use, or a name without letters.
        """
        embedding = read_embedding(path, name)
        encoders = [self.text_encoder, *([self.text_encoder_2] if self.text_encoder_2 is not None else [])]
        check_fits(embedding, tuple(encoder.config.hidden_size for encoder in encoders))
        known = self._embeddings_by_name()
        if taken := next((each for each in sorted(embedding.names) if each.lower() in known), None):
            raise ConfigError(f"There is an embedding called {taken!r} already; give another name, or unload it first.")
        if embedding.path in {each.path for each in known.values()}:
            raise ConfigError(f"{embedding.path} is loaded already, as {self._name_of(embedding.path)!r}.")
        if not embedding.name.strip(" *"):
            raise ConfigError(f"An embedding cannot be called {embedding.name!r}; give a name of letters and digits.")
        self._embeddings[embedding.name] = embedding
        return embedding.name

    def unload_embedding(self, name: str | None = None) -> None:
        """Take an embedding out, or without a name all of them.

        Raises:
            ConfigError: an unknown name.
        """
        if name is not None and name not in self._embeddings:
            raise ConfigError(f"There is no embedding {name}; loaded: {', '.join(self._embeddings) or 'none'}.")
        self._embeddings = {} if name is None else {key: e for key, e in self._embeddings.items() if key != name}

    def embeddings_in(self, texts: Sequence[str]) -> set[str]:
        """Files of the loaded embeddings that prompts name.

        Raises:
            ConfigError: `embedding:name` of one that is not loaded.
        """
        known = self._embeddings_by_name()
        prompts = [with_embeddings(parse_prompt(text), known) for text in texts]
        return {piece.embedding.path for each in prompts for piece in each.pieces if piece.embedding is not None}

    def _embeddings_by_name(self) -> dict[str, Embedding]:
        return {name.lower(): each for each in self._embeddings.values() for name in each.names}

    def _name_of(self, path: str) -> str:
        return next(name for name, each in self._embeddings.items() if each.path == path)
