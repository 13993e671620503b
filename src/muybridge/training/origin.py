"""What a run began with: digests that tell whether it is still the same when the run goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from muybridge.errors import CheckpointError
from muybridge.types import SettingsDict

_WINDOWS = 256
_WINDOW = 1 << 14


@dataclass(frozen=True)
class Origin:
    """Digests of what a run is made from; None for what is not known.

    Attributes:
        base: of the model that training begins with.
        data: of what it is shown.
    """

    base: str | None = None
    data: str | None = None

    def record(self) -> SettingsDict:
        """For a checkpoint."""
        return asdict(self)

    def completed(self, record: SettingsDict) -> Origin:
        """With what the record knows besides."""
        return Origin(self.base or record.get("base"), self.data or record.get("data"))

    def changed_since(self, record: SettingsDict) -> str | None:
        """Which of the two is another one than it was, in words; None if neither is, as far as is known."""
        for name, words in (("base", "the model it builds on has changed"), ("data", "the clips have changed")):
            now, before = getattr(self, name), record.get(name)
            if now is not None and before is not None and now != before:
                return words
        return None


def digest_of_models(paths: Iterable[Path]) -> str | None:
    """A digest of files and folders of weights that takes no longer for large ones; None for no path.

    Of each file it sees name, size and 256 stretches of 16 KiB spread over it, which other weights differ in.

    Raises:
        CheckpointError: one of them cannot be read.
    """
    digest, seen = hashlib.sha256(), False
    for path in paths:
        seen = True
        files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
        for file in files:
            name = file.relative_to(path) if path.is_dir() else Path(file.name)
            try:
                _add_file(digest, file, name.as_posix())
            except OSError as error:
                raise CheckpointError(
                    f"{file} cannot be read ({error.strerror or error}). See to it that it can."
                ) from error
    return digest.hexdigest() if seen else None


def _add_file(digest: hashlib._Hash, file: Path, name: str) -> None:
    size = file.stat().st_size
    digest.update(f"{name} {size}\n".encode())
    with file.open("rb") as opened:
        if size <= _WINDOWS * _WINDOW:
            digest.update(opened.read())
            return
        for window in range(_WINDOWS):
            opened.seek((size - _WINDOW) * window // (_WINDOWS - 1))
            digest.update(opened.read(_WINDOW))
