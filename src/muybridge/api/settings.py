"""How the service is offered: to whom, by which names, and how much at once."""

from __future__ import annotations

import ipaddress
import os
import stat
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from muybridge.errors import ConfigError
from muybridge.jobs.record import Limits as QueueLimits

LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
OTHER_APIS = ("easyanimate",)
"""Programs whose own calls can be answered too."""
MIN_TOKEN = 16
MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What one call may bring.

    Attributes:
        upload_bytes: of a body that carries files.
        body_bytes: of any other body.
        text_bytes: of one text field of a form.
        fields: text fields of a form.
        files: files of a form.
        picture_pixels: of a picture, known before it is decoded.
        video_pixels: of all frames of a video together, counted while they are decoded.
        frames: of a video that is asked for.
        side: height or width of one.
        steps: denoising steps of one.
        asked_pixels: of all frames of one together.
    """

    upload_bytes: int = 256 * MIB
    body_bytes: int = 2 * MIB
    text_bytes: int = MIB
    fields: int = 256
    files: int = 64
    picture_pixels: int = 40_000_000
    video_pixels: int = 600_000_000
    frames: int = 20_000
    side: int = 8_192
    steps: int = 1_000
    asked_pixels: int = 20_000_000_000


@dataclass(frozen=True)
class ApiSettings:
    """How the service is offered.

    Attributes:
        tokens: who may call; nobody is asked where there are none.
        hosts: names by which it may be called, beside addresses; "*" is any.
        sync_seconds: how long a call waits for a video that it wants at once.
        limits: what one call may bring.
        queue: how many jobs may wait.
        also: programs whose own calls are answered too, of `OTHER_APIS`.
    """

    tokens: tuple[str, ...] = ()
    hosts: tuple[str, ...] = LOCAL_HOSTS
    sync_seconds: float = 600.0
    limits: Limits = field(default_factory=Limits)
    queue: QueueLimits = field(default_factory=QueueLimits)
    also: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the tokens, and the names of other programs.

        Raises:
            ConfigError: a token that is short, or that no header can carry; a program that is not known.
        """
        for token in self.tokens:
            if len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
                raise ConfigError(
                    f"A token must be at least {MIN_TOKEN} letters and digits without blanks; one has {len(token)}. "
                    'Make one with: python -c "import secrets; print(secrets.token_urlsafe(32))"'
                )
        for name in self.also:
            if name not in OTHER_APIS:
                raise ConfigError(f"There are no calls of {name!r} to answer. Known: {', '.join(OTHER_APIS)}.")


def read_tokens(file: Path | None, environment: str | None) -> tuple[str, ...]:
    """Tokens out of a file with one a line, where # begins a remark, and out of a variable, with blanks between them.

    Raises:
        ConfigError: the file cannot be read, or holds none.
    """
    found = (environment or "").split()
    if file is not None:
        try:
            lines = file.read_text("ascii").splitlines()
            mode = file.stat().st_mode
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no plain text"
            raise ConfigError(f"The file of tokens {file} cannot be read: {reason}.") from error
        if os.name == "posix" and mode & (stat.S_IRGRP | stat.S_IROTH):
            warnings.warn(f"Others may read the tokens in {file}; chmod 600 keeps them to you.", stacklevel=2)
        listed = [line.partition("#")[0].strip() for line in lines]
        if not any(listed):
            raise ConfigError(f"The file of tokens {file} holds none. Write one a line.")
        found += [line for line in listed if line]
    return tuple(dict.fromkeys(found))


def is_local(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
