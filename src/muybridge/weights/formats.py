"""What a file is, from its first bytes; its name is not asked."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

from muybridge.errors import CheckpointError

_HEAD = 512
_SMALLEST = 8  # bytes; of safetensors that is no more than the length of what follows
_MAX_SAFETENSORS_HEADER = 100_000_000  # what the format allows
_TORCH_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
"""The number that files of torch before version 1.6 begin with, as it is pickled."""
_BEHIND_MAGIC = 32
_PAGES = (b"<!doctype html", b"<html", b"<head", b"<body", b"<?xml", b"<!--", b'{"error')


class FileFormat(Enum):
    """The formats that weights are found in, and what is often found in their place."""

    SAFETENSORS = "safetensors"
    ZIP = "a zip archive, as torch writes"
    TORCH_LEGACY = "a torch file of before 2020"
    PICKLE = "a pickle"
    GGUF = "GGUF"
    LFS_POINTER = "a pointer of Git LFS"
    PAGE = "a web page"
    EMPTY = "empty"
    OTHER = "something else"

    @property
    def holds_weights(self) -> bool:
        """Whether files of this format are weight files, readable here or not."""
        return self in (self.SAFETENSORS, self.ZIP, self.TORCH_LEGACY, self.PICKLE, self.GGUF)

    @property
    def stands_for_a_file(self) -> bool:
        """Whether such a file lies where another one was meant to be, of whatever kind."""
        return self in (self.LFS_POINTER, self.PAGE)


def file_format(path: Path) -> FileFormat:
    """Tell the format of a file by its first bytes.

    Raises:
        CheckpointError: it cannot be opened.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}).") from error
    if not head:
        return FileFormat.EMPTY
    if len(head) <= _SMALLEST:
        return FileFormat.OTHER
    header = int.from_bytes(head[:8], "little")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    is_pickle = head[:1] == b"\x80" and head[1:2] <= b"\x05"
    rules = (
        (head[8:9] == b"{" and 2 <= header <= _MAX_SAFETENSORS_HEADER, FileFormat.SAFETENSORS),
        (head.startswith(b"PK\x03\x04"), FileFormat.ZIP),
        (is_pickle and _TORCH_MAGIC in head[:_BEHIND_MAGIC], FileFormat.TORCH_LEGACY),
        (is_pickle, FileFormat.PICKLE),
        (head.startswith(b"GGUF"), FileFormat.GGUF),
        (head.startswith(b"version https://git-lfs"), FileFormat.LFS_POINTER),
        (text.startswith(_PAGES), FileFormat.PAGE),
    )
    return next((found for fits, found in rules if fits), FileFormat.OTHER)


def describe_unreadable(path: Path, found: FileFormat) -> str:
    """Why a file of this format gives no weights, and what to do."""
    if found is FileFormat.OTHER and path.stat().st_size <= _SMALLEST:
        return f"{path} has only {path.stat().st_size} bytes: it was cut short. Copy or download it again."
    return {
        FileFormat.EMPTY: f"{path} is empty; copy or download it again.",
        FileFormat.LFS_POINTER: (
            f"{path} is a pointer of Git LFS, which stands for the file in a repository: run `git lfs pull` there, or "
            "download the file itself."
        ),
        FileFormat.PAGE: (
            f"{path} is a web page, not a weight file: the server answered with a page instead of the download. Log in "
            "or accept the licence where it asks for that, and download it again; on the Hugging Face hub from the "
            "address with /resolve/ in it, not /blob/."
        ),
    }.get(
        found,
        f"{path} is no weight file: its content is neither safetensors nor what torch.save writes, nor GGUF. Name "
        "another file.",
    )
