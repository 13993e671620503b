"""Prompts to text states with CLIP, of any length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from transformers import CLIPTextModel, PreTrainedTokenizerBase

from muybridge.conditioning.tokens import content_of_chunk, padded_chunks, split_into_chunks, warn_of_unknown_words
from muybridge.errors import ConfigError
from muybridge.request.prompt_syntax import ParsedPrompt, plain_prompt


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
    prompts: Sequence[str | ParsedPrompt],
    negatives: Sequence[str | ParsedPrompt] | None,
) -> EncodedPrompts:
    """Encode prompts, the long ones in chunks whose states are joined end to end.

    All prompts and negatives are padded to the same number of chunks, so that they run as one batch and no clip
    is cut in two. Warns of words that the vocabulary lacks.

    Args:
        tokenizer: its `model_max_length` (77 for CLIP) is the size of a chunk, start and end token included.
        text_encoder: on the device where the states are wanted; its number of positions also bounds a chunk.
        prompts: b prompts; a text is words alone, see `parse_prompt` for weights and the like.
        negatives: b negatives, or None for no guidance.

    Raises:
        ConfigError: no prompts, or not as many negatives as prompts.
    """
    texts = all_prompts(prompts, negatives)
    warn_of_unknown_words(tokenizer, texts)
    content = content_of_chunk(tokenizer, text_encoder)
    found = split_into_chunks(tokenizer, texts, content)
    num_chunks = max(map(len, found))
    chunks = padded_chunks(tokenizer, found, num_chunks, content)
    with torch.no_grad(), chunks.embedded(text_encoder) as ids:
        states = chunks.emphasised(text_encoder(input_ids=ids).last_hidden_state)
    states = states.unflatten(0, (len(texts), num_chunks)).flatten(1, 2)
    return EncodedPrompts(states[: len(prompts)], states[len(prompts) :] if negatives is not None else None)


def all_prompts(
    prompts: Sequence[str | ParsedPrompt], negatives: Sequence[str | ParsedPrompt] | None
) -> list[ParsedPrompt]:
    """Prompts and then negatives, those that are texts as plain words.

    Raises:
        ConfigError: no prompts, or not as many negatives as prompts.
    """
    if not prompts:
        raise ConfigError("The prompt list is empty; give at least one prompt.")
    if negatives is not None and len(negatives) != len(prompts):
        raise ConfigError(f"{len(prompts)} prompts but {len(negatives)} negative prompts; give one for each, or one.")
    return [plain_prompt(each) if isinstance(each, str) else each for each in (*prompts, *(negatives or ()))]
