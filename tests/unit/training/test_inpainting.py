"""Masks as EasyAnimate draws them, and what a transformer is told of a clip."""

from __future__ import annotations

import torch
from torch import Tensor

from muybridge.training.inpainting import BOTH_ENDS, EVERYTHING, FIRST, InpaintingClips, random_mask


def clips(count: int = 6, frames: int = 8) -> dict[str, Tensor]:
    return {"pixels": torch.zeros(count, frames, 3, 16, 24), "input_ids": torch.ones(count, 2)}


def test_kinds_come_as_often_as_they_should() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [random_mask(8, 16, 24, generator) for _ in range(1500)]

    shares = torch.bincount(torch.tensor([mask.kind for mask in drawn]), minlength=5) / len(drawn)
    torch.testing.assert_close(shares, torch.tensor([0.05, 0.3, 0.3, 0.3, 0.05]), atol=0.04, rtol=0)
    for kind, most in ((FIRST, 4), (BOTH_ENDS, 3)):
        assert {mask.known for mask in drawn if mask.kind == kind} == set(range(1, most + 1))
    assert all(mask.draw(8, 16, 24).any() for mask in drawn if mask.kind in (EVERYTHING, FIRST, BOTH_ENDS))
    stills = [random_mask(1, 16, 24, generator).kind for _ in range(300)]
    assert 0.7 < stills.count(EVERYTHING) / 300 < 0.9


def test_what_masks_look_like() -> None:
    generator = torch.Generator().manual_seed(1)
    by_kind = {}
    while len(by_kind) < 5:
        mask = random_mask(8, 16, 24, generator)
        drawn = mask.draw(8, 16, 24)
        if drawn.any():
            by_kind[mask.kind] = (mask, drawn)

    first, drawn = by_kind[FIRST]
    assert drawn.flatten(1).all(1).tolist() == [False] * first.known + [True] * (8 - first.known)
    ends, drawn = by_kind[BOTH_ENDS]
    assert drawn.flatten(1).any(1).tolist() == (
        [False] * ends.known + [True] * (8 - 2 * ends.known) + [False] * ends.known
    )
    _, drawn = by_kind[0]
    assert all(torch.equal(frame, drawn[0]) for frame in drawn)
    assert 0 < drawn[0].float().mean() < 0.6
    some, drawn = by_kind[4]
    assert drawn.flatten(1).any(1).nonzero()[[0, -1], 0].tolist() == [some.start, some.end - 1]


def test_each_sample_has_draws_of_its_own() -> None:
    batches = InpaintingClips(lambda _: clips(), seed=1)

    drawn = [batches(index) for index in range(40)]

    assert drawn[0]["unknown"].shape == (6, 8, 16, 24)
    assert all(torch.equal(batches(7)[name], drawn[7][name]) for name in drawn[7])
    counts = torch.cat([batch["picture_counts"] for batch in drawn]).float().mean()
    assert 0.4 < float(counts) < 0.6
    assert any(0 < batch["picture_counts"].sum() < 6 for batch in drawn), "not one draw for a batch"
    pictures = torch.cat([batch["picture"] for batch in drawn])
    assert 0.45 < float((pictures == 0).float().mean()) < 0.68
    assert int(pictures.max()) == 7
    assert not any(batch["nothing_given"].any() for batch in drawn)


def test_the_originals_silence_about_nothing_is_an_option() -> None:
    batches = InpaintingClips(lambda _: clips(), seed=1, untold_share=1.0)

    for index in range(10):
        batch = batches(index)
        assert torch.equal(batch["nothing_given"], batch["unknown"].flatten(1).all(1))
