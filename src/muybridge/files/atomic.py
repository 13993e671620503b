"""Files and folders that appear complete or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from muybridge.errors import OutputError

NUMBERED_PNG = re.compile(r"\d{4,}\.png")
WRITING_ERRORS = (OSError, SafetensorError)
"""What goes wrong while files are written; safetensors has an error of its own for what the system says."""
_SYSTEM_ERROR = re.compile(r"os error (\d+)")
_FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well and vanishes when it does not.

    Raises:
        OutputError: for any of `WRITING_ERRORS` in the block or while replacing.
    """
    target = Path(os.path.realpath(path))
    temporary = _temporary(target)
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(target)
    except WRITING_ERRORS as error:
        raise output_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Like `new_file` for a folder of numbered pictures; the temporary folder exists already.

    Raises:
        OutputError: for any of `WRITING_ERRORS`, or where something other than such a folder is in the way.
    """
    target = Path(os.path.realpath(path))
    temporary = _temporary(target)
    try:
        check_replaceable_folder(path)
        temporary.mkdir()
        yield temporary
        if target.exists():
            check_replaceable_folder(target)
        replace_folder(temporary, target)
    except WRITING_ERRORS as error:
        raise output_error(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_folder_above(path: Path) -> None:
    """Create and remove an empty file beside `path`: the one test that no file system answers wrongly.

    Raises:
        OutputError: the folder is missing or takes no files.
    """
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise OutputError(f"{path} cannot be written: there is no folder {target.parent}. Create it or choose another.")
    probe = _temporary(target)
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise output_error(path, error) from error


def check_replaceable_file(path: Path) -> None:
    """Raises OutputError where `path` is something other than a file."""
    if path.exists() and not path.is_file():
        raise OutputError(f"{path} is a folder or device, not a file. Choose another name.")


def check_replaceable_folder(path: Path) -> None:
    """Raises OutputError where `path` is something other than a folder of nothing but numbered png pictures."""
    if not path.exists():
        return
    if not path.is_dir():
        raise OutputError(f"{path} is a file, and the pictures need a folder of that name. Choose another name.")
    strangers = sorted(entry.name for entry in path.iterdir() if not NUMBERED_PNG.fullmatch(entry.name))
    if strangers:
        raise OutputError(
            f"The folder {path} holds {strangers[0]!r}; only a folder of nothing but numbered png pictures is "
            "replaced. Choose another name or empty the folder."
        )


def output_error(path: Path, error: Exception) -> OutputError:
    """What to raise for one of `WRITING_ERRORS` met while writing `path`, once its temporary file is gone."""
    said = _SYSTEM_ERROR.search(str(error))
    number = error.errno if isinstance(error, OSError) else int(said[1]) if said else None
    advice = (
        "Free some space or save to another disk."
        if number in _FULL
        else "Choose a folder that exists and that you may write to."
    )
    reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return OutputError(f"{path} could not be written: {reason}. Nothing was left behind. {advice}")


def replace_folder(new: Path, target: Path) -> None:
    """Let a finished folder take the place of `target`, which stays as it is if that fails.

    Raises:
        OSError: one of them cannot be renamed.
    """
    if not target.exists():
        new.rename(target)
        return
    # No system call of every platform swaps folders, so the old one steps aside and comes back if the new one cannot.
    aside = _temporary(target)
    target.rename(aside)
    try:
        new.rename(target)
    except BaseException:
        aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _temporary(target: Path) -> Path:
    # Not derived from the name, which may already be as long as the file system allows.
    return target.parent / f".muybridge-{secrets.token_hex(8)}.part"


def _flush(path: Path) -> None:
    # Some file systems report a full disk only now, and a rename must not overtake the data.
    with path.open("r+b") as file:
        os.fsync(file.fileno())
