"""One clip or picture of a set with its caption, and what cannot be one with the reason."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, get_args

from muybridge.data.crop import CROP, check_box
from muybridge.data.packed import PackedFile
from muybridge.errors import InputFileError
from muybridge.files.utf8 import is_utf8
from muybridge.types import SettingsDict, SettingsView
from muybridge.video.media import MediaFile

Kind = Literal["video", "image"]
KINDS: tuple[Kind, ...] = get_args(Kind)

VIDEO_SUFFIXES = frozenset(
    (
        *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts"),
        *(".wmv", ".asf", ".flv", ".ogv", ".mxf", ".ivf", ".gif"),
    )
)
IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".jp2"))

PACKED = "packed"
"""Under this name `extra` says where a file lies that is inside another."""
_BLOCK = 1 << 20
_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")
"""What an id looks like: files are named after it."""


@dataclass(frozen=True)
class Refusal:
    """What was found in a set and is no record of it.

    Attributes:
        where: a row, line or file.
        reason: why, in words.
        rule: why, in a word that programs can go by, as `no-file`.
    """

    where: str
    reason: str
    rule: str

    def __str__(self) -> str:
        return f"{shown(self.where)}: {shown(self.reason)}"


@dataclass(frozen=True)
class Record:
    """A clip or a picture with its caption.

    Attributes:
        id: from the bytes of the file and the part of it that is meant, so that it stays when files are renamed.
        media: path of the file, or of a folder of numbered pictures. Names that are not UTF-8 are as `os.fsdecode` has
            them.
        kind: video or image.
        text: the caption; empty where there is none.
        start: where it begins in the file, in seconds from its first frame.
        end: where it ends; None for the end of the file.
        width: in pixels, upright; None until it was probed, as what follows.
        height: likewise.
        fps: frames per second.
        frames: how many there are between start and end.
        extra: whatever else the set says about it.
    """

    id: str
    media: str
    kind: Kind
    text: str = ""
    start: float = 0.0
    end: float | None = None
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    frames: int | None = None
    extra: SettingsDict = field(default_factory=dict, hash=False)

    @property
    def source(self) -> MediaFile:
        """What its frames are read from."""
        return media_source(self.media, self.extra)

    @property
    def name(self) -> str:
        """What stands for it in messages and reports: its file, and the part that is meant."""
        packed = self.extra.get(PACKED)
        name = self.media if packed is None else f"{self.media}/{packed['member']}"
        return shown(
            f"{name} [{self.start:g}-{'' if self.end is None else f'{self.end:g}'} s]" if self.is_part else name
        )

    @property
    def is_part(self) -> bool:
        """Whether it is less than its file."""
        return self.start > 0 or self.end is not None

    @property
    def duration_s(self) -> float | None:
        """Seconds from start to end; None for pictures, and before the file was probed."""
        if self.end is not None:
            return self.end - self.start
        whole = self.extra.get("duration")
        return None if whole is None else whole - self.start

    def to_json(self) -> SettingsDict:
        """As one object of a manifest."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: SettingsView) -> Record:
        """From one object of a manifest.

        Raises:
            InputFileError: something is missing, or is not what it must be.
        """
        known = cls.__dataclass_fields__
        if unknown := sorted(values.keys() - known.keys()):
            raise InputFileError(f"no record has {', '.join(unknown)}; records have {', '.join(known)}")
        for name in ("id", "media", "kind"):
            if not isinstance(values.get(name), str) or not values[name]:
                raise InputFileError(f"{name} must be text; given {values.get(name)!r}")
        if not _ID.fullmatch(values["id"]):
            raise InputFileError(
                f"id must be 1 to 64 letters and digits of ASCII, _ and -; given {shown(values['id'])[:80]!r}", "row"
            )
        if values["kind"] not in KINDS:
            raise InputFileError(f"kind must be {' or '.join(KINDS)}; given {values['kind']!r}")
        if not isinstance(values.get("text", ""), str) or not isinstance(values.get("extra", {}), dict):
            raise InputFileError("text must be text, and extra an object")
        if not is_utf8(values.get("text", "")):
            raise InputFileError("text is not in UTF-8", "caption")
        for name in ("start", "end", "width", "height", "fps", "frames"):
            check_number(name, values.get(name))
        check_number("duration", values.get("extra", {}).get("duration"))
        _check_packed(values.get("extra", {}).get(PACKED))
        check_box(values.get("extra", {}).get(CROP))
        return cls(**{**values, "start": values.get("start") or 0.0})


def check_number(name: str, value: object) -> None:
    """Raises InputFileError for anything but None and a finite number from 0 on."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise InputFileError(f"{name} must be a number from 0 on; given {value!r}", "row")


def _check_packed(values: object) -> None:
    if values is None:
        return
    if not isinstance(values, dict) or values.keys() != {"member", "offset", "size"}:
        raise InputFileError(f"extra.{PACKED} must have member, offset and size; given {values!r}")
    numbers = (values["offset"], values["size"])
    if not isinstance(values["member"], str) or any(not isinstance(n, int) or n < 0 for n in numbers):
        raise InputFileError(f"extra.{PACKED} must be a name and two whole numbers from 0 on; given {values!r}")


def packed_extra(member: PackedFile) -> SettingsDict:
    """What a record's `extra` says of a file that lies inside another."""
    return {PACKED: {"member": member.member, "offset": member.offset, "size": member.size}}


def media_source(media: str, extra: SettingsView) -> MediaFile:
    """What a record with this `media` and `extra` is read from."""
    packed = extra.get(PACKED)
    if packed is None:
        return Path(media)
    return PackedFile(media, packed["member"], packed["offset"], packed["size"])


def kind_by_name(name: str) -> Kind | None:
    """What a file is by its suffix; None where that says nothing."""
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122  # names inside archives are no paths of this system
    return "video" if suffix in VIDEO_SUFFIXES else "image" if suffix in IMAGE_SUFFIXES else None


def shown(text: str) -> str:
    """Text that any terminal and file takes: on one line, with bytes that are not UTF-8 and controls escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class ContentIds:
    """Makes the ids of records; a file that several of them are parts of is read once."""

    def __init__(self) -> None:
        """With nothing read yet."""
        self._hashes: dict[str, hashlib._Hash] = {}

    def __call__(self, media: str, extra: Mapping[str, object], start: float, end: float | None) -> str:
        """The id of a part of a file.

        Raises:
            OSError: the file cannot be read.
        """
        packed = extra.get(PACKED)
        key = f"{media}\0{packed}"
        if key not in self._hashes:
            self._hashes[key] = _content_hash(media_source(media, extra))
        found = self._hashes[key].copy()
        found.update(f"\0{float(start)!r}\0{None if end is None else float(end)!r}".encode())
        return found.hexdigest()[:16]


def _content_hash(source: MediaFile) -> hashlib._Hash:
    found = hashlib.sha256()
    if isinstance(source, Path) and source.is_dir():
        for entry in sorted(source.iterdir()):
            if entry.is_file():
                found.update(os.fsencode(entry.name) + b"\0")
                found.update(_content_hash(entry).digest())
        return found
    with source.open("rb") as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found
