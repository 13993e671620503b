"""What a transformer that takes pictures is shown of a clip in training: masks, and a picture of it for CLIP.

Source: EasyAnimate at commit d3b8bbb, `get_random_mask` of its data set and the draws of its trainer, made here
for each sample, also where the original makes one for a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from muybridge.training.data import Batch, BatchSource

EVERYTHING, BOX = 1, 0
FIRST, BOTH_ENDS, BOX_FOR_A_WHILE = 2, 3, 4
CLIP_SHARES = (0.05, 0.3, 0.3, 0.3, 0.05)
"""How often each kind of mask is drawn for a clip."""
STILL_SHARES = (0.2, 0.8)
"""And for a still."""
MOST_KNOWN = 4
"""Frames known at an end, at most."""


@dataclass(frozen=True)
class Mask:
    """What of a clip is to be made; the rest is known.

    Attributes:
        kind: a box in all frames, everything, all but the first frames, all but the first and the last ones, or a box
            in some frames that follow each other.
        middle: of a box, down and across.
        size: of a box, likewise.
        known: frames at an end.
        start: first frame of a box that is there for a while.
        end: first frame that it is no longer in.
    """

    kind: int
    middle: tuple[int, int] = (0, 0)
    size: tuple[int, int] = (0, 0)
    known: int = 0
    start: int = 0
    end: int = 0

    def draw(self, frames: int, height: int, width: int) -> Tensor:
        """The mask, `bool [f, h, w]`, true where something is to be made."""
        mask = torch.zeros(frames, height, width, dtype=torch.bool)
        if self.kind == EVERYTHING:
            mask[:] = True
        elif self.kind in (FIRST, BOTH_ENDS):
            mask[self.known : frames - self.known if self.kind == BOTH_ENDS else frames] = True
        else:
            some = slice(self.start, self.end) if self.kind == BOX_FOR_A_WHILE else slice(None)
            rows, columns = (
                slice(max(middle - size // 2, 0), middle + size // 2)
                for middle, size in zip(self.middle, self.size, strict=True)
            )
            mask[some, rows, columns] = True
        return mask


def random_mask(frames: int, height: int, width: int, generator: torch.Generator) -> Mask:
    """A mask for a clip, or for a still where there is one frame. Something is always left to be made."""

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, max(high, low + 1), (1,), generator=generator))

    shares = torch.tensor(CLIP_SHARES if frames > 1 else STILL_SHARES)
    kind = int(torch.multinomial(shares, 1, generator=generator))
    if kind in (FIRST, BOTH_ENDS):
        most = (frames - 1) if kind == FIRST else (frames - 1) // 2
        known = number(1, min(MOST_KNOWN, most) + 1) if most else 0
        return Mask(kind, known=known)
    middle = number(0, height), number(0, width)
    size = number(height // 4, height // 4 * 3), number(width // 4, width // 4 * 3)
    start, end = number(0, frames // 2), number(frames // 2, frames)
    return Mask(kind, middle, size, start=start, end=max(end, start + 1))


class InpaintingClips:
    """Batches that say anew what of the clips is to be made, `unknown [b, f, h, w]`, and which picture stands for them.

    That is `picture [b]`, the index of a frame, and `picture_counts [b]`, whether the model is told of it.
    `nothing_given [b]` is true for samples of which everything is to be made and the model is not told so.
    """

    def __init__(self, source: BatchSource, seed: int, picture_dropout: float = 0.5, untold_share: float = 0.0) -> None:
        """Of `source` all else is taken.

        Args:
            source: clips.
            seed: of what is drawn.
            picture_dropout: share of the samples whose picture does not count.
            untold_share: of the samples of which everything is to be made, how many have zeros in place of the latents
                of mask and masked video; the original has 0.9 here, and never makes a video so.
        """
        self.source = source
        self.seed = seed
        self.picture_dropout = picture_dropout
        self.untold_share = untold_share

    def __call__(self, index: int) -> Batch:
        """Make batch number `index`."""
        batch = self.source(index)
        count, frames, _, height, width = batch["pixels"].shape
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + index) * 2 + 1)
        masks = [random_mask(frames, height, width, generator) for _ in range(count)]
        draws = torch.rand(4, count, generator=generator)
        anywhere = (draws[0] * frames).long().clamp(max=frames - 1)
        everything = torch.tensor([mask.kind == EVERYTHING for mask in masks])
        return {
            **batch,
            "unknown": torch.stack([mask.draw(frames, height, width) for mask in masks]),
            "picture": torch.where(draws[1] < 0.5, 0, anywhere),
            "picture_counts": draws[2] >= self.picture_dropout,
            "nothing_given": everything & (draws[3] < self.untold_share),
        }
