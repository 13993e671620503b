"""Checkpoints of a run on disk: whole or not there, checked when read, and limited in number.

A checkpoint is a folder `checkpoints/step-N`. It is written under another name, with everything on the disk before it
gets its own, so that the program may end at any moment. Its manifest holds what is small, and size and SHA-256 of the
files beside it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muybridge.errors import CheckpointError, OutputError
from muybridge.types import SettingsDict

logger = logging.getLogger(__name__)

CHECKPOINTS_FOLDER = "checkpoints"
MANIFEST_FILE = "manifest.json"
STATE_FILE = "training_state.pt"
"""Where runs of version 0.1 keep their state, as one file, until their first checkpoint of today's form."""
_NAME = re.compile(r"step-(\d+)")
_PART = ".part"


class BrokenCheckpointError(CheckpointError):
    """A checkpoint that cannot be read; the message is the reason alone."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files are what its manifest says.

    Attributes:
        folder: of its files.
        facts: what the manifest holds besides.
    """

    folder: Path
    facts: SettingsDict


class Checkpoints:
    """Those of the run in a folder."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        """`keep` is how many stay when another one is written."""
        self.run_folder = folder
        self.folder = folder / CHECKPOINTS_FOLDER
        self.keep = keep

    def steps(self) -> list[int]:
        """Steps of the checkpoints that there are, newest first."""
        if not self.folder.is_dir():
            return []
        matches = (_NAME.fullmatch(entry.name) for entry in self.folder.iterdir())
        return sorted((int(match[1]) for match in matches if match), reverse=True)

    def newest(self, read: Callable[[Checkpoint], Any], quiet: bool = False) -> Any | None:
        """What `read` makes of the newest checkpoint that is whole; None if there is no checkpoint.

        One that is not whole is passed over and named in the log, unless `quiet`.

        Args:
            read: may raise BrokenCheckpointError as well.
            quiet: for all but one of several processes.

        Raises:
            CheckpointError: there are checkpoints, and none is whole.
        """
        steps, broken = self.steps(), []
        for step in steps:
            folder = self._of(step)
            try:
                found = read(Checkpoint(folder, read_manifest(folder)))
            except BrokenCheckpointError as error:
                broken.append(f"{folder.name} is damaged ({error})")
                continue
            if broken and not quiet:
                logger.warning("%s: %s; going on from %s.", self.folder, ", ".join(broken), folder.name)
            return found
        if broken:
            raise CheckpointError(
                f"{self.folder}: {', '.join(broken)}. Choose another output folder, or delete this one to start anew."
            )
        return None

    def begin(self, step: int) -> Path:
        """An empty folder to write the files of a checkpoint to; what a killed program left is removed.

        Raises:
            OSError: it cannot be made.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for stale in self.folder.glob(f".*{_PART}"):
            shutil.rmtree(stale)
        part = self.part(step)
        part.mkdir()
        return part

    def part(self, step: int) -> Path:
        """Where the checkpoint of a step is written before it gets its name."""
        return self.folder / f".step-{step}{_PART}"

    def finish(self, step: int, facts: SettingsDict) -> None:
        """Let what was written since `begin` become the checkpoint of the step, and remove those that are too many.

        Raises:
            OSError: it cannot be written.
        """
        part, target = self.part(step), self._of(step)
        write_manifest(part, facts)
        if target.exists():  # of the same step, and not whole: it would have been gone on from
            shutil.rmtree(target)
        part.rename(target)
        _flush_folder(self.folder)
        later = [each for each in self.steps() if each > step]  # which were not whole, or it would have gone on there
        for old in [*later, *self.steps()[len(later) + self.keep :]]:
            shutil.rmtree(self._of(old), ignore_errors=True)
        (self.run_folder / STATE_FILE).unlink(missing_ok=True)

    def abandon(self, step: int) -> None:
        """Remove what was written since `begin`."""
        shutil.rmtree(self.part(step), ignore_errors=True)

    def unwritten(self, error: Exception) -> OutputError:
        """What to raise when a checkpoint could not be written."""
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "the disk may be full"
        kept = self.steps()
        rest = f"The one of step {kept[0]} is kept" if kept else "There is none before it"
        return OutputError(
            f"A checkpoint cannot be written to {self.folder} ({reason}). {rest}. Free some space; the same call "
            "continues."
        )

    def _of(self, step: int) -> Path:
        return self.folder / f"step-{step}"


def has_checkpoint(folder: Path) -> bool:
    """Whether the run in a folder has begun and can go on."""
    return bool(Checkpoints(folder).steps()) or (folder / STATE_FILE).is_file()


def write_manifest(folder: Path, facts: SettingsDict) -> None:
    """Describe the files of a folder, and see what they hold on the disk.

    Raises:
        OSError: it cannot be written.
    """
    files = {}
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        with path.open("r+b") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        files[path.relative_to(folder).as_posix()] = {"size": path.stat().st_size, "sha256": digest}
    manifest = {**facts, "files": files}
    manifest["sha256"] = _digest(manifest)
    with (folder / MANIFEST_FILE).open("w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def read_manifest(folder: Path) -> SettingsDict:
    """What `write_manifest` was given, once all files are what they were.

    Raises:
        BrokenCheckpointError: they are not.
    """
    try:
        manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
        if not isinstance(manifest, dict) or manifest.pop("sha256", None) != _digest(manifest):
            raise BrokenCheckpointError(f"{MANIFEST_FILE} was changed")
        for name, facts in manifest.pop("files").items():
            path = folder / name
            if path.stat().st_size != facts["size"]:
                raise BrokenCheckpointError(f"{name} has {path.stat().st_size} of {facts['size']} bytes")
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != facts["sha256"]:
                    raise BrokenCheckpointError(f"{name} was changed")
    except FileNotFoundError as error:
        raise BrokenCheckpointError(f"{Path(error.filename).name} is missing") from error
    except OSError as error:
        raise BrokenCheckpointError(error.strerror or str(error)) from error
    except ValueError as error:  # no JSON, or no text
        raise BrokenCheckpointError(f"{MANIFEST_FILE} is no JSON") from error
    return manifest


def _digest(manifest: SettingsDict) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _flush_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
