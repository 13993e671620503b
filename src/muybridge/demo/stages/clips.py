"""The toy world as a set of clips, for stages that build on a model that exists."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from muybridge.errors import ConfigError
from muybridge.training.data import BatchSource, ClipsWanted
from muybridge.training.stages.registry import register_data

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@register_data("demo-world")
class DemoWorld:
    """Clips of 16 frames, drawn as they are needed."""

    is_endless = True
    """Batches of any number differ, so that those that training does not reach are held out from it."""

    def clips(self, wanted: ClipsWanted) -> BatchSource:
        """Every second frame of a clip, or neighbours; now and then all."""
        from muybridge.demo.batches import ClipBatches

        return ClipBatches(*_stretches(wanted))

    def whole_clips(self, wanted: ClipsWanted) -> BatchSource:
        """All frames, with some of them known."""
        from muybridge.demo.batches import ConditionedVideoBatches

        return ConditionedVideoBatches(
            wanted.batch_size, wanted.seed, wanted.tokenizer, wanted.caption_dropout, still_shares=(0.0, 0.0)
        )

    def keyframe_clips(self, wanted: ClipsWanted) -> BatchSource:
        """As `clips`, with a clip's first frame, its ends, or a few anywhere shown."""
        from muybridge.demo.batches import KeyframeBatches

        return KeyframeBatches(*_stretches(wanted))

    def taught_clips(self, wanted: ClipsWanted, taught: str | None) -> BatchSource:
        """Clips that all show one motion or colour."""
        from muybridge.demo.lora_batches import TaughtClips

        frames = _frames_of(wanted)
        return TaughtClips(wanted.batch_size, wanted.seed, wanted.tokenizer, taught, frames, wanted.caption_dropout)

    def captions(self, count: int, seed: int) -> list[str]:
        """What clips show that are trained on, in plain words; as evenly of all motions as can be."""
        from muybridge.demo import world

        rng = np.random.default_rng((seed, 4))
        grounds = list(world.BACKGROUNDS)
        triples = [world.TRAINING_TRIPLES[place] for place in rng.permutation(len(world.TRAINING_TRIPLES))]
        by_motion = {motion: [each for each in triples if each[2] == motion] for motion in world.MOTIONS}
        chosen = [by_motion[world.MOTIONS[i % len(world.MOTIONS)]] for i in range(count)]
        picked = [of[i // len(world.MOTIONS) % len(of)] for i, of in enumerate(chosen)]
        places = rng.integers(len(grounds), size=count)
        return [
            world.full_caption(world.Scene(*triple, background=grounds[place]))
            for triple, place in zip(picked, places, strict=True)
        ]

    def check_taught(self, taught: str | None) -> None:
        """Raises ConfigError for anything but a motion or a colour of the toy world."""
        from muybridge.demo.lora_batches import triples_with

        triples_with(taught)


def _stretches(wanted: ClipsWanted) -> tuple[int, int, int, PreTrainedTokenizerBase, float, float]:
    return (
        wanted.batch_size,
        _frames_of(wanted),
        wanted.seed,
        wanted.tokenizer,
        wanted.caption_dropout,
        wanted.whole_clip_share,
    )


def _frames_of(wanted: ClipsWanted) -> int:
    from muybridge.demo.render import CLIP_FRAMES

    frames = wanted.num_frames or CLIP_FRAMES
    if frames > CLIP_FRAMES:
        raise ConfigError(f"num_frames: a clip of the toy world has {CLIP_FRAMES} frames; given {frames}.")
    return frames
