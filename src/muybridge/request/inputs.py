"""The files of a request: each is opened once, before a model is loaded, and known by its digest."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from PIL import Image

from muybridge.request.digests import digest_of
from muybridge.request.pictures import Picture, open_picture
from muybridge.video import Video, read_video

T = TypeVar("T")
SourceVideo = Video | np.ndarray
"""A video, or `uint8 [f, h, w, 3]`."""


class Inputs:
    """What a request is made from, opened; also what was read for it besides, networks for example.

    Attributes:
        digests: SHA-256 of every file opened, by the path that names it.
    """

    def __init__(self) -> None:
        """Nothing is open yet."""
        self.digests: dict[str, str] = {}
        self._opened: dict[Hashable, object] = {}
        self._asked: dict[str, int | None] = {}

    def picture(self, picture: Picture, name: str) -> Image.Image:
        """A picture, from wherever it is given; `name` stands for it in messages. Raises as `open_picture`."""
        if not isinstance(picture, (str, os.PathLike)):
            return open_picture(picture, name)
        return self.once(("picture", os.fspath(picture)), lambda: open_picture(picture, name), picture)

    def video(self, video: object, num_frames: int | None) -> Any:
        """A video file or folder of pictures, of which `num_frames` are read; anything in memory as it is.

        Raises:
            InputFileError: it cannot be read.
        """
        if not isinstance(video, (str, os.PathLike)):
            return video
        path, name = Path(video), os.fspath(video)
        before = self._asked.get(name, -1)
        if before is not None and (before < 0 or (num_frames is not None and num_frames > before)):
            self._opened.pop(("video", name), None)
            self._asked[name] = num_frames
        return self.once(("video", name), lambda: read_video(path, num_frames), video)

    def once(self, key: Hashable, read: Callable[[], T], file: str | os.PathLike[str] | None = None) -> T:
        """What `read` gives, at the first time that it is asked for; `file` is noted with its digest."""
        if key not in self._opened:
            self._opened[key] = read()
            if file is not None:
                self.note(file)
        return cast("T", self._opened[key])

    def note(self, file: str | os.PathLike[str]) -> None:
        """Note the digest of a file that is read elsewhere.

        Raises:
            InputFileError: it cannot be read.
        """
        if (digest := digest_of(os.fspath(file))) is not None:
            self.digests[os.fspath(file)] = digest
