"""Folders that appear complete or not at all, with nothing in their way or in place of the one that is there."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from muybridge.errors import OutputError
from muybridge.files.atomic import WRITING_ERRORS, check_folder_above, output_error, replace_folder


def check_new(path: Path) -> None:
    """Whether something new can be written at `path`: a question to ask before what takes long.

    Raises:
        OutputError: `path` exists, or its folder is missing or takes no files.
    """
    if path.exists():
        raise OutputError(f"{path} is there already. Choose another name, or remove it first.")
    check_folder_above(path)


@contextmanager
def new_model_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that becomes `path` when the block ends well and vanishes when it does not.

    Raises:
        OutputError: `path` exists, or cannot be written.
    """
    check_new(path)
    with replaced_folder(path) as temporary:
        yield temporary


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its place when the block ends well and vanishes when it does not.

    Raises:
        OutputError: it cannot be written.
    """
    temporary = path.parent / f".muybridge-{secrets.token_hex(8)}.part"
    try:
        temporary.mkdir()
        yield temporary
        replace_folder(temporary, path)
    except WRITING_ERRORS as error:
        raise output_error(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
