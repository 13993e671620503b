"""What is wrong with a caption, by rules: what programs that write captions say instead of what is seen."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass

from muybridge.files.utf8 import is_utf8

_OPENING = re.compile(
    r"(?:in\s+)?(?:the|this|these|a|an|here\s+is\s+(?:the|a))\s+(?:\w+\s+){0,2}?"
    r"(?:videos?|clips?|footage|images?|pictures?|photos?|frames?|scenes?|sequence|captions?)\b"
    r"(?:\s*[,:]|\s+(?:shows?|shown|showing|features?|depicts?|displays?|captures?|presents?|begins?|opens?|starts?|"
    r"is|are|of|we|you|there|appears?|seems?|contains?|consists?|provided|illustrates?|portrays?))",
    re.IGNORECASE,
)
_CHAT = re.compile(
    r"(?:sure|certainly|of course|absolutely|okay|ok|as requested|caption|description|answer|output|"
    r"rewritten(?: text| caption)?)\b\s*[,:!.]|here(?:'s|\s+is|\s+are)\b[^.:]{0,60}:",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"\b(?:i(?:'m| am)?\s+(?:sorry|unable|not able|cannot|can't|can not|won't|apologi[sz]e)|"
    r"as an? (?:ai|language|assistant|large)\b|i (?:do not|don't) (?:see|have)\b|cannot (?:assist|help|comply)|"
    r"no (?:image|video|picture|frame)s? (?:is|are|was|were|has|have) (?:provided|attached|given|uploaded|been)|"
    r"please (?:provide|upload|share|attach))",
    re.IGNORECASE,
)
_MARKUP = re.compile(
    r"^\s*(?:[{\[]|```|#{1,6}\s|<\w+[ />]|[-*]\s|1[.)]\s)|```|<\|\w+\|>|<image>|</?\w+>\s*$", re.MULTILINE
)
_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_PHRASE = 5  # words


@dataclass(frozen=True)
class CaptionFigures:
    """What there is to count about a caption.

    Attributes:
        words: of it.
        repeated: share of its runs of five words that were there before.
        faults: what is wrong with it whatever its length: `empty`, `refusal`, `opening`, `chat`, `markup`.
    """

    words: int
    repeated: float
    faults: tuple[str, ...]


def look_at_caption(text: str) -> CaptionFigures:
    """The figures of a caption."""
    words = _WORD.findall(text.lower())
    if not words:
        return CaptionFigures(0, 0.0, ("empty",))
    start = text.lstrip(" \t\r\n\"'“”‘’*_")
    found = {
        "refusal": _REFUSAL.search(text[:400]),
        "opening": _OPENING.match(start),
        "chat": _CHAT.match(start),
        "markup": _MARKUP.search(text) or _is_json(text),
    }
    return CaptionFigures(count_words(text), _repeated(words), tuple(name for name, hit in found.items() if hit))


def count_words(text: str) -> int:
    """How many words; of scripts that do not part them, two letters count as one."""
    return sum(
        1 if word.isascii() or not _is_unparted(word) else max(1, len(word) // 2) for word in _WORD.findall(text)
    )


def _is_unparted(word: str) -> bool:
    return any("぀" <= letter <= "鿿" or "฀" <= letter <= "๿" for letter in word)


def _repeated(words: list[str]) -> float:
    phrases = Counter(tuple(words[place : place + _PHRASE]) for place in range(len(words) - _PHRASE + 1))
    total = phrases.total()
    return round(1 - len(phrases) / total, 4) if total else 0.0


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False


def caption_of_json(text: str) -> str | None:
    """The text in an answer that is to be `{"caption": "..."}`, fenced or not; None where it is something else."""
    start, end = text.find("{"), text.rfind("}")
    fenced = text[start : end + 1] if start >= 0 else ""
    around = (text[:start] + text[end + 1 :]).strip().lower()
    if around.strip("`").strip() not in ("", "json"):
        return None
    try:
        values = json.loads(fenced)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or values.keys() != {"caption"} or not isinstance(values["caption"], str):
        return None
    caption = " ".join(values["caption"].split())
    return caption if caption and is_utf8(caption) else None
