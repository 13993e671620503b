"""What became of a record."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Literal, get_args

from muybridge.types import SettingsDict, SettingsView

Status = Literal["ok", "dropped", "unreadable", "crashed", "timeout", "failed", "caption-failed"]
"""Kept; not wanted, by a rule; a file that cannot be used; a process that died of it; one that took too long; an error
that a stage did not expect; and no caption that could be used."""
STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass(frozen=True)
class Verdict:
    """That a record is dropped.

    Attributes:
        rule: which rule says so.
        value: of the record, if the rule is about a number.
        limit: which it is beyond.
        reason: in words.
    """

    rule: str
    value: float | None
    limit: float | None
    reason: str

    def to_json(self) -> SettingsDict:
        """As an object of a journal."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: SettingsView) -> Verdict:
        """From an object of a journal."""
        return cls(**values)


@dataclass(frozen=True)
class Outcome:
    """What became of a record: every one that went in, or came of one that went in, ends as exactly one of these.

    Attributes:
        record_json: the record as far as it got, as `Record.to_json` gives it; of a refused row, what is known of it.
        status: how it ended.
        rule: why, in a word; None where it is kept.
        reason: why, in words; likewise.
        verdicts: all rules that drop it, in the order of their stages; `rule` is the first of them.
        stage: in which stage it ended, or whose rule dropped it.
    """

    record_json: SettingsDict
    status: Status
    rule: str | None = None
    reason: str | None = None
    verdicts: tuple[Verdict, ...] = field(default=())
    stage: str | None = None

    def to_json(self) -> SettingsDict:
        """As one object of a list."""
        return {**asdict(self), "verdicts": [verdict.to_json() for verdict in self.verdicts]}

    @classmethod
    def from_json(cls, values: SettingsView) -> Outcome:
        """From one object of a list."""
        return cls(**{**values, "verdicts": tuple(map(Verdict.from_json, values.get("verdicts", ())))})
