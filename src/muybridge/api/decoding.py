"""Files of others, decoded in a process of their own: what they take of memory, or end, is not the server's."""

from __future__ import annotations

import json
import logging
import threading
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from muybridge.api.errors import ApiError
from muybridge.api.media import Media, examine, known_kind
from muybridge.api.settings import Limits
from muybridge.errors import MuybridgeError, OutputError
from muybridge.files.atomic import output_error
from muybridge.jobs.line_process import LineProcess
from muybridge.types import SettingsDict

_log = logging.getLogger(__name__)
_START_S, _ANSWER_S = 60.0, 120.0
_MODULE = "muybridge.api.decoding_process"
_FASTEST = 50.0
"""Frames per second of an animation; browsers slow down what is faster."""


class Decoder(Protocol):
    """Reads files. All raise ApiError for one that cannot be read."""

    def examine(self, path: Path, name: str, limits: Limits) -> Media:
        """What a file is; see `media.examine`."""
        ...

    def settings_in(self, path: Path) -> SettingsDict | None:
        """The record of its making that a file carries, None where it carries none."""
        ...

    def animate(self, source: Path, target: Path) -> None:
        """Write a video as the animation that `target` ends like, with its record."""
        ...

    def first_frame(self, source: Path, target: Path) -> None:
        """Write the first frame of a video as a PNG."""
        ...

    def close(self) -> None:
        """Read nothing more."""
        ...


class DecoderHere:
    """Reads files in this process."""

    def examine(self, path: Path, name: str, limits: Limits) -> Media:
        """See `Decoder`."""
        return examine(path, name, limits)

    def settings_in(self, path: Path) -> SettingsDict | None:
        """See `Decoder`."""
        from muybridge.video.reading import read_request

        if known_kind(path) is None:
            raise ApiError(400, "file: is no mp4, webp, gif or png.", "input_unreadable", "file")
        try:
            return read_request(path)
        except MuybridgeError as error:
            said = str(error).replace(str(path), "file")
            raise ApiError(400, said, "input_unreadable", "file") from error

    def animate(self, source: Path, target: Path) -> None:
        """See `Decoder`."""
        from muybridge.video import Video, read_video

        video = read_video(source)
        Video(video.frames, min(video.fps, _FASTEST), video.request).save(target)

    def first_frame(self, source: Path, target: Path) -> None:
        """See `Decoder`."""
        from PIL import Image

        from muybridge.video.reading import read_frames

        with warnings.catch_warnings(action="ignore"):
            frames = next(read_frames(source, piece_frames=1))
        Image.fromarray(frames[0]).save(target, "PNG", compress_level=1)

    def close(self) -> None:
        """See `Decoder`."""


class DecodingProcess:
    """Reads files in another process, one after the other; a file that ends it, or takes for ever, costs itself."""

    def __init__(self) -> None:
        """The process is started with the first file."""
        self._asked = LineProcess((_MODULE,), "", _START_S, _ANSWER_S)
        self._lock = threading.Lock()

    def examine(self, path: Path, name: str, limits: Limits) -> Media:
        """See `Decoder`."""
        return Media(**(self._ask("examine", path, name, asdict(limits)) or {}))

    def settings_in(self, path: Path) -> SettingsDict | None:
        """See `Decoder`."""
        return self._ask("settings_in", path)

    def animate(self, source: Path, target: Path) -> None:
        """See `Decoder`."""
        self._ask("animate", source, target)

    def first_frame(self, source: Path, target: Path) -> None:
        """See `Decoder`."""
        self._ask("first_frame", source, target)

    def close(self) -> None:
        """See `Decoder`."""
        self._asked.stop()
        with self._lock:
            self._asked.end()

    def _ask(self, what: str, *arguments: object) -> SettingsDict | None:
        question = json.dumps([what, *(str(each) if isinstance(each, Path) else each for each in arguments)])
        with self._lock:
            line = self._asked.ask(question)
            try:
                answer = None if line is None else json.loads(line)
            except ValueError as error:
                self._asked.end()  # what comes after it might be of another question
                raise ApiError(500, "The service could not read the file. Try again.") from error
        if answer is None:
            raise ApiError(400, "The file could not be read: it takes too long, or too much.", "input_unreadable")
        if "full" in answer:
            raise OutputError(answer["full"])
        if "refused" in answer:
            raise ApiError(*answer["refused"])
        return answer["value"]


def answer(question: str, decoder: Decoder) -> str:
    """The answer of the process to a question, both a line of JSON."""
    what, *given = json.loads(question)
    calls: dict[str, Callable[..., object]] = {
        "examine": lambda path, name, limits: asdict(decoder.examine(Path(path), name, Limits(**limits))),
        "settings_in": lambda path: decoder.settings_in(Path(path)),
        "animate": lambda source, target: decoder.animate(Path(source), Path(target)),
        "first_frame": lambda source, target: decoder.first_frame(Path(source), Path(target)),
    }
    try:
        found: SettingsDict = {"value": calls[what](*given)}
    except ApiError as error:
        found = {"refused": [error.status, str(error), error.code, error.param]}
    except OutputError as error:
        found = {"full": str(error)}
    except MuybridgeError as error:
        found = {"refused": [400, str(error), "input_unreadable", None]}
    except MemoryError:
        found = {"refused": [413, "The file takes more memory than there is.", "too_large", None]}
    except OSError as error:
        found = {"full": str(output_error(Path(given[-1 if len(given) == 2 else 0]), error))}
    except Exception:  # a decoder may raise anything; the next file is another one
        _log.exception("A file could not be read")
        found = {"refused": [400, "The file cannot be read: it is damaged.", "input_unreadable", None]}
    return json.dumps(found)
