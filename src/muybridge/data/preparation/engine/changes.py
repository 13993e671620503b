"""What stages did to records, as it is kept: without the folders that files of today lie in."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from muybridge.data.preparation.stage import apply_changes, changes_of
from muybridge.data.record import Record
from muybridge.types import SettingsDict, SettingsView

_WRITTEN = "written"


def result_of(record: Record, found: Sequence[Record], work: Path) -> list[SettingsDict]:
    """What a stage did to a record; files that it wrote are named from its folder, which may be moved."""
    inside = f"{work}{os.sep}"
    changes = changes_of(record, found)
    for change in changes:
        media = change["fields"].get("media")
        if isinstance(media, str) and media.startswith(inside):
            del change["fields"]["media"]
            change[_WRITTEN] = media.removeprefix(inside)
    return changes


def apply_result(record: Record, found: Sequence[SettingsView], work: Path) -> list[Record]:
    """The records that a stage gave, from what `result_of` noted."""
    return apply_changes(record, [_placed(change, work) for change in found])


def _placed(change: SettingsView, work: Path) -> SettingsView:
    if _WRITTEN not in change:
        return change
    return {**change, "fields": {**change["fields"], "media": str(work / change[_WRITTEN])}}
