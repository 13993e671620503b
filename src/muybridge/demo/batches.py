"""Training batches of the toy world, rendered on demand: the same index always gives the same batch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from muybridge.demo import render, world


def to_pixels(frames: np.ndarray) -> Tensor:
    """`uint8 [..., h, w, 3]` to float `[..., 3, h, w]` in [-1, 1]."""
    return torch.from_numpy(frames).movedim(-1, -3).float().div_(127.5).sub_(1.0)


class StillBatches:
    """Single random frames of training clips, with captions: `pixels [b, 3, h, w]`, and token ids where asked for."""

    def __init__(
        self, batch_size: int, seed: int, tokenizer: PreTrainedTokenizerBase | None = None, caption_dropout: float = 0.0
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
        tokenizer: PreTrainedTokenizerBase,
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
        positions = sample_positions(num_frames, rng)
        frames = render.render(scenes, np.tile(positions, (count, 1)), render.place(scenes, rng))
        captions = ["" if rng.random() < self.caption_dropout else world.caption(scene, rng) for scene in scenes]
        return {
            "pixels": to_pixels(frames),
            "input_ids": tokenize(self.tokenizer, captions),
            "frame_positions": torch.from_numpy(positions).float(),
        }


class KeyframeBatches(ClipBatches):
    """Clips as of `ClipBatches`, and which of their frames are shown to a SparseCtrl: `known [b, f]`, true for those.

    Known are a clip's first frame, its first and last, or a few anywhere, counted among the frames of the batch.
    """

    KNOWN = {"start": 0.3, "both ends": 0.35, "anywhere": 0.35}
    """How often a clip is given with what of it."""
    MOST_KNOWN = 4
    """Frames known anywhere, at most."""

    def __call__(self, index: int) -> dict[str, Tensor]:
        """Render batch number `index`."""
        batch = super().__call__(index)
        rng = np.random.default_rng((self.seed, index, 1))  # the clips' own draws stay as they are
        count, num_frames = batch["pixels"].shape[:2]
        known = np.stack([self._known_frames(num_frames, rng) for _ in range(count)])
        return {**batch, "known": torch.from_numpy(known)}

    def _known_frames(self, num_frames: int, rng: np.random.Generator) -> np.ndarray:
        known = np.zeros(num_frames, bool)
        task = rng.choice(list(self.KNOWN), p=list(self.KNOWN.values()))
        if task == "anywhere":
            count = rng.integers(1, min(self.MOST_KNOWN, num_frames) + 1)
            known[rng.choice(num_frames, count, replace=False)] = True
            return known
        known[0] = True
        if task == "both ends":
            known[-1] = True
        return known


class VideoBatches:
    """Clips without captions, and now and then single frames: `pixels [b, f, 3, h, w]`, one length a batch.

    Of four batches two have stretches of 8 frames, one has whole clips, and one has stills; a still stands for a
    quarter of a stretch, so that batches take about equally long.
    """

    CHUNK_FRAMES = 8
    STILLS_PER_CHUNK = 4

    def __init__(self, batch_size: int, seed: int) -> None:
        """`batch_size` counts stretches of 8 frames."""
        self.batch_size = batch_size
        self.seed = seed

    def __call__(self, index: int) -> dict[str, Tensor]:
        """Render batch number `index`."""
        rng = np.random.default_rng((self.seed, index))
        kind = rng.integers(4)
        num_frames = (1, render.CLIP_FRAMES, self.CHUNK_FRAMES, self.CHUNK_FRAMES)[kind]
        count = (
            self.batch_size * self.STILLS_PER_CHUNK
            if num_frames == 1
            else self.batch_size * self.CHUNK_FRAMES // num_frames
        )
        scenes = world.sample_scenes(max(1, count), rng)
        first = rng.integers(render.CLIP_FRAMES - num_frames + 1, size=(len(scenes), 1))
        frames = render.render(scenes, first + np.arange(num_frames), render.place(scenes, rng))
        return {"pixels": to_pixels(frames)}


class ConditionedVideoBatches:
    """Stills or whole clips with captions, and which of their frames are known.

    Batches: `pixels [b, f, 3, h, w]`, `input_ids [b, n]`, `attention_mask [b, n]`, and `unknown [b, f]`, true for the
    frames that are to be made. A clip is worth four stills, so that batches take about equally long.
    """

    STILLS_PER_CLIP = 4
    KNOWN = {"nothing": 0.5, "start": 0.25, "both ends": 0.15, "continuation": 0.1}
    """How often a clip is given with what of it."""
    MOST_KNOWN = 4
    """Frames known at an end, at most."""
    CONTINUED = (4, 8)
    """Frames that a continuation knows of the clip before it: a few pictures, or a whole chunk of latents."""

    def __init__(
        self,
        batch_size: int,
        seed: int,
        tokenizer: PreTrainedTokenizerBase,
        caption_dropout: float = 0.1,
        still_shares: tuple[float, float] = (1.0, 1.0),
        num_batches: int = 1,
        triples: tuple[tuple[str, str, str], ...] = world.TRAINING_TRIPLES,
    ) -> None:
        """Of the first batches, and of those from `num_batches` on, `still_shares` are stills; linear in between.

        `batch_size` counts clips; `caption_dropout` is the share of empty captions; scenes are drawn from `triples`.
        """
        self.batch_size = batch_size
        self.seed = seed
        self.tokenizer = tokenizer
        self.caption_dropout = caption_dropout
        self.still_shares = still_shares
        self.num_batches = num_batches
        self.triples = triples

    def __call__(self, index: int) -> dict[str, Tensor]:
        """Render batch number `index`."""
        rng = np.random.default_rng((self.seed, index))
        first, last = self.still_shares
        is_still = rng.random() < first + (last - first) * min(1.0, index / self.num_batches)
        count = self.batch_size * (self.STILLS_PER_CLIP if is_still else 1)
        scenes = world.sample_scenes(count, rng, self.triples)
        if is_still:
            frame_indices = rng.integers(render.CLIP_FRAMES, size=(count, 1))
            unknown = np.ones((count, 1), bool)
        else:
            pairs = [self._known_frames(rng) for _ in range(count)]
            frame_indices = np.stack([start + np.arange(render.CLIP_FRAMES) for start, _ in pairs])
            unknown = np.stack([mask for _, mask in pairs])
        frames = render.render(scenes, frame_indices, render.place(scenes, rng))
        captions = ["" if rng.random() < self.caption_dropout else world.caption(scene, rng) for scene in scenes]
        tokens = self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
        return {
            "pixels": to_pixels(frames),
            "input_ids": tokens.input_ids,
            "attention_mask": tokens.attention_mask,
            "unknown": torch.from_numpy(unknown),
        }

    def _known_frames(self, rng: np.random.Generator) -> tuple[int, np.ndarray]:
        """Where a clip starts (later than 0 where it continues another), and which of its frames are to be made."""
        unknown = np.ones(render.CLIP_FRAMES, bool)
        task = rng.choice(list(self.KNOWN), p=list(self.KNOWN.values()))
        if task == "continuation":
            known = int(rng.choice(self.CONTINUED))
            unknown[:known] = False
            return int(rng.integers(1, render.CLIP_FRAMES - known + 1)), unknown
        if task != "nothing":
            unknown[: rng.integers(1, self.MOST_KNOWN + 1)] = False
        if task == "both ends":
            unknown[-rng.integers(1, self.MOST_KNOWN + 1) :] = False
        return 0, unknown


def sample_positions(num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Where frames stand in their clip, `[num_frames]`: neighbours, or more often every second one if there is room."""
    stride = 2 if num_frames * 2 <= render.CLIP_FRAMES and rng.random() < 0.7 else 1
    first = rng.integers(render.CLIP_FRAMES - stride * (num_frames - 1))
    return first + stride * np.arange(num_frames)


def tokenize(tokenizer: PreTrainedTokenizerBase, captions: list[str]) -> Tensor:
    """Token ids `[b, n]`, padded to the tokenizer's full length."""
    return tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
