"""Clips and captions that are encoded once: kept on disk, for runs that see a clip many times."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from muybridge.data.clips import draw_clip
from muybridge.data.crop import id_with_crop
from muybridge.data.order import BatchPlan, Slot
from muybridge.pipelines.family import Networks, Training
from muybridge.training.clip_data import DatasetBatches, to_pixels
from muybridge.training.data import Batch, LatentMaker, TextMaker
from muybridge.training.tensor_cache import TensorCache, digest_of_network
from muybridge.types import SettingsDict

_FORMAT = 1
_TEXT_FORMAT = 1
_LATENTS, _STATES = "latents", "text_states"


@dataclass(frozen=True, eq=False)
class ClipEncoder:
    """What turns pixels into latents.

    Attributes:
        networks: whose VAE does it.
        how: of their family.
    """

    networks: Networks
    how: Training

    def latents(self, pixels: Tensor) -> Tensor:
        """Of `pixels [b, f, 3, h, w]` in [-1, 1], on the CPU: `[b, c, f, h, w]`, float32."""
        vae: nn.Module = self.networks.vae
        place = next(vae.parameters())
        with torch.no_grad():
            return self.how.latents(self.networks, {"pixels": pixels.to(place.device)}).float().cpu()

    def digest(self) -> str:
        """Of the settings and weights of the VAE; reads all of them."""
        return digest_of_network(self.networks.vae)


@dataclass(frozen=True, eq=False)
class CaptionEncoder:
    """What turns the tokens of a caption into states, by a text encoder that stays as it is.

    Attributes:
        networks: whose text encoder does it.
        text: of their family: what follows from captions alone.
    """

    networks: Networks
    text: Callable[[Networks, Mapping[str, Tensor]], SettingsDict]

    def states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Of one caption's tokens and mask `[n]`, on the CPU: `[n, c]`, float32."""
        encoder: nn.Module = self.networks.text_encoder
        device = next(encoder.parameters()).device
        tokens = {"input_ids": input_ids[None].to(device), "attention_mask": attention_mask[None].to(device)}
        was_training = encoder.training
        encoder.eval()
        try:
            with torch.no_grad():
                return self.text(self.networks, tokens)["encoder_hidden_states"][0].float().cpu()
        finally:
            encoder.train(was_training)

    def digest(self) -> str:
        """Of the settings and weights of the text encoder; reads all of them."""
        return digest_of_network(self.networks.text_encoder)


class CachedClips:
    """Batches with `latents [b, c, f, h, w]`, from a folder where they have been encoded before.

    A clip has one draw of start, crop and mirror instead of one each time it comes. An entry is found by the clip's
    content, that draw, size, frames and rate, and the VAE; what does not say so inside, or is damaged, is made anew.
    The folder may be deleted at any time. Batches have `pixels` for their shape only: they are all zeros.

    With `text` batches also have `text_states [b, n, c]`, found by the tokens of the caption and the text encoder; the
    empty caption of those that are dropped is one of them.
    """

    def __init__(
        self, batches: DatasetBatches, encoder: LatentMaker, folder: Path, text: TextMaker | None = None
    ) -> None:
        """Of the clips of `batches`; the folder is made when the first entry is written."""
        self.batches = batches
        self.encoder = encoder
        self.text = text
        self._latents = TensorCache(folder, _LATENTS)
        self._states = TensorCache(folder, _STATES)
        self._digest = encoder.digest()
        self._text_digest = None if text is None else text.digest()

    def __call__(self, index: int) -> Batch:
        """Make batch number `index`."""
        plan = self.batches.order[index]
        chosen = [self._entry(plan, replace(slot, turn=0, again=0)) for slot in plan.slots]
        captions = [self.batches.caption(slot, index, place) for place, (slot, _) in enumerate(chosen)]
        shape = (len(chosen), plan.shape.num_frames, 3, plan.shape.height, plan.shape.width)
        nothing = torch.zeros(1, 1, 1, 1, 1).expand(shape)
        batch = self.batches.assembled([slot for slot, _ in chosen], nothing, captions)
        if self.text is not None:
            told = zip(batch["input_ids"], batch["attention_mask"], strict=True)
            batch[_STATES] = torch.stack([self._said(self.text, *each) for each in told])
        return {**batch, _LATENTS: torch.stack([each for _, each in chosen])}

    def _entry(self, plan: BatchPlan, slot: Slot) -> tuple[Slot, Tensor]:
        if (found := self._latents.get(self._made_of(slot))) is not None:
            return slot, found
        slot, frames = self.batches.sound(plan, slot)  # another clip where this one cannot be read
        latents = self.encoder.latents(to_pixels(frames[None]))[0]
        self._latents.put(self._made_of(slot), latents)
        return slot, latents

    def _said(self, text: TextMaker, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        made_of = {
            "format": _TEXT_FORMAT,
            "tokens": input_ids.tolist(),
            "mask": attention_mask.tolist(),
            "text_encoder": self._text_digest,
        }
        if (found := self._states.get(made_of)) is not None:
            return found
        states = text.states(input_ids, attention_mask)
        self._states.put(made_of, states)
        return states

    def _made_of(self, slot: Slot) -> SettingsDict:
        clip, settings = slot.clip, self.batches.dataset.settings
        drawn = (self.batches.settings.seed, slot.turn, slot.again)
        draw = draw_clip(clip.record.id, drawn, settings.crop == "random", settings.flip)
        return {
            "format": _FORMAT,
            "clip": id_with_crop(clip.record.id, clip.record.extra),
            "start": clip.record.start,
            "end": clip.record.end,
            "shape": [clip.shape.num_frames, clip.shape.height, clip.shape.width],
            "spacing_s": clip.spacing_s,
            "draw": [draw.start, draw.left, draw.top, draw.mirrored],
            "vae": self._digest,
        }
