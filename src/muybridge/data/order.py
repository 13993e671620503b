"""Which clips make up batch number i: a function of the seed and i, so that nothing needs to be saved to go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from muybridge.data.buckets import BucketPlan, Clip
from muybridge.errors import ConfigError
from muybridge.types import VideoShape


@dataclass(frozen=True)
class Slot:
    """A clip's place in a batch.

    Attributes:
        clip: what is there.
        turn: how often the clip's set had been gone through before; draws differ from turn to turn.
        again: how often this turn's clip was repeated before, to fill a batch.
    """

    clip: Clip
    turn: int
    again: int = 0


@dataclass(frozen=True)
class BatchPlan:
    """What a batch is made of.

    Attributes:
        epoch: how often all had been gone through before.
        shape: that its clips have.
        slots: one for each.
    """

    epoch: int
    shape: VideoShape
    slots: tuple[Slot, ...]


class BatchOrder:
    """All batches there will ever be, in their order.

    In an epoch each clip comes once, or as often as the weight of its set says; each batch has clips of one bucket, and
    the last of each bucket is filled by repeating. Processes that share the work take numbers that differ, and so share
    no batch.
    """

    def __init__(
        self,
        plan: BucketPlan,
        batch_size: int,
        seed: int,
        weights: Sequence[float] = (1.0,),
        share_images: float | None = None,
    ) -> None:
        """Prepare it.

        Args:
            plan: the clips.
            batch_size: of every batch.
            seed: of the order.
            weights: how often a clip of each set comes, compared with one of weight 1.
            share_images: of the batches, how many are of pictures; by default as many as there are.

        Raises:
            ConfigError: no clip, or values out of range.
        """
        _check(plan, batch_size, weights, share_images)
        self.batch_size = batch_size
        self.seed = seed
        self._streams = {
            shape: [
                _Stream(tuple(clip for clip in clips if clip.source == number), weight)
                for number, weight in enumerate(weights)
                if any(clip.source == number for clip in clips)
            ]
            for shape, clips in plan.buckets.items()
        }
        self._scale_images(share_images)
        self.steps_by_bucket = {
            shape: -(-sum(stream.count for stream in streams) // batch_size) for shape, streams in self._streams.items()
        }
        """Batches of an epoch."""
        self.steps = sum(self.steps_by_bucket.values())
        """Batches of an epoch, in all."""
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)

    def __getitem__(self, index: int) -> BatchPlan:
        """Batch number `index`."""
        epoch, place = divmod(index, self.steps)
        return self._epoch(epoch)[place]

    def epoch(self, number: int) -> list[BatchPlan]:
        """All batches of an epoch."""
        return list(self._epoch(number))

    def _scale_images(self, share: float | None) -> None:
        if share is None:
            return
        counts = {shape: sum(stream.count for stream in streams) for shape, streams in self._streams.items()}
        stills = sum(count for shape, count in counts.items() if shape.num_frames == 1)
        moving = sum(counts.values()) - stills
        unwanted = [s for s in counts if (share == 0 and s.num_frames == 1) or (share == 1 and s.num_frames > 1)]
        for shape in unwanted:
            del self._streams[shape]
        if not self._streams or (0 < share < 1 and not (stills and moving)):
            has = "no pictures" if not stills else "no videos"
            raise ConfigError(f"share_images is {share:g}, but there are {has} to mix. Leave it out, or add some.")
        if 0 < share < 1:
            factor = moving * share / (1 - share) / stills
            for shape, streams in self._streams.items():
                if shape.num_frames == 1:
                    self._streams[shape] = [_Stream(stream.clips, stream.weight * factor) for stream in streams]

    def _make_epoch(self, epoch: int) -> list[BatchPlan]:
        batches: list[BatchPlan] = []
        for bucket, (shape, streams) in enumerate(self._streams.items()):
            slots = [
                slot
                for number, stream in enumerate(streams)
                for slot in stream.epoch(epoch, (self.seed, bucket, number))
            ]
            order = np.random.default_rng((self.seed, bucket, len(streams), epoch)).permutation(len(slots))
            slots = [slots[place] for place in order]
            for start in range(0, len(slots), self.batch_size):
                chosen = (divmod(place, len(slots)) for place in range(start, start + self.batch_size))
                batches.append(
                    BatchPlan(epoch, shape, tuple(_repeated(slots[place], again) for again, place in chosen))
                )
        order = np.random.default_rng((self.seed, epoch)).permutation(len(batches))
        return [batches[place] for place in order]


def _repeated(slot: Slot, again: int) -> Slot:
    return Slot(slot.clip, slot.turn, again)


@dataclass(frozen=True)
class _Stream:
    """The clips of one set and bucket, gone through again and again in orders that change.

    Attributes:
        clips: there are.
        weight: how many of them come in an epoch, compared with once each.
    """

    clips: tuple[Clip, ...]
    weight: float

    @property
    def count(self) -> int:
        """How many come in an epoch."""
        return max(1, round(len(self.clips) * self.weight))

    def epoch(self, number: int, key: tuple[int, int, int]) -> list[Slot]:
        """Those of an epoch."""
        slots: list[Slot] = []
        place, end = number * self.count, (number + 1) * self.count
        while place < end:
            turn, first = divmod(place, len(self.clips))
            last = min(len(self.clips), first + end - place)
            order = np.random.default_rng((*key, turn)).permutation(len(self.clips))
            slots += [Slot(self.clips[index], turn) for index in order[first:last]]
            place += last - first
        return slots


def _check(plan: BucketPlan, batch_size: int, weights: Sequence[float], share_images: float | None) -> None:
    if not plan.buckets:
        raise ConfigError("There is no clip to make batches of.")
    if batch_size < 1 or min(weights, default=0) <= 0 or (share_images is not None and not 0 <= share_images <= 1):
        raise ConfigError(
            "batch_size must be at least 1, weights above 0, share_images from 0 to 1; given "
            f"batch_size={batch_size}, weights={list(weights)}, share_images={share_images}."
        )
    if most := [clip for clip in plan.clips if clip.source >= len(weights)]:
        raise ConfigError(f"There are {len(weights)} weights, and clips of set number {most[0].source}.")
