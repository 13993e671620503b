"""Folders of numbered pictures, whatever their numbering."""

from __future__ import annotations

import contextlib
import itertools
import re
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from muybridge.errors import InputFileError
from muybridge.video.animation import read_animation_comment
from muybridge.video.decoded import LazyFrame
from muybridge.video.encoding import Frames
from muybridge.video.opened import Opened
from muybridge.video.picture import open_file, read_picture
from muybridge.video.png import png_comment, png_rate
from muybridge.video.timeline import Timing

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".jp2", ".tga", ".ppm"})
_DIGITS = re.compile(r"(\d+)")


@contextlib.contextmanager
def open_picture_folder(path: Path) -> Iterator[Opened]:
    """Open a folder; the rate and the comment are those that its first picture notes, if it does."""
    pictures, notes = numbered_pictures(path)
    for note in notes:
        warnings.warn(f"{path} {note}", stacklevel=2)
    with open_file(pictures[0]) as image:
        fps, comment = png_rate(image), png_comment(image)
    duration_s = None if fps is None else len(pictures) / fps
    timing = Timing(fps, num_frames=len(pictures), duration_s=duration_s)
    yield Opened(timing, (LazyFrame(partial(_pixels, picture)) for picture in pictures), comment)


def read_folder_comment(path: Path) -> str | None:
    """The comment of the first picture, without decoding."""
    return read_animation_comment(numbered_pictures(path)[0][0])


def numbered_pictures(path: Path) -> tuple[list[Path], list[str]]:
    """The pictures of a folder that are its frames, in the order of their numbers, and what is to be said of them.

    Their names have one number that changes from picture to picture (`0000.png`, `frame1.jpg`, `img_0001_depth.tif`),
    with leading zeros or without. Files that are no pictures, and hidden ones, do not count.

    Raises:
        InputFileError: no such picture, several series of them, or two of one number.
    """
    names = (entry for entry in path.iterdir() if entry.suffix.lower() in _SUFFIXES and entry.name[0] != ".")
    series: dict[tuple[str, ...], list[Path]] = {}
    for entry in sorted(names):
        words = tuple(word.lower() for word in _DIGITS.split(entry.stem)[::2])
        series.setdefault(words, []).append(entry)
    numbered = {words: pictures for words, pictures in series.items() if len(words) > 1}
    if not numbered:
        raise InputFileError("The folder holds no numbered pictures such as 0000.png or frame1.jpg.")
    if len(numbered) > 1:
        first, second = (pictures[0].name for pictures in itertools.islice(numbered.values(), 2))
        raise InputFileError(
            f"The folder holds several series of numbered pictures, {first!r} of one and {second!r} of another. Put "
            "each into a folder of its own."
        )
    (pictures,) = numbered.values()
    by_number = _by_number(pictures)
    ordered = [by_number[number] for number in sorted(by_number)]
    others = sorted(entry.name for words, entries in series.items() if len(words) == 1 for entry in entries)
    return ordered, [*_about_gaps(sorted(by_number)), *_about_others(others)]


def _by_number(pictures: list[Path]) -> dict[int, Path]:
    numbers = [tuple(map(int, _DIGITS.findall(picture.stem))) for picture in pictures]
    changing = [place for place, column in enumerate(zip(*numbers, strict=True)) if len(set(column)) > 1]
    if len(changing) > 1:
        raise InputFileError(
            f"The folder holds several series of numbered pictures: {pictures[0].name!r} and {pictures[-1].name!r} "
            "differ in more than one number. Put each into a folder of its own."
        )
    place = changing[0] if changing else -1
    found: dict[int, Path] = {}
    for picture, number in zip(pictures, numbers, strict=True):
        if number[place] in found:
            raise InputFileError(
                f"Two pictures have the number {number[place]}: {found[number[place]].name!r} and {picture.name!r}. "
                "Take one of them away."
            )
        found[number[place]] = picture
    return found


def _about_gaps(numbers: list[int]) -> list[str]:
    steps = [after - before for before, after in itertools.pairwise(numbers)]
    missing = [(before + 1, after - 1) for before, after in itertools.pairwise(numbers) if after - before > 1]
    if len(set(steps)) < 2:  # every fifth is no gap
        return []
    first, last = missing[0]
    what = f"number {first}" if first == last else f"numbers {first} to {last}"
    more = f" and {len(missing) - 1} more times" if len(missing) > 1 else ""
    return [f"lacks {what}{more}: the pictures around a gap follow each other directly."]


def _about_others(names: list[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return [f"holds pictures without a number that are left out: {names[0]}{more}."]


def _pixels(picture: Path) -> Frames:
    return np.asarray(read_picture(picture, picture.name))
