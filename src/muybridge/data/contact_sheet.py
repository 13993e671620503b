"""Samples of a set as one picture: what the network will see, with captions."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from muybridge.data.buckets import Clip, shown_shape
from muybridge.data.dataset import Dataset
from muybridge.data.order import Slot
from muybridge.data.record import shown
from muybridge.errors import InputFileError
from muybridge.video.encoding import Frames

_FRAMES = 4
_PICTURE = 144  # height and most width of a frame
_TEXT_WIDTH = 420
_GAP = 8
_LINES = 7
_LETTERS = 62
_PAPER, _INK, _FAINT = (250, 250, 250), (20, 20, 20), (120, 120, 120)


def draw_samples(dataset: Dataset, seed: int, count: int = 10) -> Image.Image:
    """A row each for `count` clips of all buckets: four frames as they are trained, bucket, name and caption."""
    clips = _chosen(dataset, seed, count)
    row, left = _PICTURE + _GAP, _FRAMES * (_PICTURE + _GAP) + _GAP
    sheet = Image.new("RGB", (left + _TEXT_WIDTH, max(row * len(clips), row) + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    small = ImageFont.load_default(13)
    for number, clip in enumerate(clips):
        top = _GAP + number * row
        try:
            frames = dataset.frames(Slot(clip, 0), seed)
        except InputFileError as error:
            frames, problem = None, str(error)
        else:
            problem = ""
            for place, pixels in enumerate(_some(frames)):
                sheet.paste(_small(pixels), (_GAP + place * (_PICTURE + _GAP), top))
        text = shown(problem or clip.record.text or "(no caption)")
        heading = textwrap.shorten(f"{shown_shape(clip.shape)}  {clip.record.name.rpartition('/')[2]}", _LETTERS)
        draw.text((left, top), heading, _FAINT, small)
        lines = textwrap.wrap(text, _LETTERS, max_lines=_LINES, placeholder=" ...")
        draw.multiline_text((left, top + 20), "\n".join(lines), _INK, small, spacing=3)
    return sheet


def _chosen(dataset: Dataset, seed: int, count: int) -> list[Clip]:
    """One of each bucket in turn, until there are enough."""
    rng = np.random.default_rng(seed)
    waiting = [[clips[place] for place in rng.permutation(len(clips))] for clips in dataset.plan.buckets.values()]
    chosen: list[Clip] = []
    while len(chosen) < count and any(waiting):
        for clips in waiting:
            if clips and len(chosen) < count:
                chosen.append(clips.pop())
    return chosen


def _some(frames: Frames) -> Sequence[Frames]:
    places = np.linspace(0, len(frames) - 1, min(_FRAMES, len(frames))).round().astype(int)
    return [frames[place] for place in places]


def _small(pixels: Frames) -> Image.Image:
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    scale = min(_PICTURE / picture.height, _PICTURE / picture.width)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS)
