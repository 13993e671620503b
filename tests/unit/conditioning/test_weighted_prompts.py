"""Weights, breaks and embeddings in text states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests import tiny_models
from torch import Tensor

from muybridge.checkpoints import parts, read_model_index
from muybridge.checkpoints.embeddings import Embedding
from muybridge.checkpoints.text_pair import load_second_text_encoder, load_second_tokenizer
from muybridge.conditioning.t5 import encode_prompts_t5
from muybridge.conditioning.text import encode_prompts
from muybridge.conditioning.text_pair import encode_prompts_pair
from muybridge.request.prompt_syntax import parse_prompt, with_embeddings

MAX_TOKENS, CONTENT, WIDTH = 24, 22, 16


def encode(pipeline: Any, *prompts: str, **known: Embedding) -> Tensor:
    parsed = [with_embeddings(parse_prompt(prompt), known) for prompt in prompts]
    return encode_prompts(pipeline.tokenizer, pipeline.text_encoder, parsed, None).positive


def weighed(states: Tensor, weights: dict[int, float]) -> Tensor:
    """As the web UI does it with a chunk."""
    factors = torch.ones(len(states))
    for index, weight in weights.items():
        factors[index] = weight
    changed = states * factors[:, None]
    return changed * (states.mean() / changed.mean())


def test_states_are_multiplied_and_their_mean_restored(pipeline: Any) -> None:
    plain = encode(pipeline, "a red circle")[0]
    found = encode(pipeline, "a (red:1.5) [circle]", "a red circle")

    assert torch.allclose(found[0], weighed(plain, {2: 1.5, 3: 1 / 1.1}), atol=1e-5)
    assert torch.equal(found[1], plain)
    assert torch.allclose(found[0].mean(), plain.mean(), atol=1e-6)


def test_a_weight_of_one_is_no_weight(pipeline: Any) -> None:
    assert torch.equal(encode(pipeline, "a (red:1.0) circle"), encode(pipeline, "a red circle"))


def test_a_weight_acts_in_its_own_chunk(pipeline: Any) -> None:
    first, second = encode(pipeline, "a red")[0], encode(pipeline, "blue heart")[0]
    found = encode(pipeline, "a red BREAK blue (heart:2)")[0]

    assert torch.equal(found[:MAX_TOKENS], first)
    assert torch.allclose(found[MAX_TOKENS:], weighed(second, {2: 2.0}), atol=1e-5)


def test_a_full_chunk_before_a_break_adds_none(pipeline: Any) -> None:
    full = " ".join(["red"] * CONTENT)
    assert encode(pipeline, f"{full} BREAK blue").shape[1] == 2 * MAX_TOKENS


def test_embeddings_stand_in_for_tokens(pipeline: Any) -> None:
    """With the vectors of known words they are those words."""
    table = pipeline.text_encoder.get_input_embeddings().weight
    ids = pipeline.tokenizer("red circle", add_special_tokens=False).input_ids
    toy = Embedding("toy", (table[ids].detach(),), None, "toy.pt")
    before = {name: value.clone() for name, value in pipeline.text_encoder.state_dict().items()}

    assert torch.equal(encode(pipeline, "a toy left", toy=toy), encode(pipeline, "a red circle left"))
    assert torch.allclose(
        encode(pipeline, "a (embedding:toy:1.5)", toy=toy), encode(pipeline, "a (red circle:1.5)"), atol=1e-6
    )
    assert not pipeline.text_encoder.get_input_embeddings()._forward_hooks
    assert all(torch.equal(value, before[name]) for name, value in pipeline.text_encoder.state_dict().items())


def test_an_embedding_is_not_cut_in_two(pipeline: Any) -> None:
    toy = Embedding("toy", (torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(0)),), None, "toy.pt")
    words = " ".join(["red"] * (CONTENT - 1))

    found = encode(pipeline, f"{words} toy", toy=toy)[0]

    assert torch.equal(found[:MAX_TOKENS], encode(pipeline, words)[0])
    assert torch.equal(found[MAX_TOKENS:], encode(pipeline, "toy", toy=toy)[0])


def test_both_encoders_of_sdxl(sdxl_folder: Path) -> None:
    folder = sdxl_folder / "base"
    index = read_model_index(folder)
    tokenizers = parts.load_tokenizer(folder, index), load_second_tokenizer(folder, index)
    encoders = parts.load_text_encoder(folder, torch.float32), load_second_text_encoder(folder, torch.float32)

    def both(prompt: str, **known: Embedding) -> Any:
        return encode_prompts_pair(tokenizers, encoders, [with_embeddings(parse_prompt(prompt), known)], None)

    plain, found = both("a red circle"), both("a (red:1.5) circle")
    for half in (slice(0, WIDTH), slice(WIDTH, None)):
        expected = weighed(plain.positive[0, :, half], {2: 1.5})
        assert torch.allclose(found.positive[0, :, half], expected, atol=1e-4)
    assert torch.equal(found.positive_pooled, plain.positive_pooled)
    tables: list[Any] = [encoder.get_input_embeddings().weight for encoder in encoders]
    ids = tokenizers[0]("red circle", add_special_tokens=False).input_ids
    toy = Embedding("toy", tuple(table[ids].detach() for table in tables), None, "toy.safetensors")
    put_in = both("a toy", toy=toy)
    assert torch.equal(put_in.positive, plain.positive)
    assert torch.equal(put_in.positive_pooled, plain.positive_pooled)


def test_t5(recwarn: pytest.WarningsRecorder) -> None:
    pipeline = tiny_models.make_easyanimate()

    def t5(*prompts: Any) -> Any:
        return encode_prompts_t5(pipeline.tokenizer, pipeline.text_encoder, prompts, None, 16)

    plain, found = t5("a red circle"), t5(parse_prompt("a (red:1.5) circle"), "a red circle")
    count = int(plain.positive_mask.sum())
    read = pipeline.tokenizer("a red circle", padding="max_length", max_length=16, return_tensors="pt")
    assert torch.equal(plain.positive_mask[0], read.attention_mask[0].float())
    with torch.no_grad():
        assert torch.equal(plain.positive, pipeline.text_encoder(**dict(read)).last_hidden_state)
    expected = weighed(plain.positive[0, :count], {2: 1.5})
    assert torch.allclose(found.positive[0, :count], expected, atol=1e-5)
    assert torch.equal(found.positive[1], plain.positive[0])
    assert torch.equal(t5(parse_prompt("a (red:1.0) circle")).positive, plain.positive)
    assert not recwarn.list
    with pytest.warns(UserWarning, match="BREAK does nothing here"):
        t5(parse_prompt("a BREAK red"))


def test_t5_names_the_words_that_are_lost() -> None:
    pipeline = tiny_models.make_easyanimate()
    with pytest.warns(UserWarning, match=r"has 8 tokens, of which this model reads 6; lost from 'moving left'"):
        found = encode_prompts_t5(
            pipeline.tokenizer, pipeline.text_encoder, ["a red large circle moving left"], None, 6
        )
    assert found.positive.shape[1] == 6
