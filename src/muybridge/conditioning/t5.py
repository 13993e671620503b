"""Prompts to text states with T5, as EasyAnimate and PixArt use it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from muybridge.conditioning.text import EncodedPrompts, check_counts, warn_of_unknown_words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, T5EncoderModel

MAX_TOKENS = 120
"""What EasyAnimate V3 was trained on; later versions of its code take 256."""


def encode_prompts_t5(
    tokenizer: PreTrainedTokenizerBase,
    text_encoder: T5EncoderModel,
    prompts: Sequence[str],
    negatives: Sequence[str] | None,
    max_tokens: int = MAX_TOKENS,
    clean: bool = True,
) -> EncodedPrompts:
    """Encode prompts, each padded to the same number of tokens, which the masks tell apart.

    Warns where a prompt has more tokens than are read, and names the first words that are lost.

    Args:
        tokenizer: T5's.
        text_encoder: on the device where the states are wanted.
        prompts: b prompts.
        negatives: b negatives, or None for no guidance; an empty one is encoded like any other text.
        max_tokens: tokens read of each prompt, the end token included.
        clean: whether captions are lowered and stripped of addresses, mark-up and the like, as in training of
            EasyAnimate V3.

    Raises:
        ConfigError: no prompts, or not as many negatives as prompts.
    """
    check_counts(prompts, negatives)
    texts = [*prompts, *(negatives or ())]
    if clean:
        texts = [_clean(text) for text in texts]
    whole = tokenizer(texts, add_special_tokens=True, verbose=False).input_ids
    warn_of_unknown_words(tokenizer, texts, whole)
    for text, row in zip(texts, whole, strict=True):
        _warn_of_lost_words(tokenizer, text, row, max_tokens)
    tokens = tokenizer(texts, padding="max_length", max_length=max_tokens, truncation=True, return_tensors="pt")
    ids, mask = (tokens[name].to(text_encoder.device) for name in ("input_ids", "attention_mask"))
    with torch.no_grad():
        states = text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    mask = mask.to(states.dtype)
    count = len(prompts)
    if negatives is None:
        return EncodedPrompts(states, None, mask, None)
    return EncodedPrompts(states[:count], states[count:], mask[:count], mask[count:])


def _clean(text: str) -> str:
    from diffusers import PixArtAlphaPipeline  # slow to import

    # PixArt's cleaning, which only reads a class attribute; twice, since it uncovers what it then removes.
    for _ in range(2):
        text = PixArtAlphaPipeline._clean_caption(PixArtAlphaPipeline, text)  # type: ignore[arg-type]
    return text


def _warn_of_lost_words(tokenizer: PreTrainedTokenizerBase, text: str, row: list[int], max_tokens: int) -> None:
    if len(row) <= max_tokens:
        return
    lost = tokenizer.decode(row[max_tokens - 1 : -1])
    warnings.warn(
        f"The prompt {text[:40]!r}... has {len(row)} tokens, of which this model reads {max_tokens}; lost from "
        f"{str(lost)[:60]!r} on. Shorten it.",
        stacklevel=3,
    )
