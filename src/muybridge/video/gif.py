"""Animated GIF."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from muybridge.video.timing import tick_durations

if TYPE_CHECKING:
    from PIL.Image import Image

_PALETTE_SAMPLE = 1 << 16


def write_gif(path: Path, frames: npt.NDArray[np.uint8], fps: float, comment: str | None) -> None:
    """Write full frames with one palette.

    Frame by frame, because Pillow's own animation writer leaves out a frame that equals the one before.
    """
    from PIL import GifImagePlugin, Image

    palette = _shared_palette(frames)
    with path.open("wb") as file:
        for index, hundredths in enumerate(tick_durations(len(frames), fps, 100)):
            picture = Image.fromarray(frames[index]).quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
            if index == 0:
                # The header writer changes its picture, hence the copy.
                header, _ = GifImagePlugin.getheader(picture.copy(), info={"loop": 0, "comment": comment})
                file.writelines(header)
            file.writelines(GifImagePlugin.getdata(picture, duration=10 * hundredths))
        file.write(b";")


def gif_comment(image: Image) -> str | None:
    """The comment of an opened file."""
    comment = image.info.get("comment")
    return comment.decode("utf-8", errors="replace") if isinstance(comment, bytes) else None


def _shared_palette(frames: npt.NDArray[np.uint8]) -> Image:
    from PIL import Image

    pixels = frames.reshape(-1, 3)
    if len(pixels) > _PALETTE_SAMPLE:
        # At random places: a regular step would see the same columns of every row.
        pixels = pixels[np.random.default_rng(0).integers(len(pixels), size=_PALETTE_SAMPLE)]
    return Image.fromarray(pixels[None]).quantize(256, method=Image.Quantize.MEDIANCUT)
