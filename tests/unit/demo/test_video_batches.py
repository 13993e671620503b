"""Batches of clips and stills for the video VAE and the video transformer."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
import torch

from muybridge.demo import models, render
from muybridge.demo.batches import ConditionedVideoBatches, VideoBatches

TOKENIZER = models.make_tokenizer()
SIZE = render.FRAME_SIZE


def clips(batch_size: int = 2, seed: int = 1, dropout: float = 0.1) -> ConditionedVideoBatches:
    return ConditionedVideoBatches(batch_size, seed, TOKENIZER, dropout, still_shares=(0.0, 0.0))


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_vae_sees_stills_stretches_and_whole_clips():
    batches = VideoBatches(2, seed=1)

    shapes = {tuple(batches(index)["pixels"].shape) for index in range(20)}

    assert shapes == {(8, 1, 3, SIZE, SIZE), (2, 8, 3, SIZE, SIZE), (1, 16, 3, SIZE, SIZE)}


def test_a_single_stretch_still_gives_whole_clips():
    batches = VideoBatches(1, seed=1)

    assert (1, 16) in {tuple(batches(index)["pixels"].shape[:2]) for index in range(20)}


@pytest.mark.parametrize("make", [lambda seed: VideoBatches(1, seed), lambda seed: clips(1, seed)])
def test_a_batch_is_a_function_of_seed_and_index(make):
    batches = make(5)
    batches(0)

    assert same(batches(7), make(5)(7))
    assert not same(batches(7), make(6)(7))


def test_clips_have_the_promised_shapes():
    batch = clips(3)(0)

    assert {name: tuple(value.shape) for name, value in batch.items()} == {
        "pixels": (3, 16, 3, SIZE, SIZE),
        "input_ids": (3, models.MAX_TOKENS),
        "attention_mask": (3, models.MAX_TOKENS),
        "unknown": (3, 16),
    }
    assert batch["pixels"].abs().max() <= 1
    assert batch["unknown"].dtype == torch.bool


def test_stills_are_four_for_a_clip_and_wholly_unknown():
    batch = ConditionedVideoBatches(2, 1, TOKENIZER)(0)

    assert batch["pixels"].shape == (8, 1, 3, SIZE, SIZE)
    assert batch["unknown"].tolist() == [[True]] * 8


def test_scenes_are_drawn_from_the_given_triples():
    batches = ConditionedVideoBatches(2, 1, TOKENIZER, 0.0, triples=(("ring", "red", "still"),))
    captions = cast("list[str]", TOKENIZER.batch_decode(batches(0)["input_ids"], skip_special_tokens=True))

    assert all("ring" in caption.split() for caption in captions)


def test_the_mask_of_the_tokens_is_as_long_as_the_caption():
    batch = clips(6)(0)

    for ids, mask in zip(batch["input_ids"].tolist(), batch["attention_mask"].tolist(), strict=True):
        length = ids.index(TOKENIZER.eos_token_id) + 1
        assert mask == [1] * length + [0] * (models.MAX_TOKENS - length)


def test_the_share_of_stills_changes_evenly():
    batches = ConditionedVideoBatches(1, 2, TOKENIZER, still_shares=(0.9, 0.1), num_batches=200)

    def share(first: int) -> float:
        return float(np.mean([batches(index)["pixels"].shape[1] == 1 for index in range(first, first + 40)]))

    early, middle, late, after = (share(first) for first in (0, 80, 160, 1000))
    assert early > 0.65
    assert 0.25 < middle < 0.75
    assert late < 0.35
    assert after < 0.3


def test_clips_are_given_with_what_is_promised():
    unknown = torch.cat([clips(10, seed=3)(index)["unknown"] for index in range(12)])
    starts = (~unknown[:, :8]).sum(dim=1)
    ends = (~unknown[:, -4:]).sum(dim=1)

    assert unknown[:, 8:-4].all()
    assert all((~row[:count]).all() for row, count in zip(unknown, starts, strict=True))
    assert set(starts.tolist()) == {0, 1, 2, 3, 4, 8}
    assert not ends[starts == 8].any(), "a whole chunk is known of a clip before it only"
    assert set(ends.tolist()) == {0, 1, 2, 3, 4}
    assert not (ends[starts == 0]).any(), "an end is known only together with a start"
    assert float((starts == 0).float().mean()) == pytest.approx(0.5, abs=0.13)
    assert float((ends > 0).float().mean()) == pytest.approx(0.15, abs=0.1)


def test_known_frames_are_at_the_ends_without_gaps():
    for row in clips(20, seed=4)(0)["unknown"].tolist():
        first = row.index(True)
        last = len(row) - 1 - row[::-1].index(True)
        assert all(row[first : last + 1])


def test_dropped_captions_are_empty():
    captions = TOKENIZER.batch_decode(clips(60, dropout=0.5)(0)["input_ids"], skip_special_tokens=True)

    assert np.mean([text == "" for text in cast("list[str]", captions)]) == pytest.approx(0.5, abs=0.2)
