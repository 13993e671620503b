"""Files of a video: the file itself, and what is made of it when it is first asked for."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import IO

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from muybridge.api.errors import ApiError
from muybridge.jobs.record import Job

TYPES = {
    "video": ("video/mp4", "mp4"),
    "gif": ("image/gif", "gif"),
    "webp": ("image/webp", "webp"),
    "thumbnail": ("image/webp", "webp"),
    "spritesheet": ("image/jpeg", "jpg"),
    "preview": ("image/webp", "webp"),
}
"""Of every variant the type of its content, and the suffix."""
_CHUNK = 1 << 18
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


MADE = ("gif", "webp")
"""Variants that are made of the file of a video when they are first asked for."""
MOST_PIXELS = 60_000_000
"""Of all frames of a video that something is made of, as they are in memory at once."""


def makeable(job: Job) -> list[str]:
    """What can be made of the file of a finished job."""
    pixels = (job.width or 0) * (job.height or 0) * (job.num_frames or 0)
    return list(MADE) if pixels <= MOST_PIXELS else []


def ranged(request: Request, opened: Callable[[], IO[bytes]], size: int, variant: str, name: str) -> Response:
    """A file, or the part of it that a call asks for.

    Args:
        request: the call.
        opened: opens the file, from its beginning.
        size: of the file in bytes.
        variant: one of `TYPES`.
        name: of a download, without suffix; also says whether the file is still the one that a client knows.

    Raises:
        ApiError: a part that there is not (416).
    """
    kind, suffix = TYPES[variant]
    tag = f'"{name}-{variant}-{size}"'
    headers = {
        "accept-ranges": "bytes",
        "cache-control": "private, no-cache",
        "content-disposition": f'inline; filename="{name}.{suffix}"',
        "etag": tag,
    }
    if tag in [each.strip() for each in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers=headers)
    start, end = _asked_range(request, size, tag)
    status = 200
    if (start, end) != (0, size):
        status = 206
        headers["content-range"] = f"bytes {start}-{end - 1}/{size}"
    headers["content-length"] = str(end - start)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=kind)
    return StreamingResponse(_chunks(opened, start, end), status, headers, kind)


def _asked_range(request: Request, size: int, tag: str) -> tuple[int, int]:
    """From where to where; all of it where no part is asked for, or several, or one of another file."""
    match = _RANGE.fullmatch(request.headers.get("range", "").strip())
    if match is None or request.headers.get("if-range", tag) != tag or not (match[1] or match[2]):
        return 0, size
    if match[1]:
        start, end = int(match[1]), min(size, int(match[2]) + 1) if match[2] else size
    else:
        start, end = max(0, size - int(match[2])), size
    if start >= size or start >= end:
        raise ApiError(
            416, f"The file has {size} bytes.", "invalid_value", headers={"content-range": f"bytes */{size}"}
        )
    return start, end


def _chunks(opened: Callable[[], IO[bytes]], start: int, end: int) -> Iterator[bytes]:
    with contextlib.closing(opened()) as file:
        file.seek(start)
        left = end - start
        while left > 0 and (piece := file.read(min(_CHUNK, left))):
            left -= len(piece)
            yield piece
