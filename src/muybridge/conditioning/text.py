"""Prompts to text states with CLIP, of any length."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, PreTrainedTokenizerBase

from muybridge.errors import ConfigError


@dataclass(frozen=True)
class EncodedPrompts:
    """Text states of prompts and of their negatives, equally long.

    Attributes:
        positive: `[b, n, d]`.
        negative: `[b, n, d]`, or None where guidance is off.
        positive_mask: `[b, n]`, 1 for tokens that count and 0 for padding, or None where all count.
        negative_mask: likewise.
        positive_pooled: each prompt as one vector, `[b, p]`, or None for models that are not told it.
        negative_pooled: likewise.
    """

    positive: Tensor
    negative: Tensor | None
    positive_mask: Tensor | None = None
    negative_mask: Tensor | None = None
    positive_pooled: Tensor | None = None
    negative_pooled: Tensor | None = None

    def repeated(self, count: int) -> EncodedPrompts:
        """Each prompt `count` times in a row."""
        return self.mapped(lambda states: states.repeat_interleave(count, dim=0))

    def on(self, device: torch.device, dtype: torch.dtype) -> EncodedPrompts:
        """The same on a device, in a precision."""
        return self.mapped(lambda states: states.to(device, dtype))

    def mapped(self, change: Callable[[Tensor], Tensor]) -> EncodedPrompts:
        """With every tensor there is changed alike."""
        tensors = {each.name: getattr(self, each.name) for each in fields(self)}
        return replace(self, **{name: change(tensor) for name, tensor in tensors.items() if tensor is not None})


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
    rows = token_rows(tokenizer, texts)
    warn_of_unknown_words(tokenizer, texts, rows)
    content = content_of_chunk(tokenizer, text_encoder)
    num_chunks = chunks_needed(rows, content)
    ids = chunked(tokenizer, rows, num_chunks, content).to(text_encoder.device)
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


def token_rows(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, however long, without start and end."""
    return [tokenizer(text, add_special_tokens=False, verbose=False).input_ids for text in texts]


def content_of_chunk(
    tokenizer: PreTrainedTokenizerBase, text_encoder: CLIPTextModel | CLIPTextModelWithProjection
) -> int:
    """How many tokens an encoder reads at once besides start and end."""
    # A tokenizer saved without its length says 1e30.
    return min(int(tokenizer.model_max_length), text_encoder.config.max_position_embeddings) - 2


def chunks_needed(rows: Sequence[Sequence[int]], content: int) -> int:
    """Chunks of `content` tokens that hold the longest of the rows, at least one."""
    return max(1, *(-(-len(row) // content) for row in rows))


def chunked(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Sequence[int]], num_chunks: int, content: int) -> Tensor:
    """Token ids `[rows, num_chunks, content + 2]`, each chunk with start, end and padding."""
    return torch.tensor([_chunks(tokenizer, row, num_chunks, content) for row in rows])


def _chunks(
    tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int], num_chunks: int, content: int
) -> list[list[int]]:
    chunks = []
    for index in range(num_chunks):
        piece = tokens[index * content : (index + 1) * content]
        padding = [tokenizer.pad_token_id] * (content - len(piece))
        chunks.append([tokenizer.bos_token_id, *piece, tokenizer.eos_token_id, *padding])
    return chunks
