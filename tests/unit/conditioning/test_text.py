"""Prompts to text states."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from muybridge.conditioning.text import encode_prompts
from muybridge.errors import ConfigError

MAX_TOKENS, CONTENT = 24, 22
PROMPT = "a red circle moving left"


def plain(pipeline: Any, text: str) -> Tensor:
    """What Stable Diffusion does with a prompt that fits."""
    ids = pipeline.tokenizer(
        text, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        return pipeline.text_encoder(ids).last_hidden_state[0]


def encode(pipeline: Any, prompts: list[str], negatives: list[str] | None = None) -> tuple[Tensor, Tensor | None]:
    found = encode_prompts(pipeline.tokenizer, pipeline.text_encoder, prompts, negatives)
    return found.positive, found.negative


def words(count: int) -> str:
    return " ".join(["red", "circle", "moving", "left", "large", "blue", "heart"][i % 7] for i in range(count))


@pytest.mark.parametrize("text", ["", PROMPT, words(CONTENT)])
def test_what_fits_is_the_plain_call(pipeline: Any, text: str) -> None:
    positive, negative = encode(pipeline, [text])

    assert positive.shape == (1, MAX_TOKENS, 16)
    assert torch.allclose(positive[0], plain(pipeline, text), atol=1e-6)
    assert negative is None
    assert not positive.requires_grad


def test_long_prompts_are_split_at_the_content_of_a_chunk(pipeline: Any) -> None:
    long = words(CONTENT + 3)
    pieces = [" ".join(long.split()[:CONTENT]), " ".join(long.split()[CONTENT:])]

    positive, _ = encode(pipeline, [long])

    assert positive.shape == (1, 2 * MAX_TOKENS, 16)
    assert torch.allclose(positive[0], torch.cat([plain(pipeline, piece) for piece in pieces]), atol=1e-6)


@pytest.mark.parametrize(("count", "chunks"), [(CONTENT - 1, 1), (CONTENT, 1), (CONTENT + 1, 2), (2 * CONTENT, 2)])
def test_number_of_chunks(pipeline: Any, count: int, chunks: int) -> None:
    assert encode(pipeline, [words(count)])[0].shape[1] == chunks * MAX_TOKENS


@pytest.mark.parametrize(("positive", "negative"), [(30, 200), (200, 30)])
def test_prompt_and_negative_are_padded_to_the_same_length(pipeline: Any, positive: int, negative: int) -> None:
    wanted, unwanted = encode(pipeline, [words(positive)], [words(negative)])

    assert unwanted is not None
    assert wanted.shape == unwanted.shape == (1, -(-200 // CONTENT) * MAX_TOKENS, 16)
    # What is beyond the shorter one is chunks of an empty prompt.
    shorter = wanted if positive < negative else unwanted
    assert torch.allclose(
        shorter[0, 2 * MAX_TOKENS :].unflatten(0, (-1, MAX_TOKENS))[3], plain(pipeline, ""), atol=1e-6
    )


def test_a_batch_is_its_prompts(pipeline: Any) -> None:
    prompts, negatives = [PROMPT, "a blue heart", words(CONTENT + 1)], ["", "green", "a"]

    positive, negative = encode(pipeline, prompts, negatives)

    assert negative is not None
    assert positive.shape == negative.shape == (3, 2 * MAX_TOKENS, 16)
    for found, texts in ((positive, prompts), (negative, negatives)):
        for row, text in zip(found, texts, strict=True):
            first = " ".join(text.split()[:CONTENT])
            assert torch.allclose(row[:MAX_TOKENS], plain(pipeline, first), atol=1e-6)


def test_an_empty_list_is_refused(pipeline: Any) -> None:
    with pytest.raises(ConfigError, match="prompt list is empty"):
        encode(pipeline, [])


def test_unequal_numbers_are_refused(pipeline: Any) -> None:
    with pytest.raises(ConfigError, match="3 prompts but 2 negative prompts"):
        encode(pipeline, [PROMPT] * 3, ["", ""])


def test_unknown_words_are_named_once(pipeline: Any) -> None:
    with pytest.warns(UserWarning, match="vocabulary lacks 'zebra', 'Swimming'; it cannot draw") as caught:
        encode(pipeline, ["a red zebra Swimming left", "zebra"])

    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_known_words_do_not_warn(pipeline: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encode(pipeline, ["A RED circle, moving left"], [""])


def test_a_vocabulary_without_a_word_for_the_unknown_does_not_warn(make_pipeline: Any) -> None:
    pipeline = make_pipeline()
    pipeline.tokenizer.unk_token = pipeline.tokenizer.eos_token  # as in Stable Diffusion

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encode(pipeline, [PROMPT])


def test_a_tokenizer_without_a_length_takes_the_encoders(make_pipeline: Any) -> None:
    pipeline = make_pipeline()
    pipeline.tokenizer.model_max_length = int(1e30)

    positive, _ = encode(pipeline, [PROMPT])

    assert positive.shape == (1, MAX_TOKENS, 16)
    assert torch.allclose(positive[0], plain(pipeline, PROMPT), atol=1e-6)
