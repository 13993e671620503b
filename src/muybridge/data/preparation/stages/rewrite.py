"""Captions in one style, by a model of text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from muybridge.data.preparation.captioning.conversation import Turn
from muybridge.data.preparation.captioning.faults import caption_of_json
from muybridge.data.preparation.captioning.prompts import REWRITE
from muybridge.data.preparation.captioning.writing import CAPTION_FAILED, WritingStage
from muybridge.data.preparation.stage import Refused, noted, register_stage
from muybridge.data.record import Record

_TRIES = 3
_AGAIN = (
    'That is not what was asked for. Answer with one JSON object and nothing else: {"caption": "the rewritten text"}'
)


@register_stage("rewrite")
class Rewrite(WritingStage):
    """Writes `text` anew; `extra` gets `rewrite`, with what it was before, who wrote it, and what was asked."""

    needs: ClassVar[frozenset[str]] = frozenset(("text",))
    gives: ClassVar[frozenset[str]] = frozenset(("text", "rewrite"))
    takes_pictures = False
    questions = _TRIES
    prompt_name = REWRITE

    def run(self, record: Record, work: Path) -> list[Record]:
        """The record with another caption; one without a caption stays as it is.

        Raises:
            Refused: as `caption-failed` after three answers that are not what was asked for, or none.
            PreparationError: the server refuses everything.
        """
        if not record.text.strip():
            return [record]
        answers, key = self.kept(record, work, record.text)
        found = answers.find(*key)
        if found is None:
            found = {"text": self._rewritten(record.text, work)}
            answers.keep(found, *key)
        rewrite = {**self.credit(), "was": record.text}
        return [noted(replace(record, text=found["text"]), rewrite=rewrite)]

    def _rewritten(self, text: str, work: Path) -> str:
        turns = [Turn("user", f"{self.prompt} {' '.join(text.split())}")]
        for _ in range(_TRIES):
            answer = self.ask(turns, work)
            if (caption := caption_of_json(answer.text)) is not None:
                return caption
            # A model that always answers the same to the same has to be asked something else.
            turns += [Turn("assistant", answer.text), Turn("user", _AGAIN)]
        raise Refused(CAPTION_FAILED, f"{_TRIES} answers were not the JSON that was asked for", "caption-failed")
