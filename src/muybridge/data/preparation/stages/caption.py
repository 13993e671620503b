"""Captions by a model that is shown frames."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from muybridge.data.preparation.captioning.conversation import Answer, Turn
from muybridge.data.preparation.captioning.prompts import CAPTION
from muybridge.data.preparation.captioning.writing import CAPTION_FAILED, WritingSettings, WritingStage
from muybridge.data.preparation.spread_frames import spread_frames
from muybridge.data.preparation.stage import Refused, noted, register_stage
from muybridge.data.record import Record
from muybridge.errors import InputFileError

_SENTENCES = re.compile(r"\A.*[.!?。！？](?=\W*\s|\W*\Z)", re.DOTALL)


class CaptionSettings(WritingSettings):
    """Who writes, of what it sees."""

    frames: int = Field(default=8, ge=1, le=64)
    """Evenly spaced in time, the first and the last among them."""
    side: int = Field(default=512, ge=16)
    """Most pixels of the longer side of a frame."""
    replace: bool = False
    """Whether captions that are there already are written anew."""


@register_stage("caption")
class Caption(WritingStage):
    """Writes `text`; `extra` gets `caption`, with who wrote it and what was asked."""

    Settings = CaptionSettings
    settings: CaptionSettings  # type: ignore[assignment]  # made of what `Settings` says
    needs: ClassVar[frozenset[str]] = frozenset(("duration",))
    uses: ClassVar[frozenset[str]] = frozenset(("text", "crop"))
    gives: ClassVar[frozenset[str]] = frozenset(("text", "caption"))
    takes_pictures = True
    prompt_name = CAPTION

    def run(self, record: Record, work: Path) -> list[Record]:
        """The record with a caption.

        Raises:
            Refused: as `caption-failed` where the model gives none; or its file cannot be read.
            PreparationError: the server refuses everything.
        """
        if record.text.strip() and not self.settings.replace:
            return [record]
        answers, key = self.kept(record, work, str(self.settings.frames), str(self.settings.side))
        found = answers.find(*key)
        if found is None:
            found = {"text": self._written(record, work)}
            answers.keep(found, *key)
        return [noted(replace(record, text=found["text"]), caption=self.credit())]

    def _written(self, record: Record, work: Path) -> str:
        try:
            frames = spread_frames(record, self.settings.frames, self.settings.side)
        except InputFileError as error:
            raise Refused(error.fault, str(error), "unreadable") from error
        text = whole_sentences(self.ask([Turn("user", self.prompt, tuple(frames))], work))
        if not text:
            raise Refused(CAPTION_FAILED, "the answer was cut off within its first sentence", "caption-failed")
        return text


def whole_sentences(answer: Answer) -> str:
    """An answer on one line, without the sentence that was cut off at its end; empty where that was the first."""
    text = " ".join(answer.text.split())
    if not answer.is_cut:
        return text
    ended = _SENTENCES.match(text)
    return ended[0] if ended else ""
