"""Batches of people's own clips and pictures, decoded ahead of the step that needs them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from muybridge.data.dataset import Dataset, check_damage
from muybridge.data.order import BatchPlan, Slot
from muybridge.data.record import Refusal
from muybridge.errors import ConfigError, InputFileError, TrainingError
from muybridge.training.damaged_files import DamagedFiles
from muybridge.training.data import Batch
from muybridge.video.encoding import Frames

_AHEAD = 2
"""Batches that are made ahead for each worker."""
_TRIES = 16
"""How many clips after a damaged one may be damaged too, before a batch is given up."""


@dataclass(frozen=True)
class BatchSettings:
    """How clips become batches.

    Attributes:
        batch_size: clips of a batch.
        seed: of everything that is drawn.
        caption_dropout: share of captions left empty.
        workers: threads that decode ahead; 0 decodes when a batch is asked for. The batches are the same.
    """

    batch_size: int
    seed: int = 0
    caption_dropout: float = 0.1
    workers: int = 2


class _Decoded(NamedTuple):
    """A batch before its captions are tokens.

    Attributes:
        pixels: `[b, f, 3, h, w]`.
        captions: one for each.
        slots: likewise.
    """

    pixels: Tensor
    captions: list[str]
    slots: list[Slot]


class DatasetBatches:
    """Batches of a set of clips: `pixels [b, f, 3, h, w]` in [-1, 1], captions as token ids, and places of frames.

    `input_ids [b, n]` and `attention_mask [b, n]` are padded to the tokenizer's full length; `frame_positions [f]`
    counts the frames of the clip, and `unknown [b, f]` is true everywhere. Numbers of frames and sizes differ from
    batch to batch, as the buckets do. `files` names the files of the clips, for messages.

    Where some clips show what the model can do already, `loss_weights [b]` are those of the clips' losses, and
    `prior [b]` is true for these clips, if the model's own word is to be learned of them.

    A clip that cannot be read is left out: the next one of the bucket that can be takes its place, the same one in
    every run. Their files are listed in `damaged`, and each is said when it is first found.
    """

    def __init__(
        self,
        dataset: Dataset,
        tokenizer: PreTrainedTokenizerBase,
        settings: BatchSettings,
        found_damaged: DamagedFiles | None = None,
    ) -> None:
        """Prepare the order; nothing is decoded yet.

        Args:
            dataset: the clips.
            tokenizer: for their captions.
            settings: how clips become batches.
            found_damaged: is told of damaged files; shared by batches of one run, so that each file is said once.

        Raises:
            ConfigError: settings out of range.
            TrainingError: no clip is left, or too many files are damaged.
        """
        if settings.workers < 0 or not 0 <= settings.caption_dropout <= 1:
            raise ConfigError(
                f"workers must be at least 0, caption_dropout from 0 to 1; given {settings.workers} and "
                f"{settings.caption_dropout}."
            )
        dataset.check_usable()
        self.dataset = dataset
        self.tokenizer = tokenizer
        self.settings = settings
        self.order = dataset.order(settings.batch_size, settings.seed)
        self._files = {clip.record.name for clip in dataset.plan.clips}
        self._damaged: dict[str, Refusal] = {}
        self._found_damaged = found_damaged or DamagedFiles()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(settings.workers, "clips") if settings.workers else None
        self._coming: dict[int, Future[_Decoded]] = {}
        self._last: int | None = None

    def __call__(self, index: int) -> Batch:
        """Make batch number `index`, or take it where it was made ahead.

        Raises:
            TrainingError: more files are damaged than the settings of the data allow; it names some.
        """
        decoded = self._decode(index) if self._pool is None else self._decoded_ahead(index, self._pool)
        # Here and not in the workers, as a tokenizer does not stand being used by two threads at once.
        return self.assembled(decoded.slots, decoded.pixels, decoded.captions)

    def assembled(self, slots: Sequence[Slot], pixels: Tensor, captions: list[str]) -> Batch:
        """A batch of what stands in `slots`: `pixels [b, f, 3, h, w]`, and captions."""
        tokens = self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
        count, num_frames = pixels.shape[:2]
        files: Any = [slot.clip.record.name for slot in slots]
        return {
            "pixels": pixels,
            "input_ids": tokens.input_ids,
            "attention_mask": tokens.attention_mask,
            "frame_positions": torch.arange(num_frames, dtype=torch.float32),
            "unknown": torch.ones(count, num_frames, dtype=torch.bool),
            **self._prior(slots),
            "files": files,
        }

    def _prior(self, slots: Sequence[Slot]) -> Batch:
        settings = self.dataset.settings.prior
        if self.dataset.prior is None or settings is None:
            return {}
        prior = torch.tensor([slot.clip.source == self.dataset.prior for slot in slots])
        weights = torch.where(prior, settings.weight, 1.0)
        return {"loss_weights": weights} | ({} if settings.target == "clips" else {"prior": prior})

    @property
    def damaged(self) -> tuple[Refusal, ...]:
        """Files that could not be read so far, by name."""
        with self._lock:
            return tuple(self._damaged[name] for name in sorted(self._damaged))

    def close(self) -> None:
        """Stop decoding ahead; batches can still be asked for, one by one."""
        pool, self._pool = self._pool, None
        self._coming.clear()
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)

    def _decoded_ahead(self, index: int, pool: ThreadPoolExecutor) -> _Decoded:
        # Steps go on evenly, by one or by the number of processes.
        stride = 1 if self._last is None or index <= self._last else index - self._last
        self._last = index
        wanted = [index + place * stride for place in range(1 + _AHEAD * self.settings.workers)]
        for number in self._coming.keys() - set(wanted):
            self._coming.pop(number).cancel()
        for number in wanted:
            if number not in self._coming:
                self._coming[number] = pool.submit(self._decode, number)
        return self._coming.pop(index).result()

    def _decode(self, index: int) -> _Decoded:
        plan = self.order[index]
        chosen = [self.sound(plan, slot) for slot in plan.slots]
        captions = [self.caption(slot, index, place) for place, (slot, _) in enumerate(chosen)]
        pixels = to_pixels(np.stack([frames for _, frames in chosen]))
        return _Decoded(pixels, captions, [slot for slot, _ in chosen])

    def caption(self, slot: Slot, index: int, place: int) -> str:
        """What is said of a clip at a place in batch number `index`.

        Where some clips show what the model can do already, captions are dropped of these alone: without a text it is
        to say what it said.
        """
        rng = np.random.default_rng((self.settings.seed, index, place))
        may_drop = self.dataset.prior in (None, slot.clip.source)
        return "" if rng.random() < self.settings.caption_dropout and may_drop else slot.clip.record.text

    def sound(self, plan: BatchPlan, slot: Slot) -> tuple[Slot, Frames]:
        """A clip and its frames: that of the slot, or the next one of its bucket that can be read.

        What was found before does not count, so that a batch depends on nothing but its number.
        """
        clips = self.dataset.plan.buckets[plan.shape]
        candidate = slot
        for step in range(1, 1 + min(_TRIES, len(clips))):
            frames = self._frames(candidate)
            if frames is not None:
                return candidate, frames
            candidate = replace(slot, clip=clips[(clips.index(slot.clip) + step) % len(clips)])
        raise TrainingError(
            f"None of {min(_TRIES, len(clips))} clips in a row could be read, from {slot.clip.record.name} on. Look at "
            "the files, or at the disk that they are on."
        )

    def _frames(self, slot: Slot) -> Frames | None:
        try:
            return self.dataset.frames(slot, self.settings.seed)
        except InputFileError as error:
            name = slot.clip.record.name
            found = Refusal(name, str(error), error.fault)
            self._found_damaged(found)
            with self._lock:
                self._damaged[name] = found
                damaged = [str(refusal) for _, refusal in sorted(self._damaged.items())]
            check_damage(damaged, len(self._files) - len(damaged), self.dataset.settings.max_damaged)
            return None


def to_pixels(frames: Frames) -> Tensor:
    """`uint8 [b, f, h, w, 3]` to float `[b, f, 3, h, w]` in [-1, 1]."""
    return torch.from_numpy(frames).movedim(-1, -3).float().div_(127.5).sub_(1.0)
