"""Clips that show the same, of which the largest is kept."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from muybridge.data.preparation.looks import Grays, look_at
from muybridge.data.preparation.stage import Stage, StageSettings, noted, register_stage
from muybridge.data.preparation.status import Verdict
from muybridge.data.record import Record

_SIZE, _KEPT = 32, 8
_MOMENTS = (0.1, 0.5, 0.9)
_FLAT = 4.0  # of 255: standard deviation of frames whose hash is chance
_AT_ONCE = 1024
_HASH = "look"


class DuplicatesSettings(StageSettings):
    """What counts as the same."""

    max_bits: int = Field(default=12, ge=0, le=96)
    """Of the 192 bits of three frames, how many may differ."""


@register_stage("duplicates")
class Duplicates(Stage):
    """Notes a perceptual hash of three frames, and drops all but the largest of those that are nearly equal.

    A hash is the sign, about their median, of the 64 lowest frequencies of a frame of 32x32.
    """

    Settings = DuplicatesSettings
    settings: DuplicatesSettings
    thresholds: ClassVar[frozenset[str]] = frozenset(("max_bits",))
    needs: ClassVar[frozenset[str]] = frozenset(("width", "height"))
    uses: ClassVar[frozenset[str]] = frozenset(("start", "end", "crop"))
    gives: ClassVar[frozenset[str]] = frozenset((_HASH,))
    is_global: ClassVar[bool] = True

    def run(self, record: Record, work: Path) -> list[Record]:
        """The record with its hash in `look`; none for one that shows nothing. Raises Refused: it cannot be read."""
        frames = look_at(record).frames
        chosen = [frames[min(len(frames) - 1, int(share * len(frames)))] for share in _MOMENTS]
        if min(frame.std() for frame in chosen) < _FLAT:
            return [record]
        return [noted(record, **{_HASH: "".join(_hash(frame) for frame in chosen)})]

    def run_all(self, records: Sequence[Record]) -> dict[str, Verdict]:
        """All but the largest, and of equal size the first by id, of those that are nearly the same."""
        found: dict[str, Verdict] = {}
        for kind in ("image", "video"):
            hashed = [record for record in records if record.kind == kind and _HASH in record.extra]
            found |= self._doubles(sorted(hashed, key=_worth))
        return found

    def _doubles(self, records: Sequence[Record]) -> dict[str, Verdict]:
        """Of records from the one most worth keeping on."""
        signs = np.array([_signs(record.extra[_HASH]) for record in records], np.float32)
        kept = np.ones(len(records), bool)
        found: dict[str, Verdict] = {}
        for begin in range(0, len(records), _AT_ONCE):
            products = signs[begin : begin + _AT_ONCE] @ signs[: begin + _AT_ONCE].T
            bits = np.rint((signs.shape[1] - products) / 2).astype(int)
            for row, apart in enumerate(bits):
                index = begin + row
                near = np.flatnonzero((apart[:index] <= self.settings.max_bits) & kept[:index])
                if len(near):
                    other = int(near[apart[near].argmin()])
                    kept[index] = False
                    found[records[index].id] = self._verdict(records[other], int(apart[other]))
        return found

    def _verdict(self, other: Record, bits: int) -> Verdict:
        return Verdict(
            "duplicate", bits, self.settings.max_bits, f"shows the same as {other.id}: {bits} bits of 192 differ"
        )


def _worth(record: Record) -> tuple[float, float, str, str]:
    pixels = (record.width or 0) * (record.height or 0)
    return -pixels, -(record.duration_s or 0.0), record.id, record.media


def _hash(frame: Grays) -> str:
    from PIL import Image

    small = np.asarray(Image.fromarray(frame).resize((_SIZE, _SIZE), Image.Resampling.BOX), np.float32)
    waves = _waves()
    lowest = (waves @ small @ waves.T).reshape(-1)
    return np.packbits(lowest > np.median(lowest)).tobytes().hex()


def _signs(digits: str) -> npt.NDArray[np.int8]:
    return np.unpackbits(np.frombuffer(bytes.fromhex(digits), np.uint8)).astype(np.int8) * 2 - 1


@lru_cache(maxsize=1)
def _waves() -> npt.NDArray[np.float32]:
    """The lowest cosines of the discrete cosine transform, `[kept, size]`."""
    places = (np.arange(_SIZE) + 0.5) / _SIZE
    return np.cos(np.pi * np.outer(np.arange(_KEPT), places)).astype(np.float32)
