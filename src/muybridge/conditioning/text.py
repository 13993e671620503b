"""Prompts to text states with CLIP, of any length."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import CLIPTextModel, PreTrainedTokenizerBase

from muybridge.errors import ConfigError


@dataclass(frozen=True)
class EncodedPrompts:
    """Text states of prompts and of their negatives, equally long.

    Attributes:
        positive: `[b, n, d]`.
        negative: `[b, n, d]`, or None where guidance is off.
        positive_mask: `[b, n]`, 1 for tokens that count and 0 for padding, or None where all count.
        negative_mask: likewise.
    """

    positive: Tensor
    negative: Tensor | None
    positive_mask: Tensor | None = None
    negative_mask: Tensor | None = None

    def repeated(self, count: int) -> EncodedPrompts:
        """Each prompt `count` times in a row."""
        return self._each(lambda states: states.repeat_interleave(count, dim=0))

    def on(self, device: torch.device, dtype: torch.dtype) -> EncodedPrompts:
        """The same on a device, in a precision."""
        return self._each(lambda states: states.to(device, dtype))

    def _each(self, change: Callable[[Tensor], Tensor]) -> EncodedPrompts:
        others = (self.negative, self.positive_mask, self.negative_mask)
        return EncodedPrompts(change(self.positive), *(None if t is None else change(t) for t in others))


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase,
    text_encoder: CLIPTextModel,
    prompts: Sequence[str],
    negatives: Sequence[str] | None,
) -> EncodedPrompts:
    """Encode prompts, the long ones in chunks whose states are joined end to end.

    All prompts and negatives are padded to the same number of chunks, so that they run as one batch and no clip
    is cut in two. Warns of words that the vocabulary lacks.

    Args:
        tokenizer: its `model_max_length` (77 for CLIP) is the size of a chunk, start and end token included.
        text_encoder: on the device where the states are wanted; its number of positions also bounds a chunk.
        prompts: b prompts.
        negatives: b negatives, or None for no guidance.

    Raises:
        ConfigError: no prompts, or not as many negatives as prompts.
    """
    check_counts(prompts, negatives)
    texts = [*prompts, *(negatives or ())]
    rows: list[list[int]] = [tokenizer(text, add_special_tokens=False, verbose=False).input_ids for text in texts]
    warn_of_unknown_words(tokenizer, texts, rows)
    # A tokenizer saved without its length says 1e30.
    content = min(int(tokenizer.model_max_length), text_encoder.config.max_position_embeddings) - 2
    num_chunks = max(1, *(-(-len(row) // content) for row in rows))
    ids = torch.tensor([_chunks(tokenizer, row, num_chunks, content) for row in rows], device=text_encoder.device)
    with torch.no_grad():
        states = text_encoder(input_ids=ids.flatten(0, 1)).last_hidden_state
    states = states.unflatten(0, (len(texts), num_chunks)).flatten(1, 2)
    return EncodedPrompts(states[: len(prompts)], states[len(prompts) :] if negatives is not None else None)


def check_counts(prompts: Sequence[str], negatives: Sequence[str] | None) -> None:
    """Whether there is a prompt, and as many negatives as prompts.

    Raises:
        ConfigError: otherwise.
    """
    if not prompts:
        raise ConfigError("The prompt list is empty; give at least one prompt.")
    if negatives is not None and len(negatives) != len(prompts):
        raise ConfigError(f"{len(prompts)} prompts but {len(negatives)} negative prompts; give one for each, or one.")


def warn_of_unknown_words(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], rows: list[list[int]]) -> None:
    """Warn of words that the vocabulary lacks, where it has a token for them; `rows` are the texts' token ids."""
    unknown = tokenizer.unk_token_id
    # Stable Diffusion's tokenizer spells every word; its token for the unknown is the one for the end.
    if unknown == tokenizer.eos_token_id or not tokenizer.is_fast:
        return
    words: dict[str, None] = {}
    for text, row in zip(texts, rows, strict=True):
        if unknown in row:
            spans = tokenizer(text, add_special_tokens=False, verbose=False, return_offsets_mapping=True).offset_mapping
            words |= {text[a:b]: None for (a, b), token in zip(spans, row, strict=True) if token == unknown}
    if words:
        names = ", ".join(map(repr, words))
        warnings.warn(f"This model's vocabulary lacks {names}; it cannot draw what it has no word for.", stacklevel=3)


def _chunks(tokenizer: PreTrainedTokenizerBase, tokens: list[int], num_chunks: int, content: int) -> list[list[int]]:
    chunks = []
    for index in range(num_chunks):
        piece = tokens[index * content : (index + 1) * content]
        padding = [tokenizer.pad_token_id] * (content - len(piece))
        chunks.append([tokenizer.bos_token_id, *piece, tokenizer.eos_token_id, *padding])
    return chunks
