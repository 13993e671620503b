"""Files that turn out to be damaged while training: each is said once, and listed in the folder of its stage."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path

from muybridge.data.record import Refusal

logger = logging.getLogger(__name__)

DAMAGED_FILE = "damaged.jsonl"


class DamagedFiles:
    """What was found so far. Threads that decode may call it together, and processes may share a folder."""

    def __init__(self) -> None:
        """With nothing found, and no folder."""
        self.folder: Path | None = None
        """Of the stage; while there is none, nothing is written."""
        self._known: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, found: Refusal) -> None:
        """Warn of a file that was not known before, and add a line for it to the list."""
        with self._lock:
            if found.where in self._known:
                return
            self._known.add(found.where)
            said = found.reason if found.where in found.reason else found
            logger.warning("left out, another clip takes its place: %s", said)
            if self.folder is not None:
                _add_line(self.folder / DAMAGED_FILE, found)


def _add_line(path: Path, found: Refusal) -> None:
    line = json.dumps({"file": found.where, "reason": found.reason, "rule": found.rule})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # One short write at the end of the file, so that lines of several processes do not mix.
        with path.open("a", encoding="utf-8") as lines:
            lines.write(f"{line}\n")
    except OSError as error:  # a list for people: no reason to train no further
        logger.warning("the list of damaged files %s cannot be written: %s", path, error.strerror)


def damaged_files(folder: Path) -> dict[str, str]:
    """The files that the list in a stage's folder names, each with the reason; empty where there is no list."""
    path = folder / DAMAGED_FILE
    if not path.is_file():
        return {}
    found: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            values = json.loads(line)
            found.setdefault(str(values["file"]), str(values["reason"]))
        except (ValueError, TypeError, KeyError):  # cut off
            continue
    return found
