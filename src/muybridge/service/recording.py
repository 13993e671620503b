"""What a file says about how it was made, beside what the pipeline knows: the files of the request."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from muybridge.errors import ConfigError, InputFileError
from muybridge.service.requests import GenerateRequest
from muybridge.video.picture_folder import numbered_pictures

DIGESTS = "inputs"
"""Where a recorded request has the digests of its input files, by path."""
_PARTS = ("keyframe_control", "sketch_control")
_SHOWN = 100  # letters of a name in messages: one in a damaged file may have any number


def recorded_settings(request: GenerateRequest, made: Mapping[str, Any], digests: Mapping[str, str]) -> dict[str, Any]:
    """The request that travels in a video: what the pipeline says it did, and what it was given as files.

    Args:
        request: that was carried out.
        made: the pipeline's own record, whose values come first. What it calls unrecorded and the request names is
            recorded after all.
        digests: of its files when they were opened, see `input_digests`.
    """
    asked = request.model_dump(exclude_none=True, exclude={"fit"})  # which became width and height
    said = {name: value for name, value in made.items() if value is not None}
    named = {*asked, *(f"another {part}" for part in _PARTS if part in asked)}
    settings = {**made, **asked, **said}
    settings["unrecorded"] = [each for each in made.get("unrecorded", ()) if each not in named]
    return {**settings, DIGESTS: dict(digests)} if digests else settings


def input_digests(request: GenerateRequest) -> dict[str, str]:
    """SHA-256 of the pictures, videos, folders of pictures and embeddings of a request, by path; missing ones not.

    That of a folder is of the names and digests of the numbered pictures in it, which are all that is read of one.

    Raises:
        InputFileError: one that cannot be read.
    """
    files = [*(request.keyframes or {}).values(), *(request.sketches or {}).values(), *(request.image_prompt or ())]
    files += [file for file in (request.init_video, request.mask) if file is not None]
    files += [control.frames for control in request.controls or ()]
    files += [file for file in request.embeddings or () if Path(file).is_file()]
    return {file: digest for file in files if (digest := _digest(file)) is not None}


def check_inputs(request: GenerateRequest, embedded: Mapping[str, Any]) -> None:
    """Whether the files of a repeated request are still those that the video was made from.

    Raises:
        ConfigError: one is another now; names it. One that is missing is found when it is opened.
        InputFileError: one that cannot be read.
    """
    before = embedded.get(DIGESTS)
    if not isinstance(before, Mapping):
        return
    for file, digest in input_digests(request).items():
        if before.get(file, digest) != digest:
            raise ConfigError(
                f"{file} is not the file any more that the video was made from. Put that one in its place; to use the "
                "new one, name it under another path."
            )


def _digest(name: str) -> str | None:
    path = Path(name)
    try:
        if path.suffix.lower() == ".png" and not path.exists():
            path = path.with_suffix("")  # the folder that saving at that name makes, and that is read by it
        if path.is_dir():
            pictures = sorted(numbered_pictures(path)[0])
            listed = "".join(f"{each.name} {_digest_of_file(each)}\n" for each in pictures)
            return hashlib.sha256(listed.encode()).hexdigest()
        return _digest_of_file(path) if path.is_file() else None
    except OSError as error:
        shown = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}..."
        raise InputFileError(
            f"{shown} cannot be read ({error.strerror or error}). See to it that it can, or name another file."
        ) from error


def _digest_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
