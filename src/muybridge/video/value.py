"""The video as a value: frames, frames per second, and the request that made it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from muybridge.types import SettingsView
from muybridge.video.checks import MAX_FPS, MIN_FPS, check_fps, check_frames, check_request
from muybridge.video.formats import AnyPath
from muybridge.video.saving import save_frames

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["MAX_FPS", "MIN_FPS", "Video"]


@dataclass(frozen=True, eq=False)
class Video:
    """Frames with their rate and origin. `len(video)` is the number of frames.

    Attributes:
        frames: `uint8 [f, h, w, 3]`, red, green, blue. Kept as given, without a copy.
        fps: frames per second, 0.01 to 1000.
        request: what made the video (prompt, seed, model, settings, versions), as values that JSON has.

    Raises:
        ShapeError: frames that are no array of that shape and type, or an empty one.
        ConfigError: `fps` out of range, or a request that is no mapping.
    """

    frames: npt.NDArray[np.uint8]
    fps: float = 8.0
    request: SettingsView | None = None

    def __post_init__(self) -> None:
        check_frames(self.frames)
        check_fps(self.fps)
        check_request(self.request)

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return self.frames.shape[1]

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return self.frames.shape[2]

    @property
    def duration_s(self) -> float:
        """Seconds it plays; the last frame stays for as long as every other."""
        return len(self) / self.fps

    def to_pil(self) -> list[Image]:
        """The frames as Pillow images."""
        from PIL import Image

        return [Image.fromarray(frame) for frame in self.frames]

    def save(self, path: AnyPath, embed_request: bool = True) -> Path:
        """Write the video in the format that the suffix of `path` names.

        The same video gives the same bytes. An earlier file of that name is replaced in one step, and only once the
        new one is complete.

        - `.mp4`: H.264 that browsers play, near lossless. An odd width or height is padded to an even one by repeating
          the last column or row, and the true size is noted in the file, so that `read_video` crops it again.
        - `.gif`: 256 colours shared by all frames, loops for ever, times rounded to 10 ms. Browsers slow down a GIF of
          more than 50 frames per second.
        - `.webp`: lossless, loops for ever, times rounded to 1 ms.
        - `.png`, no suffix, or a final `/`: a folder of lossless pictures, `out.png` and `out/` both giving
          `out/0000.png` and so on. An earlier folder is replaced if it holds nothing but such pictures.

        Args:
            path: where to; the folder above must exist.
            embed_request: whether the request travels in the file, for `read_request`.

        Returns:
            The file or folder written.

        Raises:
            ConfigError: a suffix that is not known, a rate the format cannot hold, or a request that JSON cannot
                express or that is over 1 MiB.
            ShapeError: frames larger than the format can hold.
            OutputError: the path cannot be written; nothing is left behind.
        """
        return save_frames(path, self.frames, float(self.fps), self.request if embed_request else None)
