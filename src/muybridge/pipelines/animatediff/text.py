"""The text of an AnimateDiff video, encoded by CLIP."""

from __future__ import annotations

from transformers import CLIPTextModel, CLIPTextModelWithProjection, PreTrainedTokenizerBase

from muybridge.conditioning.text import EncodedPrompts, encode_prompts
from muybridge.conditioning.text_pair import encode_prompts_pair, with_zero_negatives
from muybridge.pipelines.prompts import Texts


def encode_texts(
    texts: Texts,
    first: tuple[PreTrainedTokenizerBase, CLIPTextModel],
    second: tuple[PreTrainedTokenizerBase, CLIPTextModelWithProjection] | None,
    guided: bool,
    has_zeros: bool,
) -> EncodedPrompts:
    """Text states of the prompts, and where there is guidance of their negatives.

    Args:
        texts: of the call.
        first: tokenizer and text encoder.
        second: likewise, of Stable Diffusion XL.
        guided: whether there is guidance.
        has_zeros: whether with two encoders the states are zeros where no negative is given.
    """
    zeros = second is not None and guided and texts.negative is None and has_zeros
    negatives = texts.negatives() if guided and not zeros else None
    if second is None:
        return encode_prompts(*first, texts.prompts, negatives)
    encoded = encode_prompts_pair((first[0], second[0]), (first[1], second[1]), texts.prompts, negatives)
    return with_zero_negatives(encoded) if zeros else encoded
