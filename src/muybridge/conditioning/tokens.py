"""Prompts as tokens, in chunks of what an encoder reads at once, with their weights and the vectors of embeddings."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, PreTrainedTokenizerBase

from muybridge.request.prompt_syntax import ParsedPrompt, Piece

Encoder = CLIPTextModel | CLIPTextModelWithProjection


@dataclass(frozen=True, eq=False)
class Token:
    """One token of a prompt.

    Attributes:
        id: in the vocabulary; of an embedding, that of a token whose place it takes.
        weight: what its state is multiplied with.
        vector: of an embedding, `[d]`, instead of the vocabulary's.
    """

    id: int
    weight: float = 1.0
    vector: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Chunks:
    """Prompts as an encoder reads them.

    Attributes:
        ids: `[prompts, chunks, n]`, start, end and padding included.
        weights: likewise; 1 where nothing else is said.
        vectors: of embeddings, by (prompt times chunks + chunk, position).
    """

    ids: Tensor
    weights: Tensor
    vectors: dict[tuple[int, int], Tensor]

    def emphasised(self, states: Tensor) -> Tensor:
        """States `[prompts * chunks, n, d]` multiplied with the weights; see `emphasised`."""
        return emphasised(states, self.weights.flatten(0, 1).to(states.device))

    @contextlib.contextmanager
    def embedded(self, encoder: Encoder) -> Iterator[Tensor]:
        """The ids `[prompts * chunks, n]` for `encoder`, which in the block reads the embeddings where they belong."""
        ids = self.ids.flatten(0, 1).to(encoder.device)

        def put_in(_module: object, _given: object, output: Tensor) -> Tensor:
            output = output.clone()
            for place, vector in self.vectors.items():
                output[place] = vector.to(output)
            return output

        if not self.vectors:
            yield ids
            return
        handle = encoder.get_input_embeddings().register_forward_hook(put_in)
        try:
            yield ids
        finally:
            handle.remove()


def emphasised(states: Tensor, weights: Tensor, mask: Tensor | None = None) -> Tensor:
    """States of tokens multiplied with their weights, then all of a row scaled so that their mean is what it was.

    That is how AUTOMATIC1111's web UI weighs words. Rows whose weights are all 1 are returned bit for bit.

    Args:
        states: `[rows, n, d]`.
        weights: `[rows, n]`.
        mask: `[rows, n]`, 0 for tokens that are left out of the mean.
    """
    weighted = (weights != 1).any(dim=-1)
    if not bool(weighted.any()):
        return states
    counted = torch.ones_like(weights) if mask is None else mask
    before = states.float()
    after = before * weights[..., None]
    old, new = ((each * counted[..., None]).sum(dim=(-2, -1)) for each in (before, after))
    ratio = torch.where(new == 0, torch.ones_like(new), old / new)
    changed = (after * ratio[:, None, None]).to(states.dtype)
    return torch.where(weighted[:, None, None], changed, states)


def content_of_chunk(tokenizer: PreTrainedTokenizerBase, text_encoder: Encoder) -> int:
    """How many tokens an encoder reads at once besides start and end."""
    # A tokenizer saved without its length says 1e30.
    return min(int(tokenizer.model_max_length), text_encoder.config.max_position_embeddings) - 2


def split_into_chunks(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[ParsedPrompt], content: int, encoder: int = 0
) -> list[list[list[Token]]]:
    """The tokens of each prompt in chunks, at least one, without start, end and padding.

    A chunk is full before the next one begins, unless a break ends it or an embedding would be cut in two.

    Args:
        tokenizer: of the encoder.
        prompts: as parsed.
        content: tokens of a chunk.
        encoder: which of a pair it is, 0 or 1: embeddings have vectors for each.
    """
    found = []
    for prompt in prompts:
        chunks: list[list[Token]] = []
        for part in prompt.parts:
            chunks.append([])
            for piece in part:
                for together in _together(tokenizer, piece, content, encoder):
                    if len(chunks[-1]) + len(together) > content:
                        chunks.append([])
                    chunks[-1] += together
        found.append(chunks)
    return found


def padded_chunks(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[Sequence[Token]]], num_chunks: int, content: int
) -> Chunks:
    """Every chunk with start, end and padding, and every prompt with empty chunks up to `num_chunks`."""
    ids, weights, vectors = [], [], {}
    for row in (chunk for chunks in prompts for chunk in [*chunks, *[[]] * (num_chunks - len(chunks))]):
        padding = content - len(row)
        vectors |= {(len(ids), i): each.vector for i, each in enumerate(row, 1) if each.vector is not None}
        ids.append([_id(tokenizer, "bos"), *(each.id for each in row), _id(tokenizer, "eos")])
        ids[-1] += [_id(tokenizer, "pad")] * padding
        weights.append([1.0, *(each.weight for each in row), 1.0, *[1.0] * padding])
    shape = (len(prompts), num_chunks, content + 2)
    return Chunks(torch.tensor(ids).view(shape), torch.tensor(weights).view(shape), vectors)


def warn_of_unknown_words(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[ParsedPrompt]) -> None:
    """Warn of words that the vocabulary lacks, where it has a token for them."""
    unknown = tokenizer.unk_token_id
    # Stable Diffusion's tokenizer spells every word; its token for the unknown is the one for the end.
    if unknown == tokenizer.eos_token_id or not tokenizer.is_fast:
        return
    words: dict[str, None] = {}
    for piece in (piece for prompt in prompts for piece in prompt.pieces if piece.embedding is None):
        encoded = tokenizer(piece.text, add_special_tokens=False, verbose=False, return_offsets_mapping=True)
        spans = zip(encoded.offset_mapping, encoded.input_ids, strict=True)
        words |= {piece.text[a:b]: None for (a, b), token in spans if token == unknown}
    if words:
        names = ", ".join(map(repr, words))
        warnings.warn(f"This model's vocabulary lacks {names}; it cannot draw what it has no word for.", stacklevel=3)


def piece_tokens(tokenizer: PreTrainedTokenizerBase, piece: Piece) -> list[Token]:
    """The tokens of words, however many, without start and end."""
    ids = tokenizer(piece.text, add_special_tokens=False, verbose=False).input_ids
    return [Token(each, piece.weight) for each in ids]


def _together(
    tokenizer: PreTrainedTokenizerBase, piece: Piece, content: int, encoder: int
) -> Iterator[Sequence[Token]]:
    if piece.embedding is None:
        yield from ([token] for token in piece_tokens(tokenizer, piece))
        return
    # Pooling looks for the end token, so another one marks the places.
    start = _id(tokenizer, "bos")
    tokens = [Token(start, piece.weight, vector) for vector in piece.embedding.vectors[encoder]]
    if len(tokens) <= content:
        yield tokens
    else:
        yield from ([token] for token in tokens)


def _id(tokenizer: PreTrainedTokenizerBase, name: str) -> int:
    return getattr(tokenizer, f"{name}_token_id")
