"""WebDataset: tar files whose members of one name before the first dot belong together."""

from __future__ import annotations

import itertools
import json
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from muybridge.data.packed import PackedFile
from muybridge.data.readers.folders import media_below
from muybridge.data.readers.registry import Reader, register_reader
from muybridge.data.readers.row import Row, caption_of, rest_of
from muybridge.data.record import Refusal, kind_by_name
from muybridge.types import SettingsDict


class _Member(NamedTuple):
    key: str
    suffix: str
    file: PackedFile

    def text(self) -> str:
        with self.file.open("rb") as file:
            return file.read().decode("utf-8-sig", "surrogateescape")


def _find(path: Path) -> Path | None:
    if path.is_dir():
        return path if any(path.glob("*.tar")) else None
    return path if path.suffix.lower() == ".tar" else None


def _is_plain(path: Path) -> bool:
    """A folder of videos may have some tar file in it as well."""
    if not path.is_dir():
        return True
    if next(media_below(path), None) is not None:
        return False
    members = (member for shard in _shards(path) for member in _members(shard))
    return any(isinstance(member, Refusal) or _is_media(member) for member in members)


def _shards(path: Path) -> list[Path]:
    return sorted(path.glob("*.tar")) if path.is_dir() else [path]


def _read(path: Path, _root: Path) -> Iterator[Row | Refusal]:
    for shard in _shards(path):
        for key, members in itertools.groupby(_members(shard), lambda member: getattr(member, "key", "")):
            found = list(members)
            refusals = [member for member in found if isinstance(member, Refusal)]
            yield from refusals or [_sample(f"{shard.name}: {key}", [m for m in found if isinstance(m, _Member)])]


def _members(shard: Path) -> Iterator[_Member | Refusal]:
    last = ""
    try:
        size = shard.stat().st_size
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                if member.isreg() and member.offset_data + member.size <= size:
                    folder, _, name = member.name.rpartition("/")
                    stem, _, suffix = name.partition(".")
                    file = PackedFile(str(shard), member.name, member.offset_data, member.size)
                    yield _Member(f"{folder}/{stem}" if folder else stem, suffix.lower(), file)
                elif member.isreg():
                    yield _cut_short(shard, last)
                last = member.name
    except (tarfile.TarError, OSError):
        # A compressed one has no places in it that a clip could be read from.
        yield (
            _cut_short(shard, last)
            if last
            else Refusal(
                shard.name, "it is no tar file, or a compressed one; save it without compression", "unreadable"
            )
        )


def _cut_short(shard: Path, last: str) -> Refusal:
    return Refusal(shard.name, f"it is cut short or damaged after {last}", "broken-tail")


def _is_media(member: _Member) -> bool:
    return kind_by_name(f"x.{member.suffix}") is not None


def _sample(where: str, members: list[_Member]) -> Row | Refusal:
    media = [member for member in members if _is_media(member)]
    if not media:
        names = ", ".join(member.suffix or "no suffix" for member in members)
        return Refusal(where, f"no video or picture among its members next to each other ({names})", "no-file")
    if len(media) > 1:
        names = ", ".join(member.file.member for member in media)
        return Refusal(where, f"{names} have one name before the first dot; rename them before packing", "name")
    said, problem = _said(members)
    if problem:
        return Refusal(where, problem, "row")
    texts = [member.text() for member in members if member.suffix == "txt"]
    caption = texts[0] if texts else caption_of(said)
    file = media[0].file
    return Row(where, str(Path(file.archive).absolute()), caption, packed=file, extra=rest_of(said))


def _said(members: Iterable[_Member]) -> tuple[SettingsDict, str]:
    """What the json of a sample says, or what is wrong with it."""
    for member in members:
        if member.suffix == "json":
            try:
                values = json.loads(member.text())
            except (ValueError, RecursionError):
                return {}, f"{member.file.member} is not JSON"
            return (values, "") if isinstance(values, dict) else ({}, f"{member.file.member} is no object of JSON")
    return {}, ""


register_reader(Reader("webdataset", "tar files with members such as 000.mp4 and 000.txt", _find, _read, _is_plain))
