"""What training is fed with: batches, and the sets of clips that a run file can name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from muybridge.types import VideoShape

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

Batch = dict[str, "Tensor"]
"""Tensors by name; a method says which it takes. `files`, where it is there, is a list of names for messages."""


def on_device(batch: Batch, device: torch.device) -> Batch:
    """A batch with its tensors on a device, and what is no tensor as it was."""
    return {name: value.to(device) if hasattr(value, "to") else value for name, value in batch.items()}


class BatchSource(Protocol):
    """Training data as a function: the same index always gives the same batch."""

    def __call__(self, index: int, /) -> Batch:
        """Make batch number `index`, on the CPU."""
        ...


@dataclass(frozen=True)
class UsualClip:
    """What a model makes by default.

    Attributes:
        shape: of its videos.
        fps: frames per second.
        multiple: of which height and width must be multiples.
    """

    shape: VideoShape
    fps: float
    multiple: int


class LatentMaker(Protocol):
    """Turns pixels into latents, the same ones as long as its digest is the same."""

    def latents(self, pixels: Tensor) -> Tensor:
        """Of `pixels [b, f, 3, h, w]` in [-1, 1], on the CPU: `[b, c, f, h, w]`, float32."""
        ...

    def digest(self) -> str:
        """Of all that latents depend on besides the pixels."""
        ...


class TextMaker(Protocol):
    """Turns captions into states, the same ones as long as its digest is the same."""

    def states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Of one caption's tokens and mask `[n]`, on the CPU: `[n, c]`, float32."""
        ...

    def digest(self) -> str:
        """Of all that states depend on besides the tokens."""
        ...


@dataclass(frozen=True)
class ClipsWanted:
    """What a stage asks of a set of captioned clips.

    Attributes:
        batch_size: clips a batch.
        seed: of everything that is drawn.
        tokenizer: of the model's text encoder.
        caption_dropout: share of captions left empty.
        num_frames: frames of a clip at a time; None for whole clips.
        whole_clip_share: share of the batches with whole clips nevertheless, fewer of them.
        usual: what the model makes by default, and so what people's own clips are made to.
        encoder: makes latents of them for a cache, for methods that take latents and know no frame.
        text: likewise states of their captions, for methods whose text encoder stays as it is.
    """

    batch_size: int
    seed: int
    tokenizer: PreTrainedTokenizerBase
    caption_dropout: float
    num_frames: int | None = None
    whole_clip_share: float = 0.0
    usual: UsualClip | None = None
    encoder: LatentMaker | None = None
    text: TextMaker | None = None


class TrainingData(Protocol):
    """A set of captioned clips. Batches hold `pixels [b, f, 3, h, w]` in [-1, 1] and `input_ids [b, n]`, and more."""

    def clips(self, wanted: ClipsWanted) -> BatchSource:
        """Parts of clips, as a U-Net is trained on, with `frame_positions [f]` in the whole clip."""
        ...

    def whole_clips(self, wanted: ClipsWanted) -> BatchSource:
        """Whole clips, as a transformer is trained on, with `attention_mask [b, n]` and `unknown [b, f]`."""
        ...

    def keyframe_clips(self, wanted: ClipsWanted) -> BatchSource:
        """As `clips`, with `known [b, f]`, true for frames that are shown."""
        ...

    def taught_clips(self, wanted: ClipsWanted, taught: str | None) -> BatchSource:
        """Clips for either network, that all show `taught`, which no caption says; of all kinds for None."""
        ...

    def check_taught(self, taught: str | None) -> None:
        """Raises ConfigError where nothing of the set shows `taught`."""
        ...
