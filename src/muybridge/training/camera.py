"""Camera moves made of still pictures by a window that goes over them, and how far a video shows one.

A window that moves right shows what a camera does that pans right: things go left. As in the paper of AnimateDiff,
section 4.3; from stills, since a clip's own motion would be learned with the move.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from muybridge.errors import ConfigError
from muybridge.training.camera_moves import CameraMove
from muybridge.training.data import Batch, BatchSource

_OPPOSITES: Mapping[str, str] = {
    "zoom-out": "zoom-in",
    "pan-left": "pan-right",
    "tilt-up": "tilt-down",
    "roll-anticlockwise": "roll-clockwise",
}
"""Of two opposite moves the second is shown; the first is the same backwards, or to the other side."""
_TRIED = 41
_SHORTER_SIDE = 64
"""Frames are compared at this size."""


@dataclass(frozen=True)
class Windows:
    """Where a camera looks in each frame.

    Attributes:
        scale: size of the window as a share of the picture, `[b, f]`.
        x: how far its middle is to the right of the picture's, as a share of the width, `[b, f]`.
        y: how far below it, as a share of the height, `[b, f]`.
        angle: by how much what is shown is turned clockwise, in radians, `[b, f]`.
    """

    scale: Tensor
    x: Tensor
    y: Tensor
    angle: Tensor


def camera_windows(move: CameraMove, extents: Tensor, num_frames: int) -> Windows:
    """The windows of a move at constant speed, which all lie within the picture.

    Args:
        move: what the camera does; a roll turns what is shown the way that it is named after.
        extents: how far it goes in a clip, as a share of the picture's side, `[b]`, below 1; a roll by as much of the
            side at the border.
        num_frames: of a clip.
    """
    time = torch.linspace(0, 1, num_frames) if num_frames > 1 else torch.zeros(1)
    extents, still = extents[:, None], torch.zeros(len(extents), num_frames)
    backwards = move in _OPPOSITES
    shown = _OPPOSITES.get(move, move)
    if shown == "zoom-in":
        # By the same factor in every frame, which is what looks even.
        along = 1 - time if backwards else time
        return Windows((1 - extents) ** along, still, still, still)
    if shown == "roll-clockwise":
        angle = (-2 if backwards else 2) * extents * time
        widest = angle.abs().amax(dim=1, keepdim=True)
        return Windows((1 / (widest.cos() + widest.sin())).expand_as(angle), still, still, angle)
    place = extents * ((0.5 - time) if backwards else (time - 0.5))
    scale = (1 - extents).expand_as(place)
    return Windows(scale, place, still, still) if shown == "pan-right" else Windows(scale, still, place, still)


def look_through(pictures: Tensor, windows: Windows) -> Tensor:
    """What a camera shows of pictures `[b, c, h, w]`: `[b, f, c, h, w]`, of the same size.

    Where turned windows of pictures that are not square go over the border, the border is continued.
    """
    return _sampled(pictures, windows, "border")


def _sampled(pictures: Tensor, windows: Windows, padding: str) -> Tensor:
    count, frames = windows.scale.shape
    channels, height, width = pictures.shape[1:]
    cosine, sine = windows.angle.cos() * windows.scale, windows.angle.sin() * windows.scale
    # From places in the window to places in the picture, both from -1 to 1: the inverse of how things turn.
    rows = (
        torch.stack((cosine, sine * height / width, 2 * windows.x), dim=-1),
        torch.stack((-sine * width / height, cosine, 2 * windows.y), dim=-1),
    )
    transforms = torch.stack(rows, dim=-2).flatten(0, 1).to(pictures)
    grid = F.affine_grid(transforms, [count * frames, channels, height, width], align_corners=False)
    source = pictures.repeat_interleave(frames, dim=0)
    shown = F.grid_sample(source, grid, mode="bilinear", padding_mode=padding, align_corners=False)
    return shown.unflatten(0, (count, frames))


class CameraClips:
    """Clips of a camera that moves over the first frames of other clips.

    Batches are those of the source with other `pixels`; how far the camera goes is told for the frames of a batch.
    """

    def __init__(self, source: BatchSource, move: CameraMove, extents: tuple[float, float], seed: int) -> None:
        """How far the camera goes in a clip is drawn between `extents`.

        Raises:
            ConfigError: extents that are not in order, or not above 0 and below 1.
        """
        low, high = extents
        if not 0 < low <= high < 1:
            raise ConfigError(
                "How far a camera goes is two shares of the side, the smaller first, above 0 and below 1; given "
                f"{list(extents)}. Usual are [0.15, 0.4]."
            )
        self.source = source
        self.move: CameraMove = move
        self.extents = extents
        self.seed = seed

    def __call__(self, index: int) -> Batch:
        """Make batch number `index`."""
        batch = self.source(index)
        pixels = batch["pixels"]
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + index) * 2 + 1)
        low, high = self.extents
        extents = low + (high - low) * torch.rand(len(pixels), generator=generator)
        windows = camera_windows(self.move, extents, pixels.shape[1])
        return {**batch, "pixels": look_through(pixels[:, 0], windows)}


def camera_extent(first: Tensor, last: Tensor, move: CameraMove, most: float = 0.5) -> float:
    """How far a camera has gone between two frames `[c, h, w]`: the extent under which the first becomes the last.

    Extents on a grid are tried, of the move and of its opposite, and the one is taken under which the frames are most
    alike where both show the same. Above 0 the camera did what was asked, below 0 the opposite; an extent is a share
    of the side, as that of `camera_windows`.

    Args:
        first: frame.
        last: frame, of the same size.
        move: what the camera was to do.
        most: the largest extent that is tried, below 1.
    """
    shorter = min(first.shape[-2:])
    if shorter > _SHORTER_SIDE:
        size = [round(side * _SHORTER_SIDE / shorter) for side in first.shape[-2:]]
        first, last = F.interpolate(torch.stack((first, last)), size=size, mode="area")
    axis = _OPPOSITES.get(move, move)
    tried = torch.linspace(-most, most, _TRIED)
    windows = _between(axis, tried[None])
    seen = _sampled(first[None].float(), windows, "zeros")[0]
    shared = (_sampled(torch.ones_like(first[None, :1], dtype=torch.float32), windows, "zeros")[0] > 1 - 1e-3).float()
    best = float(tried[int(_likeness(seen, last.float()[None], shared).argmax())])
    return best if axis == move else -best


def _between(axis: str, extents: Tensor) -> Windows:
    """From the first frame of a move to its last, which goes over the border of the first."""
    one, still = torch.ones_like(extents), torch.zeros_like(extents)
    if axis == "zoom-in":
        return Windows(torch.where(extents < 0, 1 / (1 + extents), 1 - extents), still, still, still)
    if axis == "roll-clockwise":
        return Windows(one, still, still, 2 * extents)
    along = extents / (1 - extents.abs())
    return Windows(one, along, still, still) if axis == "pan-right" else Windows(one, still, along, still)


def _likeness(pictures: Tensor, others: Tensor, weights: Tensor) -> Tensor:
    """Correlation of pictures `[n, c, h, w]` with others where both count; near 0 where there is little to see."""
    area = weights.sum(dim=(2, 3), keepdim=True).clamp(min=1)

    def mean(values: Tensor) -> Tensor:
        return (values * weights).sum(dim=(2, 3), keepdim=True) / area

    ours, theirs = pictures - mean(pictures), others - mean(others)
    together, own, other = (mean(product).sum(dim=(1, 2, 3)) for product in (ours * theirs, ours**2, theirs**2))
    floor = 0.1 * others.var(dim=(2, 3)).sum()
    return together / ((own * other).sqrt() + floor + 1e-12)
