"""Training batches of the toy world, rendered on demand: the same index always gives the same batch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from muybridge.demo import render, world


def to_pixels(frames: np.ndarray) -> Tensor:
    """`uint8 [..., h, w, 3]` to float `[..., 3, h, w]` in [-1, 1]."""
    return torch.from_numpy(frames).movedim(-1, -3).float().div_(127.5).sub_(1.0)


class StillBatches:
    """Single random frames of training clips, with captions: `pixels [b, 3, h, w]`, and token ids where asked for."""

    def __init__(
        self, batch_size: int, seed: int, tokenizer: PreTrainedTokenizerFast | None = None, caption_dropout: float = 0.0
    ) -> None:
        """Without a tokenizer there are pictures only; `caption_dropout` is the share of empty captions."""
        self.batch_size = batch_size
        self.seed = seed
        self.tokenizer = tokenizer
        self.caption_dropout = caption_dropout

    def __call__(self, index: int) -> dict[str, Tensor]:
        """Render batch number `index`."""
        rng = np.random.default_rng((self.seed, index))
        scenes = world.sample_scenes(self.batch_size, rng)
        frame_indices = rng.integers(render.CLIP_FRAMES, size=(self.batch_size, 1))
        frames = render.render(scenes, frame_indices, render.place(scenes, rng))[:, 0]
        batch = {"pixels": to_pixels(frames)}
        if self.tokenizer is not None:
            captions = ["" if rng.random() < self.caption_dropout else world.caption(scene, rng) for scene in scenes]
            batch["input_ids"] = tokenize(self.tokenizer, captions)
        return batch


class ClipBatches:
    """Clips with captions: `pixels [b, f, 3, h, w]`, `input_ids [b, n]`, and `frame_positions [f]` in the whole clip.

    With fewer frames than a clip has, each batch takes every second frame, or a stretch of neighbours, and says
    where they stand; so half as many frames teach all the positions. A share of the batches has whole clips instead,
    fewer of them, so that attention over all frames is practised too.
    """

    def __init__(
        self,
        batch_size: int,
        num_frames: int,
        seed: int,
        tokenizer: PreTrainedTokenizerFast,
        caption_dropout: float = 0.1,
        whole_clip_share: float = 0.0,
    ) -> None:
        """`num_frames` must not be more than a clip's 16."""
        self.batch_size = batch_size
        self.num_frames = num_frames
        self.seed = seed
        self.tokenizer = tokenizer
        self.caption_dropout = caption_dropout
        self.whole_clip_share = whole_clip_share

    def __call__(self, index: int) -> dict[str, Tensor]:
        """Render batch number `index`."""
        rng = np.random.default_rng((self.seed, index))
        whole = rng.random() < self.whole_clip_share
        num_frames = render.CLIP_FRAMES if whole else self.num_frames
        count = max(1, self.batch_size * self.num_frames // num_frames)
        scenes = world.sample_scenes(count, rng)
        positions = _positions(num_frames, rng)
        frames = render.render(scenes, np.tile(positions, (count, 1)), render.place(scenes, rng))
        captions = ["" if rng.random() < self.caption_dropout else world.caption(scene, rng) for scene in scenes]
        return {
            "pixels": to_pixels(frames),
            "input_ids": tokenize(self.tokenizer, captions),
            "frame_positions": torch.from_numpy(positions).float(),
        }


def _positions(num_frames: int, rng: np.random.Generator) -> np.ndarray:
    stride = 2 if num_frames * 2 <= render.CLIP_FRAMES and rng.random() < 0.7 else 1
    first = rng.integers(render.CLIP_FRAMES - stride * (num_frames - 1))
    return first + stride * np.arange(num_frames)


def tokenize(tokenizer: PreTrainedTokenizerFast, captions: list[str]) -> Tensor:
    """Token ids `[b, n]`, padded to the tokenizer's full length."""
    return tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
