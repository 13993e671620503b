"""From a row of the table to a job and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from muybridge.jobs.files import UPLOAD_ID
from muybridge.jobs.record import Job, New, Redo
from muybridge.types import SettingsDict

_FIELDS = frozenset(each.name for each in fields(Job))


def job_of(row: Any) -> Job:
    """The job in a row of all columns."""
    values: SettingsDict = {name: value for name, value in row._mapping.items() if name in _FIELDS}
    values["uploads"] = tuple(values["uploads"] or ())
    values["redo"] = Redo.of(values["redo"]) if values["redo"] else None
    return Job(**values)


def jobs_of(rows: Sequence[Any]) -> list[Job]:
    """Likewise of several."""
    return [job_of(row) for row in rows]


def values_of(new: New) -> SettingsDict:
    """What is to be inserted, but for what the store knows."""
    values: SettingsDict = {each.name: getattr(new, each.name) for each in fields(New)}
    values["uploads"] = list(new.uploads)
    values["redo"] = new.redo.plain() if new.redo else None
    return values


def without_uploads(value: Any) -> Any:
    """A request in which all uploads look alike: a call that is sent again brings its files again."""
    if isinstance(value, str):
        return "upload" if UPLOAD_ID.fullmatch(value) else value
    if isinstance(value, dict):
        return {key: without_uploads(each) for key, each in value.items()}
    return [without_uploads(each) for each in value] if isinstance(value, list) else value
