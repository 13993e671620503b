"""Batch number i is a function of the seed and i."""

from __future__ import annotations

from collections import Counter

import pytest

from muybridge.data.buckets import BucketPlan, Clip
from muybridge.data.order import BatchOrder
from muybridge.data.record import Record
from muybridge.errors import ConfigError
from muybridge.types import VideoShape

WIDE, TALL, STILL = VideoShape(16, 192, 336), VideoShape(16, 336, 192), VideoShape(1, 256, 256)


def plan(**counts: tuple[VideoShape, int, int]) -> BucketPlan:
    """Of each name as many clips of a shape and set."""
    buckets: dict[VideoShape, tuple[Clip, ...]] = {}
    for name, (shape, count, source) in counts.items():
        kind = "image" if shape.num_frames == 1 else "video"
        new = tuple(Clip(Record(f"{name}{n}", f"{name}{n}", kind), shape, 0.1, source) for n in range(count))
        buckets[shape] = (*buckets.get(shape, ()), *new)
    return BucketPlan(buckets)


def seen(order: BatchOrder, epochs: range) -> Counter[str]:
    return Counter(slot.clip.record.id for e in epochs for batch in order.epoch(e) for slot in batch.slots)


def test_an_epoch_has_every_clip_once() -> None:
    order = BatchOrder(plan(a=(WIDE, 6, 0), b=(TALL, 4, 0)), 2, 0)
    assert order.steps == 5
    assert set(seen(order, range(1)).values()) == {1}
    assert len(seen(order, range(1))) == 10
    for index in range(10):
        batch = order[index]
        assert batch.epoch == index // 5
        assert {slot.clip.shape for slot in batch.slots} == {batch.shape}
    assert [order[i] for i in range(5)] != [order[i] for i in range(5, 10)]
    assert all(slot.turn == 3 for batch in order.epoch(3) for slot in batch.slots)


def test_any_batch_can_be_asked_for_first() -> None:
    clips = plan(a=(WIDE, 7, 0), b=(TALL, 5, 0), i=(STILL, 9, 0))
    order, again = BatchOrder(clips, 3, 5), BatchOrder(clips, 3, 5)
    wanted = [order[index] for index in range(40)]
    assert [again[index] for index in reversed(range(40))] == wanted[::-1]
    other = BatchOrder(clips, 3, 6)
    assert [other[index] for index in range(40)] != wanted
    assert [other[index].shape for index in range(40)] != [batch.shape for batch in wanted]


def test_small_buckets_are_filled_by_repeating() -> None:
    order = BatchOrder(plan(a=(WIDE, 2, 0), b=(TALL, 5, 0)), 4, 0)
    assert order.steps_by_bucket == {WIDE: 1, TALL: 2}
    (small,) = [batch for batch in order.epoch(0) if batch.shape == WIDE]
    assert Counter((slot.clip.record.id, slot.again) for slot in small.slots) == {
        ("a0", 0): 1,
        ("a1", 0): 1,
        ("a0", 1): 1,
        ("a1", 1): 1,
    }
    assert seen(order, range(1)).total() == 12
    assert min(seen(order, range(1)).values()) == 1


def test_weights_are_how_often_a_clip_comes() -> None:
    clips = plan(a=(WIDE, 4, 0), b=(WIDE, 4, 1), c=(TALL, 8, 2))
    order = BatchOrder(clips, 1, 0, weights=(1.0, 2.5, 0.25))
    counts = seen(order, range(8))
    assert {counts[f"a{n}"] for n in range(4)} == {8}
    assert {counts[f"b{n}"] for n in range(4)} == {20}
    assert {counts[f"c{n}"] for n in range(8)} == {2}
    draws = [(slot.clip.record.id, slot.turn, slot.again) for e in range(8) for b in order.epoch(e) for slot in b.slots]
    assert len(set(draws)) == len(draws)  # so that no draw comes twice


def test_pictures_by_share() -> None:
    clips = plan(a=(WIDE, 30, 0), i=(STILL, 100, 0))
    for share in (0.1, 0.5):
        order = BatchOrder(clips, 1, 0, share_images=share)
        assert order.steps_by_bucket[STILL] / order.steps == pytest.approx(share, abs=0.02)
        assert order.steps_by_bucket[WIDE] == 30
    assert BatchOrder(clips, 1, 0).steps == 130
    assert BatchOrder(clips, 1, 0, share_images=0).steps_by_bucket == {WIDE: 30}
    assert BatchOrder(clips, 1, 0, share_images=1).steps_by_bucket == {STILL: 100}
    with pytest.raises(ConfigError, match=r"share_images is 0.5, but there are no pictures"):
        BatchOrder(plan(a=(WIDE, 3, 0)), 1, 0, share_images=0.5)
    with pytest.raises(ConfigError, match=r"share_images is 0, but there are no videos"):
        BatchOrder(plan(i=(STILL, 3, 0)), 1, 0, share_images=0)


def test_processes_share_no_batch() -> None:
    order = BatchOrder(plan(a=(WIDE, 12, 0)), 2, 0)
    first, second = ([order[step * 2 + rank] for step in range(3)] for rank in range(2))
    ids = [{slot.clip.record.id for batch in batches for slot in batch.slots} for batches in (first, second)]
    assert len(ids[0] | ids[1]) == 12
    assert not ids[0] & ids[1]


@pytest.mark.parametrize("values", [{"batch_size": 0}, {"weights": (0.0,)}, {"share_images": 1.5}])
def test_values_out_of_range(values: dict) -> None:
    with pytest.raises(ConfigError, match="batch_size must be at least 1"):
        BatchOrder(plan(a=(WIDE, 1, 0)), **{"batch_size": 1, "seed": 0, **values})


def test_nothing_to_order() -> None:
    with pytest.raises(ConfigError, match="no clip"):
        BatchOrder(BucketPlan({}), 1, 0)
    with pytest.raises(ConfigError, match="1 weights, and clips of set number 1"):
        BatchOrder(plan(a=(WIDE, 1, 1)), 1, 0)
