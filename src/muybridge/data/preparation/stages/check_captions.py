"""Captions that say nothing of the clip, by rules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from muybridge.data.preparation.captioning.faults import look_at_caption
from muybridge.data.preparation.stage import Rule, Stage, StageSettings, noted, register_stage
from muybridge.data.preparation.status import Verdict
from muybridge.data.record import Record

_REASONS = {
    "empty": "it has no caption",
    "refusal": "the caption is a refusal, or speaks of its writer",
    "opening": 'the caption begins with words such as "the video shows"',
    "chat": "the caption begins as an answer and not as a caption",
    "markup": "the caption is JSON, a list, or has marks of a program in it",
}


class CheckCaptionsSettings(StageSettings):
    """Which captions are kept."""

    min_words: int = Field(default=4, ge=0)
    max_words: int = Field(default=200, ge=1)
    max_repeated: float = Field(default=0.2, ge=0, le=1)
    """Share of its runs of five words that were there before."""
    openings: bool = False
    """Whether captions that begin with words such as "the video shows" are kept."""
    need_caption: bool = False
    """Whether clips without a caption are dropped."""


@register_stage("check-captions")
class CheckCaptions(Stage):
    """Looks at `text`; `extra` gets `caption_check` with `words`, `repeated` and `faults`."""

    Settings = CheckCaptionsSettings
    settings: CheckCaptionsSettings
    thresholds: ClassVar[frozenset[str]] = frozenset(CheckCaptionsSettings.model_fields)
    needs: ClassVar[frozenset[str]] = frozenset(("text",))
    gives: ClassVar[frozenset[str]] = frozenset(("caption_check",))
    of_kept = True

    def run(self, record: Record, work: Path) -> list[Record]:
        """The record with what there is to count about its caption."""
        figures = look_at_caption(record.text)
        check: dict[str, object] = {"faults": list(figures.faults)}
        if "empty" not in figures.faults:
            check |= {"words": figures.words, "repeated": figures.repeated}
        return [noted(record, caption_check=check)]

    def rules(self) -> Sequence[Rule]:
        """Lengths, and what is said twice."""
        settings = self.settings
        words, repeated = "caption_check.words", "caption_check.repeated"
        return (
            Rule("caption-length", words, "words of its caption", settings.min_words, settings.max_words),
            Rule("caption-repeats", repeated, "share of its caption that repeats", most=settings.max_repeated),
        )

    def verdict(self, record: Record) -> Verdict | None:
        """What is wrong with its words, or else their number."""
        let_through = {"opening"} if self.settings.openings else set()
        if not self.settings.need_caption:
            let_through.add("empty")
        for fault in (record.extra.get("caption_check") or {}).get("faults", ()):
            if fault not in let_through:
                return Verdict(f"caption-{fault}", None, None, _REASONS[fault])
        return super().verdict(record)
