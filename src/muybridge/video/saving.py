"""From a path to the writer of its format."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from muybridge.errors import ConfigError, ShapeError
from muybridge.video.atomic import (
    check_folder_above,
    check_replaceable_file,
    check_replaceable_folder,
    new_file,
    new_folder,
)
from muybridge.video.gif import write_gif
from muybridge.video.mp4 import write_mp4
from muybridge.video.png import write_png_folder
from muybridge.video.request import request_to_text
from muybridge.video.webp import write_webp

AnyPath = str | os.PathLike[str]


@dataclass(frozen=True)
class _Format:
    write: Callable[[Path, npt.NDArray[np.uint8], float, str | None], None]
    max_side: int
    max_fps: float
    is_folder: bool = False


_FORMATS = {
    ".gif": _Format(write_gif, max_side=65535, max_fps=100),
    ".mp4": _Format(write_mp4, max_side=16384, max_fps=1000),
    ".png": _Format(write_png_folder, max_side=2**31 - 1, max_fps=1000, is_folder=True),
    ".webp": _Format(write_webp, max_side=16383, max_fps=1000),
}


def check_writable(path: AnyPath) -> None:
    """Whether a video could be saved at `path`, to be asked before the long work.

    Raises:
        ConfigError: a suffix that is not known.
        OutputError: the folder is missing or takes no files, or something is in the way that is not replaced.
    """
    target, suffix = destination(path)
    check_folder_above(target)
    if _FORMATS[suffix].is_folder:
        check_replaceable_folder(target)
    else:
        check_replaceable_file(target)


def save_frames(path: AnyPath, frames: npt.NDArray[np.uint8], fps: float, request: Mapping[str, Any] | None) -> Path:
    """See `Video.save`."""
    target, suffix = destination(path)
    kind = _FORMATS[suffix]
    _check_limits(suffix, frames, fps)
    comment = None if request is None else request_to_text(request)
    check_writable(path)
    with (new_folder if kind.is_folder else new_file)(target) as temporary:
        kind.write(temporary, frames, fps, comment)
    return target


def destination(path: AnyPath) -> tuple[Path, str]:
    """The file or folder that saving at `path` would write, and the suffix of its format.

    Raises:
        ConfigError: a suffix that is not known.
    """
    text = os.fspath(path)
    target = Path(text)
    if text.endswith(("/", os.sep)) or not target.suffix:
        return target, ".png"
    suffix = target.suffix.lower()
    if suffix not in _FORMATS:
        raise ConfigError(
            f"{text} has the suffix {target.suffix!r}; videos are written as {', '.join(_FORMATS)}. Use one of these, "
            "or end the path in / for a folder of png pictures."
        )
    return (target.with_suffix("") if _FORMATS[suffix].is_folder else target), suffix


def _check_limits(suffix: str, frames: npt.NDArray[np.uint8], fps: float) -> None:
    kind = _FORMATS[suffix]
    height, width = frames.shape[1:3]
    if max(height, width) > kind.max_side:
        raise ShapeError(
            f"A {suffix} holds at most {kind.max_side} pixels a side; given {width}x{height}. Save as .png instead."
        )
    if fps > kind.max_fps:
        raise ConfigError(
            f"A {suffix} holds at most {kind.max_fps:g} frames per second; given {fps:g}. Lower fps or save as .mp4."
        )
