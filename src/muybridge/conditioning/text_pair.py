"""Prompts to text states with the two encoders of Stable Diffusion XL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from transformers import CLIPTextModel, CLIPTextModelWithProjection, PreTrainedTokenizerBase

from muybridge.conditioning.text import EncodedPrompts, all_prompts
from muybridge.conditioning.tokens import (
    Chunks,
    Encoder,
    content_of_chunk,
    padded_chunks,
    split_into_chunks,
    warn_of_unknown_words,
)
from muybridge.errors import ConfigError
from muybridge.request.prompt_syntax import ParsedPrompt


def encode_prompts_pair(
    tokenizers: tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase],
    text_encoders: tuple[CLIPTextModel, CLIPTextModelWithProjection],
    prompts: Sequence[str | ParsedPrompt],
    negatives: Sequence[str | ParsedPrompt] | None,
) -> EncodedPrompts:
    """Encode prompts twice: the states before the last layer of both encoders side by side, and one vector a prompt.

    Long prompts are encoded in chunks, as `encode_prompts` does it; the vector of a prompt is that of its first chunk.
    Warns of words that the vocabulary lacks.

    Args:
        tokenizers: of the two encoders; what they pad with may differ.
        text_encoders: on the device where the states are wanted; the second makes the vector.
        prompts: b prompts, as in `encode_prompts`.
        negatives: b negatives, or None for no guidance or for negatives of zeros, see `with_zero_negatives`.

    Raises:
        ConfigError: no prompts, not as many negatives as prompts, or encoders that read another number of tokens.
    """
    texts = all_prompts(prompts, negatives)
    warn_of_unknown_words(tokenizers[0], texts)
    contents = {content_of_chunk(*each) for each in zip(tokenizers, text_encoders, strict=True)}
    if len(contents) != 1:
        lengths = " and ".join(str(content + 2) for content in sorted(contents))
        raise ConfigError(f"The two text encoders must read as many tokens as each other; these read {lengths}.")
    content = contents.pop()
    rows = [split_into_chunks(tokenizer, texts, content, index) for index, tokenizer in enumerate(tokenizers)]
    num_chunks = max(len(chunks) for each in rows for chunks in each)
    chunked = [
        padded_chunks(tokenizer, each, num_chunks, content) for tokenizer, each in zip(tokenizers, rows, strict=True)
    ]
    found = [_run(encoder, chunks) for encoder, chunks in zip(text_encoders, chunked, strict=True)]
    shape = (len(texts), num_chunks)
    one, other = (
        chunks.emphasised(each.hidden_states[-2]).unflatten(0, shape).flatten(1, 2)
        for chunks, each in zip(chunked, found, strict=True)
    )
    states = torch.cat([one, other.to(one)], dim=-1)
    pooled = found[1].text_embeds.unflatten(0, shape)[:, 0]
    count = len(prompts)
    if negatives is None:
        return EncodedPrompts(states, None, positive_pooled=pooled)
    return EncodedPrompts(
        states[:count], states[count:], positive_pooled=pooled[:count], negative_pooled=pooled[count:]
    )


def with_zero_negatives(encoded: EncodedPrompts) -> EncodedPrompts:
    """The same prompts with zeros for negatives, which is what SDXL was trained on where there is no text."""
    pooled = encoded.positive_pooled
    return replace(
        encoded,
        negative=torch.zeros_like(encoded.positive),
        negative_pooled=None if pooled is None else torch.zeros_like(pooled),
    )


def _run(encoder: Encoder, chunks: Chunks) -> Any:
    with torch.no_grad(), chunks.embedded(encoder) as ids:
        return encoder(input_ids=ids, output_hidden_states=True)
