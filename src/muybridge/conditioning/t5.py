"""Prompts to text states with T5, as EasyAnimate and PixArt use it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from muybridge.conditioning.text import EncodedPrompts, all_prompts
from muybridge.conditioning.tokens import Token, emphasised, piece_tokens, warn_of_unknown_words
from muybridge.request.prompt_syntax import ParsedPrompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, T5EncoderModel

MAX_TOKENS = 120
"""What EasyAnimate V3 was trained on; later versions of its code take 256."""


def encode_prompts_t5(
    tokenizer: PreTrainedTokenizerBase,
    text_encoder: T5EncoderModel,
    prompts: Sequence[str | ParsedPrompt],
    negatives: Sequence[str | ParsedPrompt] | None,
    max_tokens: int = MAX_TOKENS,
    clean: bool = True,
) -> EncodedPrompts:
    """Encode prompts, each padded to the same number of tokens, which the masks tell apart.

    Weights of words act as with CLIP; a break does not, as a prompt is read whole. Warns where a prompt has more tokens
    than are read, and names the first words that are lost.

    Args:
        tokenizer: T5's.
        text_encoder: on the device where the states are wanted.
        prompts: b prompts, as in `encode_prompts`.
        negatives: b negatives, or None for no guidance; an empty one is encoded like any other text.
        max_tokens: tokens read of each prompt, the end token included.
        clean: whether captions are lowered and stripped of addresses, mark-up and the like, as in training of
            EasyAnimate V3.

    Raises:
        ConfigError: no prompts, or not as many negatives as prompts.
    """
    texts = all_prompts(prompts, negatives)
    if any(len(text.parts) > 1 for text in texts):
        warnings.warn("BREAK does nothing here: this model reads a prompt whole. Leave it out.", stacklevel=2)
    if clean:
        texts = [_cleaned(text) for text in texts]
    warn_of_unknown_words(tokenizer, texts)
    around: list[int] = tokenizer("", verbose=False).input_ids  # the end, and of some tokenizers the start
    rows = []
    for text in texts:
        row = [token for piece in text.pieces for token in piece_tokens(tokenizer, piece)]
        if len(row) + len(around) > max_tokens:
            lost = tokenizer.decode([token.id for token in row[max_tokens - len(around) :]])
            _warn_of_lost_words(text, str(lost), len(row) + len(around), max_tokens)
        row = [Token(each) for each in around[:-1]] + row[: max_tokens - len(around)]
        rows.append([*row, Token(around[-1])])
    padding = Token(tokenizer.pad_token_id)  # type: ignore[arg-type]
    padded = [row + [padding] * (max_tokens - len(row)) for row in rows]
    device = text_encoder.device
    ids = torch.tensor([[token.id for token in row] for row in padded], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (max_tokens - len(row)) for row in rows], device=device)
    weights = torch.tensor([[token.weight for token in row] for row in padded], device=device)
    with torch.no_grad():
        states = text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    states = emphasised(states, weights, mask)
    mask = mask.to(states.dtype)
    count = len(prompts)
    if negatives is None:
        return EncodedPrompts(states, None, mask, None)
    return EncodedPrompts(states[:count], states[count:], mask[:count], mask[count:])


def _cleaned(prompt: ParsedPrompt) -> ParsedPrompt:
    parts = tuple(tuple(replace(piece, text=_clean(piece.text)) for piece in part) for part in prompt.parts)
    return replace(prompt, parts=parts)


def _clean(text: str) -> str:
    from diffusers import PixArtAlphaPipeline  # slow to import

    # PixArt's cleaning, which only reads a class attribute; twice, since it uncovers what it then removes.
    for _ in range(2):
        text = PixArtAlphaPipeline._clean_caption(PixArtAlphaPipeline, text)  # type: ignore[arg-type]
    return text


def _warn_of_lost_words(prompt: ParsedPrompt, lost: str, num_tokens: int, max_tokens: int) -> None:
    text = "".join(piece.text for piece in prompt.pieces)
    warnings.warn(
        f"The prompt {text[:40]!r}... has {num_tokens} tokens, of which this model reads {max_tokens}; lost from "
        f"{lost[:60]!r} on. Shorten it.",
        stacklevel=3,
    )
