"""Small moving pictures of what a video is going to be."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from muybridge.errors import MuybridgeError
from muybridge.pipelines.wishes import wishes_of
from muybridge.request import ModelChoice
from muybridge.vae.preview_map import FILE_NAME, PreviewMap, PreviewSums

if TYPE_CHECKING:
    from torch import Tensor

_LEAST_SECONDS = 0.5
_SHARE = 1 / 40
"""Of the time, that previews may take."""
_ENOUGH_VIDEOS = 8
"""A map of fewer knows their backgrounds and no others."""
_QUALITY = 75


@dataclass(frozen=True, eq=False)
class Preview:
    """Frames of a video that is not finished.

    Attributes:
        frames: `uint8 [f, h, w, 3]`, the longest side at most 512.
        fps: frames per second.
    """

    frames: npt.NDArray[np.uint8]
    fps: float = 8.0
    _took: Callable[[float], None] | None = field(default=None, repr=False)

    def webp(self) -> bytes:
        """An animated WebP that loops."""
        from PIL import Image

        began = time.perf_counter()
        first, *others = [Image.fromarray(frame) for frame in self.frames]
        buffer = io.BytesIO()
        duration = max(1, round(1000 / self.fps))
        first.save(
            buffer,
            "WEBP",
            save_all=True,
            append_images=others,
            duration=duration,
            loop=0,
            quality=_QUALITY,
            method=0,
            minimize_size=False,
        )
        if self._took is not None:
            self._took(time.perf_counter() - began)
        return buffer.getvalue()


class Pace:
    """When there may be another preview: two a second at most, and so that they cost little of the whole time."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """From now on, by a clock in seconds."""
        self._clock = clock
        self._next = clock() + _LEAST_SECONDS

    @property
    def is_due(self) -> bool:
        """Whether there may be one now."""
        return self._clock() >= self._next

    def taken(self) -> None:
        """One is made now."""
        self._next = self._clock() + _LEAST_SECONDS

    def took(self, seconds: float) -> None:
        """What it cost, which delays the next."""
        self._next += seconds / _SHARE


class Previewer:
    """Previews of one video."""

    def __init__(self, preview_map: PreviewMap, fps: float) -> None:
        """By the map of its VAE, at its rate."""
        self._map = preview_map
        self._fps = fps
        self._pace = Pace()

    def of(self, denoised: Callable[[], Tensor]) -> Callable[[], Preview | None] | None:
        """What makes a preview of an estimate `[1, c, n, h, w]`; None where it is not time yet."""
        return (lambda: self._made(denoised)) if self._pace.is_due else None

    def _made(self, denoised: Callable[[], Tensor]) -> Preview | None:
        began = time.perf_counter()
        self._pace.taken()
        latents = denoised()[0]
        if latents.shape[0] != self._map.channels:
            return None
        frames = self._map.frames(latents).cpu().numpy()
        everything = latents.shape[1] * self._map.frames_per_latent
        self._pace.took(time.perf_counter() - began)
        return Preview(frames, self._fps * len(frames) / everything, self._pace.took)


class PreviewMaps:
    """The maps of models: those that lie beside their VAEs, and those learned from finished videos."""

    def __init__(self, learns: bool = True, folder: Path | None = None) -> None:
        """Without a map.

        Args:
            learns: whether finished videos of models without a map teach one.
            folder: where what they teach is kept; None forgets it with the program.
        """
        self._learns = learns
        self._folder = folder
        self._maps: dict[str, PreviewMap | None] = {}
        self._sums: dict[str, PreviewSums] = {}

    def of(self, choice: ModelChoice) -> PreviewMap | None:
        """That of a model, None where there is none, or none yet."""
        key = _vae_of(choice)
        if key not in self._maps:
            self._maps[key] = _beside(choice) or self._learned(key)
        return self._maps[key]

    def is_wanted(self, choice: ModelChoice) -> bool:
        """Whether a finished video of a model would teach something."""
        return self._learns and self.of(choice) is None

    def learn(self, choice: ModelChoice, latents: Tensor, frames: npt.NDArray[np.uint8], per_latent: int) -> None:
        """Learn from a finished video; what cannot be learned from is passed over.

        Args:
            choice: its model.
            latents: `[c, n, h, w]`.
            frames: `uint8 [f, h, w, 3]`.
            per_latent: frames that a latent stands for.
        """
        key = _vae_of(choice)
        sums = self._sums.setdefault(key, PreviewSums())
        try:
            sums.add(latents, frames, per_latent)
            if (file := self._file(key)) is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
                sums.save(file)
        except (MuybridgeError, OSError):
            return  # a preview is no reason to lose a video
        if sums.num_videos >= _ENOUGH_VIDEOS:
            self._maps[key] = sums.solve()

    def _learned(self, key: str) -> PreviewMap | None:
        file = self._file(key)
        if file is None or not file.is_file():
            return None
        try:
            sums = self._sums[key] = PreviewSums.load(file)
        except MuybridgeError:
            return None
        return sums.solve() if sums.num_videos >= _ENOUGH_VIDEOS else None

    def _file(self, key: str) -> Path | None:
        """What a VAE has taught so far."""
        name = f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"
        return None if self._folder is None else self._folder / name


def _vae_of(choice: ModelChoice) -> str:
    return choice.vae or f"{choice.model} {choice.parts_from or ''}"


def _beside(choice: ModelChoice) -> PreviewMap | None:
    """The map in the folder of a model's VAE."""
    if choice.vae is None:
        place = wishes_of(choice.model_copy(update={"loras": {}})).place
        folder = place / "vae"
    else:
        folder = Path(choice.vae)
    file = folder / FILE_NAME
    if not file.is_file():
        return None
    try:
        return PreviewMap.load(file)
    except MuybridgeError:
        return None
