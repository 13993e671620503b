"""From a path to the format of the file that is to be there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from muybridge.errors import ConfigError
from muybridge.files.atomic import check_folder_above, check_replaceable_file, check_replaceable_folder
from muybridge.video.encoding import OpenEncoder, collected
from muybridge.video.gif import write_gif
from muybridge.video.mp4 import open_mp4
from muybridge.video.png import open_png_folder
from muybridge.video.webp import write_webp

AnyPath = str | os.PathLike[str]


@dataclass(frozen=True)
class Format:
    """How a kind of file is written and what it can hold.

    Attributes:
        open: its encoder.
        max_side: largest height or width.
        max_fps: highest frame rate.
        is_folder: whether it is a folder of pictures.
        needs_all: whether it is written only once all frames are there.
    """

    open: OpenEncoder
    max_side: int
    max_fps: float
    is_folder: bool = False
    needs_all: bool = False


FORMATS = {
    ".gif": Format(collected(write_gif), max_side=65535, max_fps=100, needs_all=True),
    ".mp4": Format(open_mp4, max_side=16384, max_fps=1000),
    ".png": Format(open_png_folder, max_side=2**31 - 1, max_fps=1000, is_folder=True),
    ".webp": Format(collected(write_webp), max_side=16383, max_fps=1000, needs_all=True),
}


def check_writable(path: AnyPath) -> None:
    """Whether a video could be saved at `path`, to be asked before the long work.

    Raises:
        ConfigError: a suffix that is not known.
        OutputError: the folder is missing or takes no files, or something is in the way that is not replaced.
    """
    target, suffix = destination(path)
    check_folder_above(target)
    if FORMATS[suffix].is_folder:
        check_replaceable_folder(target)
    else:
        check_replaceable_file(target)


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
    if suffix not in FORMATS:
        raise ConfigError(
            f"{text} has the suffix {target.suffix!r}; videos are written as {', '.join(FORMATS)}. Use one of these, "
            "or end the path in / for a folder of png pictures."
        )
    return (target.with_suffix("") if FORMATS[suffix].is_folder else target), suffix
