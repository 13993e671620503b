"""The few kinds of picture that reports need."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from muybridge.files.atomic import new_file

_BACKGROUND, _INK, _FAINT = "#ffffff", "#202020", "#d8d8d8"
_COLOURS = ("#2f6fb0", "#c8553d", "#4c9f70", "#8661a8")
_LINE = 18
# Dark to light: black, violet, orange, pale yellow.
_HEAT = np.array([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]], dtype=np.float64)


def save_picture(picture: Image.Image, path: Path) -> Path:
    """Write a png; it appears complete or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as temporary:
        picture.save(temporary, format="PNG")
    return path


def heat_map(values: Tensor, title: str, side: int = 320) -> Image.Image:
    """A square matrix of values from 0 to 1 as colours; rows from the top, columns from the left, with their indexes.

    The brightest colour is the largest value, which is named below.
    """
    matrix = values.detach().double().cpu().numpy()
    largest = float(matrix.max()) or 1.0
    colours = _colours(matrix / largest)
    cell = max(1, side // len(matrix))
    width = cell * len(matrix)
    font, margin = _font(), 3 * _LINE
    title_width = int(font.getlength(title)) + 8
    picture = Image.new("RGB", (max(width + margin + 8, title_width), width + margin + 2 * _LINE), _BACKGROUND)
    heat = Image.fromarray(colours).resize((width, width), Image.Resampling.NEAREST)
    picture.paste(heat, (margin, margin))
    draw = ImageDraw.Draw(picture)
    draw.text((4, 2), title, _INK, font)
    draw.text((margin, _LINE), "looks at frame", _INK, font)
    every = math.ceil(len(matrix) * 2.2 * _LINE / width)
    for index in range(0, len(matrix), every):
        centre = margin + int((index + 0.5) * cell)
        draw.text((centre, margin - 3), str(index), _INK, font, anchor="mb")
        draw.text((margin - 5, centre), str(index), _INK, font, anchor="rm")
    draw.text((margin, margin + width + 6), f"brightest: {largest:.3g}; rows sum to 1", _INK, font)
    return picture


def bars(
    values: Mapping[str, tuple[float, float, float]], title: str, marks: Sequence[float], width: int = 900
) -> Image.Image:
    """Smallest, middle and largest of each name on a logarithmic axis; zeros are at its left end."""
    positive = [value for row in values.values() for value in row if value > 0 and math.isfinite(value)] + [*marks]
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    high = max(high, low + 1)
    font = _font()
    left = 12 + int(max((font.getlength(name) for name in values), default=0))
    picture = Image.new("RGB", (left + width, _LINE * (len(values) + 4)), _BACKGROUND)
    draw = ImageDraw.Draw(picture)
    draw.text((4, 2), title, _INK, font)

    def place(value: float) -> float:
        if not math.isfinite(value):
            return left + width - 20
        exponent = low if value <= 0 else min(max(math.log10(value), low), high)
        return left + (width - 20) * (exponent - low) / (high - low)

    bottom = _LINE * (len(values) + 2)
    for exponent in range(low, high + 1, max(1, (high - low) // 10)):
        x = place(10.0**exponent)
        draw.line((x, _LINE * 1.5, x, bottom), _FAINT)
        draw.text((x, bottom + 4), f"1e{exponent}", _INK, font, anchor="mt")
    for mark in marks:
        draw.line((place(mark), _LINE * 1.5, place(mark), bottom), _COLOURS[1], 2)
    for index, (name, (smallest, middle, largest)) in enumerate(values.items()):
        y = _LINE * (index + 2)
        draw.text((4, y), name, _INK, font, anchor="lm")
        draw.line((place(smallest), y, place(largest), y), _COLOURS[0], 5)
        draw.line((place(middle), y - 6, place(middle), y + 6), _INK, 2)
    return picture


def lines(curves: Mapping[str, Sequence[tuple[float, float]]], title: str, unit: str, width: int = 900) -> Image.Image:
    """Curves of (seconds, value) pairs from zero up."""
    height, left, top = 360, 90, 2 * _LINE
    points = [point for curve in curves.values() for point in curve]
    end = max((x for x, _ in points), default=0.0) or 1.0
    most = max((y for _, y in points), default=0.0) or 1.0
    picture = Image.new("RGB", (width, height), _BACKGROUND)
    draw, font = ImageDraw.Draw(picture), _font()
    draw.text((4, 2), title, _INK, font)
    right, bottom = width - 20, height - 3 * _LINE
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = bottom - (bottom - top) * share
        draw.line((left, y, right, y), _FAINT)
        draw.text((left - 6, y), f"{most * share:.4g}", _INK, font, anchor="rm")
    draw.text((right, bottom + 4), f"{end:.3g} s", _INK, font, anchor="rt")
    draw.text((4, top), unit, _INK, font)
    for index, (name, curve) in enumerate(curves.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        placed = [(left + (right - left) * x / end, bottom - (bottom - top) * y / most) for x, y in curve]
        if len(placed) > 1:
            draw.line(placed, colour, 2)
        draw.text((left + 160 * index, bottom + 1.5 * _LINE), name, colour, font)
    return picture


def _font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(13)


def _colours(shares: np.ndarray) -> np.ndarray:
    places = np.clip(shares, 0, 1) * (len(_HEAT) - 1)
    channels = [np.interp(places, range(len(_HEAT)), _HEAT[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
