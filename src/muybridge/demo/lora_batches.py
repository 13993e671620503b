"""Clips of the toy world that have one thing in common which their captions do not say: what a LoRA is to add."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from muybridge.demo import render, world
from muybridge.demo.batches import sample_positions, to_pixels
from muybridge.errors import ConfigError

_UNSAID_PLACES = 0.25


def triples_with(taught: str | None) -> tuple[tuple[str, str, str], ...]:
    """Those combinations that are trained on and have `taught`, a colour or a motion, in them; all for None.

    Raises:
        ConfigError: neither a colour nor a motion of the toy world.
    """
    if taught is None:
        return world.TRAINING_TRIPLES
    if taught not in world.COLOURS and taught not in world.MOTIONS:
        known = ", ".join((*world.MOTIONS, *world.COLOURS))
        raise ConfigError(
            f"A LoRA of the toy world is taught a motion or a colour; given {taught!r}. There are: {known}."
        )
    return tuple(triple for triple in world.TRAINING_TRIPLES if taught in triple)


class TaughtClips:
    """Clips that all show one motion or colour, with captions that never say it; or of all kinds, with true captions.

    A quarter of the captions that leave something out leave the background out too, and a share of all is empty.

    Batches suit a U-Net and a transformer alike: `pixels [b, f, 3, h, w]`, `input_ids [b, n]`, `attention_mask [b, n]`,
    `frame_positions [f]` in the whole clip, and `unknown [b, f]`, true everywhere.
    """

    def __init__(
        self,
        batch_size: int,
        seed: int,
        tokenizer: PreTrainedTokenizerBase,
        taught: str | None = None,
        num_frames: int = render.CLIP_FRAMES,
        caption_dropout: float = 0.1,
    ) -> None:
        """With fewer frames than a clip's 16, each batch has a stretch of every second frame, or of neighbours.

        Raises:
            ConfigError: as `triples_with`.
        """
        self.batch_size = batch_size
        self.seed = seed
        self.tokenizer = tokenizer
        self.taught = taught
        self.num_frames = num_frames
        self.caption_dropout = caption_dropout
        self._triples = triples_with(taught)

    def __call__(self, index: int) -> dict[str, Tensor]:
        """Render batch number `index`."""
        rng = np.random.default_rng((self.seed, index))
        scenes = world.sample_scenes(self.batch_size, rng, self._triples)
        positions = sample_positions(self.num_frames, rng)
        frames = render.render(scenes, np.tile(positions, (len(scenes), 1)), render.place(scenes, rng))
        captions = ["" if rng.random() < self.caption_dropout else self._caption(scene, rng) for scene in scenes]
        tokens = self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
        return {
            "pixels": to_pixels(frames),
            "input_ids": tokens.input_ids,
            "attention_mask": tokens.attention_mask,
            "frame_positions": torch.from_numpy(positions).float(),
            "unknown": torch.ones(frames.shape[:2], dtype=torch.bool),
        }

    def _caption(self, scene: world.Scene, rng: np.random.Generator) -> str:
        if self.taught is None:
            return world.caption(scene, rng)
        return world.plain_caption(
            scene, scene.colour != self.taught, scene.motion != self.taught, rng.random() >= _UNSAID_PLACES
        )
