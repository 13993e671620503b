"""Prompts through two encoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from muybridge.checkpoints import parts, read_model_index
from muybridge.checkpoints.text_pair import load_second_text_encoder, load_second_tokenizer
from muybridge.conditioning.text import EncodedPrompts
from muybridge.conditioning.text_pair import encode_prompts_pair, with_zero_negatives
from muybridge.errors import ConfigError

MAX_TOKENS, CONTENT = 24, 22
PROMPT = "a red circle moving left"


@pytest.fixture(scope="module")
def pair(sdxl_folder: Path) -> tuple[Any, Any]:
    """Tokenizers and encoders; the second pads with another token."""
    folder = sdxl_folder / "base"
    index = read_model_index(folder)
    tokenizers = parts.load_tokenizer(folder, index), load_second_tokenizer(folder, index)
    encoders = parts.load_text_encoder(folder, torch.float32), load_second_text_encoder(folder, torch.float32)
    return tokenizers, encoders


def encode(pair: tuple[Any, Any], prompts: list[str], negatives: list[str] | None = None) -> EncodedPrompts:
    return encode_prompts_pair(*pair, prompts, negatives)


def plain(pair: tuple[Any, Any], text: str) -> tuple[Tensor, Tensor]:
    """What Stable Diffusion XL does with a prompt that fits."""
    states, pooled = [], None
    for tokenizer, encoder in zip(*pair, strict=True):
        ids = tokenizer(text, padding="max_length", max_length=MAX_TOKENS, return_tensors="pt").input_ids
        with torch.no_grad():
            found = encoder(ids, output_hidden_states=True)
        states.append(found.hidden_states[-2][0])
        pooled = found[0][0]
    assert pooled is not None
    return torch.cat(states, dim=-1), pooled


def words(count: int) -> str:
    return " ".join(["red", "circle", "moving", "left", "large", "blue", "heart"][i % 7] for i in range(count))


@pytest.mark.parametrize("text", ["", PROMPT, words(CONTENT)])
def test_what_fits_is_the_plain_call(pair: tuple[Any, Any], text: str) -> None:
    found = encode(pair, [text])
    states, pooled = plain(pair, text)
    assert found.positive.shape == (1, MAX_TOKENS, 32)
    assert torch.allclose(found.positive[0], states, atol=1e-6)
    assert found.positive_pooled is not None
    assert torch.allclose(found.positive_pooled[0], pooled, atol=1e-6)
    assert found.negative is None
    assert found.negative_pooled is None
    assert not found.positive.requires_grad


def test_each_tokenizer_pads_in_its_own_way(pair: tuple[Any, Any]) -> None:
    tokenizers, encoders = pair
    assert tokenizers[0].pad_token_id != tokenizers[1].pad_token_id
    same = encode(((tokenizers[0], tokenizers[0]), encoders), [PROMPT]).positive
    own = encode(pair, [PROMPT]).positive
    assert torch.equal(same[..., :16], own[..., :16])
    assert not torch.allclose(same[..., 16:], own[..., 16:], atol=1e-3)


def test_long_prompts_are_chunks_and_the_vector_is_the_firsts(pair: tuple[Any, Any]) -> None:
    long = words(CONTENT + 3)
    pieces = [" ".join(long.split()[:CONTENT]), " ".join(long.split()[CONTENT:])]
    found = encode(pair, [long], [PROMPT])
    assert found.negative is not None
    assert found.positive.shape == found.negative.shape == (1, 2 * MAX_TOKENS, 32)
    assert torch.allclose(found.positive[0], torch.cat([plain(pair, piece)[0] for piece in pieces]), atol=1e-6)
    assert torch.allclose(found.negative[0], torch.cat([plain(pair, text)[0] for text in (PROMPT, "")]), atol=1e-6)
    assert found.positive_pooled is not None
    assert found.negative_pooled is not None
    assert torch.allclose(found.positive_pooled[0], plain(pair, pieces[0])[1], atol=1e-6)
    assert torch.allclose(found.negative_pooled[0], plain(pair, PROMPT)[1], atol=1e-6)


def test_zeros_for_negatives(pair: tuple[Any, Any]) -> None:
    found = with_zero_negatives(encode(pair, [PROMPT, "a"]))
    assert found.negative is not None
    assert found.negative_pooled is not None
    assert found.negative.shape == found.positive.shape
    assert found.negative_pooled.shape == (2, 12)
    assert not found.negative.any()
    assert not found.negative_pooled.any()
    assert found.positive.any()


def test_prompts_are_repeated_with_their_vectors(pair: tuple[Any, Any]) -> None:
    found = encode(pair, [PROMPT, "a"], ["", "green"])
    twice = found.repeated(2).on(torch.device("cpu"), torch.bfloat16)
    for name in ("positive", "negative", "positive_pooled", "negative_pooled"):
        expected = getattr(found, name)[[0, 0, 1, 1]].bfloat16()
        assert torch.equal(getattr(twice, name), expected)
    assert twice.positive_mask is None


def test_what_is_refused(pair: tuple[Any, Any]) -> None:
    with pytest.raises(ConfigError, match="prompt list is empty"):
        encode(pair, [])
    with pytest.raises(ConfigError, match="1 prompts but 2 negative prompts"):
        encode(pair, [PROMPT], ["", ""])


def test_unknown_words_are_named_once(pair: tuple[Any, Any]) -> None:
    with pytest.warns(UserWarning, match="vocabulary lacks 'zebra'") as caught:
        encode(pair, ["a red zebra"])
    assert len(caught) == 1
