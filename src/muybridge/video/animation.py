"""Picture files of one frame or several: gif, webp, png and so on."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from muybridge.video.checks import MAX_FPS, MIN_FPS
from muybridge.video.decoded import LazyFrame, Traits
from muybridge.video.encoding import Frames
from muybridge.video.gif import gif_comment
from muybridge.video.media import MediaFile
from muybridge.video.opened import Opened
from muybridge.video.picture import as_seen, open_file, upright_size
from muybridge.video.png import png_comment, png_rate
from muybridge.video.timeline import Timing, measure
from muybridge.video.webp import webp_comment, webp_rate

if TYPE_CHECKING:
    from PIL.Image import Image

_COMMENTS = {"GIF": gif_comment, "PNG": png_comment, "WEBP": webp_comment}
_RATES = {"PNG": png_rate, "WEBP": webp_rate}
_TICKS_S = {"GIF": 0.01}
_OF_SEVERAL = ("AVIF", "GIF", "PNG", "TIFF", "WEBP")
_UNTIMED_MS = 100.0
"""How long viewers show a frame that says 0, among others that say more."""


@contextlib.contextmanager
def open_animation(path: MediaFile) -> Iterator[Opened]:
    """Open a file; unless it notes its rate, its frames are gone through once for their times."""
    with open_file(path) as image:
        fps, comment = _noted(image)
        indexes = _indexes(image)
        if fps is not None:
            timing = Timing(fps, is_even=len(indexes) == 1, num_frames=len(indexes), duration_s=len(indexes) / fps)
            yield Opened(timing, _frames(image, indexes), comment)
            return
        is_timed = len(indexes) > 1 or image.format == "GIF"  # a picture is not, whatever it says
        durations = [_duration_ms(image, index) if is_timed else 0.0 for index in indexes]
        timing = _timing(durations, _TICKS_S.get(image.format or "", 0.001))
        if any(durations):
            durations = [duration or _UNTIMED_MS for duration in durations]
        yield Opened(timing, _frames(image, indexes, durations), comment)


def read_animation_comment(path: Path) -> str | None:
    """The comment, without decoding."""
    with open_file(path) as image:
        return _noted(image)[1]


def _noted(image: Image) -> tuple[float | None, str | None]:
    kind = image.format or ""
    rate, comment = _RATES.get(kind), _COMMENTS.get(kind)
    return None if rate is None else rate(image), None if comment is None else comment(image)


def _indexes(image: Image) -> range:
    count = getattr(image, "n_frames", 1) if image.format in _OF_SEVERAL else 1
    # A png may begin with a picture for those who cannot show it moving.
    return range(1 if getattr(image, "default_image", False) and count > 1 else 0, count)


def _duration_ms(image: Image, index: int) -> float:
    image.seek(index)
    image.load()  # some kinds say it only then
    return float(image.info.get("duration") or 0)


def _timing(durations: list[float], tick_s: float) -> Timing:
    if not any(durations):
        return Timing(None)
    seconds = [(duration or _UNTIMED_MS) / 1000 for duration in durations]
    if len(seconds) == 1:
        fps = 1 / seconds[0]
        return Timing(fps if MIN_FPS <= fps <= MAX_FPS else None, num_frames=1, duration_s=seconds[0])
    starts = [0.0, *itertools.accumulate(seconds[:-1])]
    return measure(starts, seconds[-1], tick_s, is_end_sure=True)


def _frames(image: Image, indexes: range, durations: list[float] | None = None) -> Generator[LazyFrame, None, None]:
    start = 0.0
    for place, index in enumerate(indexes):
        image.seek(index)
        if durations is None:
            image.load()
        duration = float(image.info.get("duration") or 0) if durations is None else durations[place]
        end = start + duration / 1000
        traits = Traits(has_alpha=image.has_transparency_data)
        yield LazyFrame(partial(_pixels, image, f"Frame {place}"), start, end, upright_size(image), traits)
        start = end


def _pixels(image: Image, name: str) -> Frames:
    return np.asarray(as_seen(image, name))
