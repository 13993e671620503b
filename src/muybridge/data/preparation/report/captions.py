"""What the captions of a set are like: how long, how they begin, and how alike they are."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from muybridge.data.preparation.captioning.faults import count_words

_OPENING = 3  # words
_COMMONEST = 8


@dataclass(frozen=True)
class CaptionStatistics:
    """Of the captions of a set.

    Attributes:
        words: of each caption that there is, in no order that means anything.
        missing: clips without one.
        different: texts.
        openings: first words that several captions share, with how many do, the commonest first.
        samples: some texts, the same each time.
    """

    words: tuple[int, ...]
    missing: int
    different: int
    openings: tuple[tuple[str, int], ...]
    samples: tuple[str, ...]


def look_at_captions(texts: Sequence[str], samples: int = 20) -> CaptionStatistics:
    """The statistics of captions, of which empty ones are missing."""
    known = [plain for text in texts if (plain := " ".join(text.split()))]
    openings = Counter(" ".join(text.lower().split()[:_OPENING]) for text in known)
    shared = tuple((opening, count) for opening, count in openings.most_common(_COMMONEST) if count > 1)
    different = sorted(set(known), key=lambda text: hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    return CaptionStatistics(
        tuple(map(count_words, known)), len(texts) - len(known), len(different), shared, tuple(different[:samples])
    )
