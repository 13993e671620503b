"""Clips that are encoded once: latents on disk, by what they were made of, for runs that see a clip many times."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from muybridge.data.clips import draw_clip
from muybridge.data.order import BatchPlan, Slot
from muybridge.errors import OutputError
from muybridge.files.atomic import new_file
from muybridge.pipelines.family import Networks, Training
from muybridge.training.clip_data import DatasetBatches, to_pixels
from muybridge.training.data import Batch, LatentMaker

_FORMAT = 1
_KEY, _LATENTS = "key", "latents"


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
        vae: nn.Module = self.networks.vae
        found = hashlib.sha256(repr(sorted((k, str(v)) for k, v in getattr(vae, "config", {}).items())).encode())
        for name, tensor in vae.state_dict().items():
            found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return found.hexdigest()


class CachedClips:
    """Batches with `latents [b, c, f, h, w]`, from a folder where they have been encoded before.

    A clip has one draw of start, crop and mirror instead of one each time it comes. An entry is found by the clip's
    content, that draw, size, frames and rate, and the VAE; what does not say so inside, or is damaged, is made anew.
    The folder may be deleted at any time. Batches have `pixels` for their shape only: they are all zeros.
    """

    def __init__(self, batches: DatasetBatches, encoder: LatentMaker, folder: Path) -> None:
        """Of the clips of `batches`; the folder is made when the first entry is written."""
        self.batches = batches
        self.encoder = encoder
        self.folder = folder
        self._digest = encoder.digest()

    def __call__(self, index: int) -> Batch:
        """Make batch number `index`."""
        plan = self.batches.order[index]
        chosen = [self._entry(plan, replace(slot, turn=0, again=0)) for slot in plan.slots]
        captions = [self.batches.caption(slot, index, place) for place, (slot, _) in enumerate(chosen)]
        shape = (len(chosen), plan.shape.num_frames, 3, plan.shape.height, plan.shape.width)
        nothing = torch.zeros(1, 1, 1, 1, 1).expand(shape)
        batch = self.batches.assembled([slot for slot, _ in chosen], nothing, captions)
        return {**batch, _LATENTS: torch.stack([each for _, each in chosen])}

    def _entry(self, plan: BatchPlan, slot: Slot) -> tuple[Slot, Tensor]:
        key = self._key(slot)
        if (found := _read(self._path(key), key)) is not None:
            return slot, found
        slot, frames = self.batches.sound(plan, slot)  # another clip where this one cannot be read
        latents = self.encoder.latents(to_pixels(frames[None]))[0]
        key = self._key(slot)
        self._write(key, latents)
        return slot, latents

    def _key(self, slot: Slot) -> str:
        clip, settings = slot.clip, self.batches.dataset.settings
        drawn = (self.batches.settings.seed, slot.turn, slot.again)
        draw = draw_clip(clip.record.id, drawn, settings.crop == "random", settings.flip)
        made_of = {
            "format": _FORMAT,
            "clip": clip.record.id,
            "start": clip.record.start,
            "end": clip.record.end,
            "shape": [clip.shape.num_frames, clip.shape.height, clip.shape.width],
            "spacing_s": clip.spacing_s,
            "draw": [draw.start, draw.left, draw.top, draw.mirrored],
            "vae": self._digest,
        }
        return json.dumps(made_of, sort_keys=True)

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(key.encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.safetensors"

    def _write(self, key: str, latents: Tensor) -> None:
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"The cache {self.folder} cannot be written ({error.strerror}); choose another data.cache, or none."
            ) from error
        with new_file(path) as temporary:
            save_file({_LATENTS: latents.contiguous()}, temporary, {_KEY: key})


def _read(path: Path, key: str) -> Tensor | None:
    """The entry of a key; None where there is none that is whole and says that it is of this key."""
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get(_KEY) == key:
                return file.get_tensor(_LATENTS)
    except (OSError, SafetensorError):
        return None
    return None
