"""The folder in which the finished segments of a long video wait for the others.

`settings.json` says what the video is made with. A segment is `00003.npz` (its frames), `00003.safetensors` (its
latents, where there are any) and `00003.json`, which is written last and says that the others are complete.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from muybridge.errors import ConfigError, InputFileError, OutputError
from muybridge.files.atomic import new_file, output_error
from muybridge.files.json_settings import read_json_object
from muybridge.longvideo.joining import Join, check_join
from muybridge.longvideo.plan import Segment
from muybridge.longvideo.seeds import segment_seed
from muybridge.types import SettingsDict, SettingsView

if TYPE_CHECKING:
    from torch import Tensor

_FORMAT = 1
_LATENTS = "latents"


@dataclass(frozen=True)
class ContinuationSettings:
    """What decides the frames of a long video besides its plan; a work folder belongs to one of these.

    Attributes:
        seed: of the video, 0 to 2**63 - 1; see `segment_seed`.
        join: how segments join, `crossfade` or `cut`; see `join_frames`.
        request: everything else that decides the frames (prompt, model, steps, size), as values that JSON has.
    """

    seed: int
    join: Join = "crossfade"
    request: SettingsView = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises ConfigError for a seed out of range or a join that is not known."""
        check_join(self.join)
        segment_seed(self.seed, 0)


def recorded_seed(folder: str | os.PathLike[str]) -> int | None:
    """The seed of the long video in a folder, None where there is no folder or nothing in it.

    Raises:
        InputFileError: its `settings.json` is damaged.
    """
    noted = Path(folder) / "settings.json"
    if not noted.is_file():
        return None
    seed = _read_json(noted).get("seed")
    if not isinstance(seed, int):
        raise InputFileError(f"{noted} names no seed. Delete it, or start in another folder.")
    return seed


@dataclass(frozen=True)
class Record:
    """What is noted about a segment.

    Attributes:
        settings: hash of the settings it belongs to.
        segment: the fields of the `Segment`.
        seed: that it is made with.
        attempt: how often it was made anew.
        is_finished: whether its files are complete.
        has_latents: whether it left latents.
    """

    settings: str
    segment: SettingsDict
    seed: int
    attempt: int
    is_finished: bool
    has_latents: bool


class WorkFolder:
    """The folder, opened for one long video. Not for two programs at once."""

    def __init__(self, path: str | os.PathLike[str], settings: ContinuationSettings) -> None:
        """Open the folder or make it.

        Raises:
            ConfigError: the segments in it were made with other settings (names each), or the request is no JSON.
            OutputError: the folder cannot be made or holds other things.
            InputFileError: `settings.json` is damaged.
        """
        self.path = Path(path)
        self._seed = settings.seed
        described = _as_json(settings)
        self._hash = hashlib.sha256(_to_text(described).encode()).hexdigest()
        try:
            self.path.mkdir(exist_ok=True)
            leftovers = set(self.path.glob(".muybridge-*.part"))
            is_empty = set(self.path.iterdir()) <= leftovers
        except OSError as error:
            raise output_error(self.path, error) from error
        noted = self.path / "settings.json"
        if not is_empty and not noted.is_file():
            raise OutputError(f"{self.path} holds other things than a long video. Choose another folder or empty it.")
        for part in leftovers:  # of a program that had no time to clean up
            part.unlink(missing_ok=True)
        if is_empty:
            _write_json(noted, described)
        else:
            _compare(self.path, _read_json(noted), described)

    def record(self, index: int) -> Record | None:
        """What is noted about a segment, None where it was never finished.

        Raises:
            InputFileError: the note is damaged.
            ConfigError: it belongs to a video with other settings.
        """
        path = self._file(index, "json")
        if not path.exists():
            return None
        try:
            record = Record(**_read_json(path))
        except TypeError as error:
            raise InputFileError(f"{path} is no note of a segment. Delete it.") from error
        if not isinstance(record.segment, dict) or record.segment.get("index") != index:
            raise InputFileError(f"{path} is no note of segment {index}. Delete it.")
        if record.settings != self._hash:
            raise ConfigError(f"{path} belongs to a video with other settings. Use another folder, or delete the file.")
        return record

    def finished(self, segment: Segment) -> Record | None:
        """The note of a finished segment, None where it is still to be made.

        Raises:
            ConfigError: it was made for another plan; names what differs.
            InputFileError: the note is damaged.
        """
        record = self.record(segment.index)
        if record is None or not record.is_finished:
            return None
        planned = asdict(segment)
        other = [name for name in planned if planned[name] != record.segment.get(name)]
        if other:
            changes = ", ".join(f"{name}={record.segment.get(name)} (now {planned[name]})" for name in other)
            raise ConfigError(
                f"Segment {segment.index} in {self.path} was made for another plan, with {changes}. Go back to that "
                f"plan, use another folder, or make it anew with redo={{{segment.index}}}."
            )
        return record

    def attempt(self, index: int) -> int:
        """Which attempt at a segment that is to be made this is, from 0."""
        record = self.record(index)
        return 0 if record is None else record.attempt

    def mark_for_redo(self, indexes: Collection[int], is_following_redone: bool) -> None:
        """Note that segments are to be made anew, each with a new seed, and those after them with the seeds they had.

        One that is marked already and not yet made is left as it is.

        Raises:
            ConfigError: a segment that was never made.
        """
        made = sorted(int(path.stem) for path in self.path.glob("*.json") if path.stem.isdecimal())
        unknown = sorted(set(indexes) - set(made))
        if unknown:
            known = f"those there are: {made[0]} to {made[-1]}" if made else "there are none yet"
            raise ConfigError(
                f"Segment {unknown[0]} in {self.path} cannot be made anew, since it was not made; {known}."
            )
        following = [index for index in made if is_following_redone and indexes and index > min(indexes)]
        # From the end: interrupted here, what is marked is made again as it was.
        for index in sorted({*indexes, *following}, reverse=True):
            record = self.record(index)
            if record is not None and record.is_finished:
                attempt = record.attempt + (index in indexes)
                self._note(record.segment, attempt, is_finished=False, has_latents=False)

    def save(self, segment: Segment, frames: npt.NDArray[np.uint8], latents: Tensor | None) -> None:
        """Store a finished segment: frames `uint8 [f, h, w, 3]` without loss, latents in their own type.

        Raises:
            OutputError: the disk does not take it; nothing half-written is left behind.
        """
        attempt = self.attempt(segment.index)
        with new_file(self._file(segment.index, "npz")) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, frames=frames)
        if latents is not None:
            from safetensors.torch import save_file

            with new_file(self._file(segment.index, "safetensors")) as temporary:
                save_file({_LATENTS: latents.detach().cpu().contiguous()}, temporary)
        self._note(asdict(segment), attempt, is_finished=True, has_latents=latents is not None)

    def load_frames(self, segment: Segment) -> npt.NDArray[np.uint8]:
        """The frames of a finished segment, `uint8 [f, h, w, 3]`.

        Raises:
            InputFileError: the file is missing or damaged.
        """
        path = self._file(segment.index, "npz")
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                frames = archive["frames"]
        # A damaged archive raises whatever its decoder meets first.
        except Exception as error:
            raise self._damaged(path, segment.index, "it is missing or damaged") from error
        if frames.dtype != np.uint8 or frames.ndim != 4 or len(frames) != segment.num_frames:
            raise self._damaged(path, segment.index, f"it holds {frames.dtype} {list(frames.shape)}")
        return frames

    def load_latents(self, index: int) -> Tensor | None:
        """The latents that a finished segment left, on the CPU, or None.

        Raises:
            InputFileError: the file is missing or damaged.
        """
        record = self.record(index)
        if record is None or not record.has_latents:
            return None
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self._file(index, "safetensors")
        try:
            return load_file(path)[_LATENTS]
        except (OSError, KeyError, SafetensorError) as error:
            raise self._damaged(path, index, "it is missing or damaged") from error

    def _note(self, segment: SettingsDict, attempt: int, is_finished: bool, has_latents: bool) -> None:
        seed = segment_seed(self._seed, segment["index"], attempt)
        record = Record(self._hash, segment, seed, attempt, is_finished, has_latents)
        _write_json(self._file(segment["index"], "json"), asdict(record))

    def _file(self, index: int, suffix: str) -> Path:
        return self.path / f"{index:05d}.{suffix}"

    def _damaged(self, path: Path, index: int, reason: str) -> InputFileError:
        return InputFileError(
            f"{path} cannot be read: {reason}. Delete {self._file(index, 'json')} to make segment {index} again as it "
            "was."
        )


def _as_json(settings: ContinuationSettings) -> SettingsDict:
    described = {
        "format": _FORMAT,
        "seed": settings.seed,
        "join": settings.join,
        "request": dict(settings.request),
    }
    try:
        # Through text, so that what is compared is what a file gives back: lists for tuples, text for keys.
        return json.loads(json.dumps(described, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"The request of a long video cannot be written as JSON: {error}. Use text, finite numbers, booleans, "
            "None, lists and mappings with text keys."
        ) from error


def _compare(folder: Path, made: SettingsDict, now: SettingsDict) -> None:
    before, after = _flat(made), _flat(now)
    changed = [name for name in sorted({*before, *after}) if before.get(name, _ABSENT) != after.get(name, _ABSENT)]
    if changed:
        named = "; ".join(f"{name} was {before.get(name, _ABSENT)}, now {after.get(name, _ABSENT)}" for name in changed)
        raise ConfigError(
            f"The segments in {folder} were made with other settings: {named}. Go back to those, or use another folder."
        )


_ABSENT = "absent"


def _flat(values: SettingsDict) -> dict[str, str]:
    """Top-level values and those of the request, each as JSON, so that 1 and 1.0 and true differ."""
    request = values.get("request")
    named = {f"request.{name}": value for name, value in request.items()} if isinstance(request, dict) else {}
    named |= {name: value for name, value in values.items() if name != "request"}
    return {name: _to_text(value) for name, value in named.items()}


def _to_text(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _write_json(path: Path, value: SettingsDict) -> None:
    with new_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _read_json(path: Path) -> SettingsDict:
    return read_json_object(path, "a record", InputFileError, "Delete it, or start in another folder.")
