"""What models are asked, and the hash that says which wording it was."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import Path

from muybridge.data.record import shown
from muybridge.errors import ConfigError

CAPTION = "caption"
REWRITE = "rewrite"
_MOST_BYTES = 100_000


def shipped_prompt(name: str) -> str:
    """One of `caption` and `rewrite`, as the package brings them."""
    return files("muybridge.data.preparation.captioning").joinpath(f"{name}_prompt.txt").read_text("utf-8").strip()


def read_prompt(file: str | None, name: str) -> str:
    """The prompt of a file, or the shipped one of that name where no file is given.

    Raises:
        ConfigError: no such file, or no text in it.
    """
    if file is None:
        return shipped_prompt(name)
    try:
        with Path(file).expanduser().open("rb") as opened:
            text = opened.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"The prompt {shown(file)} cannot be read: {error.strerror}.") from error
    try:
        prompt = text.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise ConfigError(f"The prompt {shown(file)} is not text in UTF-8.") from error
    if not prompt or len(text) > _MOST_BYTES:
        raise ConfigError(f"The prompt {shown(file)} must be of 1 to {_MOST_BYTES} bytes; it has {len(text)} at least.")
    return prompt


def prompt_hash(prompt: str) -> str:
    """By which a wording is known again."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:16]
