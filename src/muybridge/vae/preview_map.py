"""A linear map from latents to small pictures, for looking at a video while it is made.

Every latent and its eight neighbours give the pixels that it stands for, by one matrix for each VAE, fitted by least
squares to videos of which latents and frames are known.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from muybridge.errors import CheckpointError, ShapeError
from muybridge.files.atomic import new_file

FILE_NAME = "preview.safetensors"
"""In the folder of a VAE, beside its weights."""
_MOST_PIXELS, _MOST_FRAMES = 512, 24
_ROWS_PER_VIDEO = 20_000
_RIDGE = 1e-6


@dataclass(frozen=True, eq=False)
class PreviewMap:
    """The map of one VAE.

    Attributes:
        weight: `[9c + 1, t * 3 * p * p]`, float32, from a latent, its neighbours and 1 to pixels in [0, 1].
        patch: pixels of height and width that a latent stands for, p.
        frames_per_latent: frames likewise, t.
    """

    weight: Tensor
    patch: int
    frames_per_latent: int

    @property
    def channels(self) -> int:
        """Of the latents."""
        return (len(self.weight) - 1) // 9

    @torch.no_grad()
    def frames(self, latents: Tensor, most_pixels: int = _MOST_PIXELS, most_frames: int = _MOST_FRAMES) -> Tensor:
        """Small frames of a video, `uint8 [f, h, w, 3]`, on the device of its latents.

        Args:
            latents: `[c, n, h, w]`, scaled as the backbone sees them.
            most_pixels: of the longest side; larger ones are made smaller.
            most_frames: if there are more, some are left out evenly.
        """
        given = latents.detach().transpose(0, 1).float()
        side = max(given.shape[-2:])
        pool = next((k for k in _divisors(self.patch) if side * self.patch // k <= most_pixels), self.patch)
        stride = max(1, -(-side * self.patch // pool // most_pixels))
        kernel, bias, patch = self._kernel(pool)
        padded = F.pad(given, (1, 1, 1, 1), mode="replicate")
        values = F.conv2d(padded, kernel.to(given.device), bias.to(given.device), stride=stride)
        pixels = F.pixel_shuffle(values.unflatten(1, (self.frames_per_latent, -1)).flatten(0, 1), patch)
        pixels = pixels[:: -(-len(pixels) // most_frames)]
        return pixels.mul_(255).round_().clamp_(0, 255).to(torch.uint8).movedim(1, -1)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as a file of some kilobytes.

        Raises:
            OutputError: it cannot be written.
        """
        notes = {"patch": str(self.patch), "frames_per_latent": str(self.frames_per_latent)}
        with new_file(Path(path)) as temporary:
            save_file({"weight": self.weight.half().contiguous()}, temporary, notes)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PreviewMap:
        """Read it.

        Raises:
            CheckpointError: it is missing, or no such file.
        """
        try:
            with safe_open(path, "pt") as file:
                notes = file.metadata() or {}
                found = cls(file.get_tensor("weight").float(), int(notes["patch"]), int(notes["frames_per_latent"]))
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise CheckpointError(f"{path} is no map for previews. Delete it, and there are none.") from error
        if found.weight.ndim != 2 or found.weight.shape[1] != found.frames_per_latent * 3 * found.patch**2:
            raise CheckpointError(f"{path} has {list(found.weight.shape)} numbers, which is no map. Delete it.")
        return found

    def _kernel(self, pool: int) -> tuple[Tensor, Tensor, int]:
        """The weights of a convolution, its biases, and the patch that it makes, `pool` pixels being taken for one."""
        patch = self.patch // pool
        blocks = self.weight.view(len(self.weight), self.frames_per_latent * 3, patch, pool, patch, pool)
        weight = blocks.mean((3, 5)).flatten(1)
        return weight[:-1].t().reshape(-1, self.channels, 3, 3), weight[-1], patch


class PreviewSums:
    """What a map is fitted from, however many videos there are: two small matrices.

    Attributes:
        num_videos: that were added.
    """

    def __init__(self) -> None:
        """Of no video."""
        self.num_videos = 0
        self._patch, self._frames_per_latent = 0, 0
        self._gram = torch.zeros(0, 0, dtype=torch.float64)
        self._cross = torch.zeros(0, 0, dtype=torch.float64)

    @torch.no_grad()
    def add(self, latents: Tensor, frames: npt.NDArray[np.uint8], frames_per_latent: int = 1) -> None:
        """Add a video.

        Args:
            latents: `[c, n, h, w]`, scaled as the backbone sees them.
            frames: that they stand for, `uint8 [f, h, w, 3]`.
            frames_per_latent: that a latent stands for; the first may stand for fewer.

        Raises:
            ShapeError: frames that are no multiple of the latents, or other multiples than before.
        """
        given, per_latent = latents.detach().cpu().float().transpose(0, 1), frames_per_latent
        patch = _patch(given, frames, per_latent)
        if self.num_videos and (patch, per_latent) != (self._patch, self._frames_per_latent):
            raise ShapeError("Videos of several VAEs make no map; keep their sums apart.")
        inputs, targets = _rows(given, frames, patch, per_latent)
        if not self.num_videos:
            self._gram = torch.zeros(inputs.shape[1], inputs.shape[1], dtype=torch.float64)
            self._cross = torch.zeros(inputs.shape[1], targets.shape[1], dtype=torch.float64)
        self._patch, self._frames_per_latent = patch, per_latent
        self._gram += inputs.t() @ inputs
        self._cross += inputs.t() @ targets
        self.num_videos += 1

    def solve(self) -> PreviewMap:
        """The map that fits all videos best.

        Raises:
            ShapeError: there are none.
        """
        if not self.num_videos:
            raise ShapeError("A map is fitted to videos; add some.")
        ridge = _RIDGE * self._gram.diagonal().mean() * torch.eye(len(self._gram), dtype=torch.float64)
        weight = torch.linalg.solve(self._gram + ridge, self._cross)
        return PreviewMap(weight.float(), self._patch, self._frames_per_latent)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write them, to go on another day.

        Raises:
            OutputError: they cannot be written.
        """
        numbers = torch.tensor([self.num_videos, self._patch, self._frames_per_latent])
        with new_file(Path(path)) as temporary:
            save_file({"gram": self._gram, "cross": self._cross, "numbers": numbers}, temporary)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PreviewSums:
        """Read them.

        Raises:
            CheckpointError: they are missing, or something else.
        """
        found = cls()
        try:
            with safe_open(path, "pt") as file:
                found._gram, found._cross = file.get_tensor("gram"), file.get_tensor("cross")
                numbers = file.get_tensor("numbers").tolist()
            found.num_videos, found._patch, found._frames_per_latent = map(int, numbers)
        except (OSError, SafetensorError, ValueError, TypeError) as error:
            raise CheckpointError(f"{path} holds no sums of previews. Delete it.") from error
        return found


def _divisors(number: int) -> list[int]:
    return [each for each in range(1, number + 1) if number % each == 0]


def _patch(latents: Tensor, frames: npt.NDArray[np.uint8], per_latent: int) -> int:
    """Pixels of a side that a latent stands for; a lone first frame has a latent of its own."""
    num_latents, _, height, width = latents.shape
    patch, lacking = frames.shape[1] // height, num_latents * per_latent - len(frames)
    if frames.shape[1:3] != (height * patch, width * patch) or not 0 <= lacking < per_latent:
        raise ShapeError(f"Frames {list(frames.shape)} are no multiple of latents {list(latents.shape)}.")
    return patch


def _rows(latents: Tensor, frames: npt.NDArray[np.uint8], patch: int, per_latent: int) -> tuple[Tensor, Tensor]:
    """Inputs `[rows, 9c + 1]` and targets `[rows, t * 3 * p * p]` of some latent frames of a video, evenly chosen."""
    count, _, height, width = latents.shape
    first = len(frames) - count * per_latent  # below 0 where the first latent stands for fewer frames
    chosen = range(1 if first < 0 and count > 1 else 0, count, -(-count * height * width // _ROWS_PER_VIDEO))
    windows = F.unfold(F.pad(latents[chosen], (1, 1, 1, 1), mode="replicate"), 3).transpose(1, 2).flatten(0, 1)
    inputs = torch.cat([windows, torch.ones(len(windows), 1)], dim=1).double()
    shown = [max(0, first + index * per_latent + place) for index in chosen for place in range(per_latent)]
    pixels = torch.from_numpy(frames[shown]).movedim(-1, 1).double().div_(255)
    patches = F.pixel_unshuffle(pixels, patch).unflatten(0, (len(chosen), per_latent)).flatten(1, 2)
    return inputs, patches.flatten(2).transpose(1, 2).flatten(0, 1)
