"""Clips as small pictures in a page: three frames beside each other, as data that needs no file."""

from __future__ import annotations

import base64
import io
from contextlib import suppress
from pathlib import Path

from PIL import Image

from muybridge.data.crop import id_with_crop
from muybridge.data.preparation.spread_frames import spread_frames
from muybridge.data.record import Record
from muybridge.errors import MuybridgeError, OutputError
from muybridge.files.atomic import new_file

_FRAMES = 3
_SIDE = 160
_GAP = 3
_QUALITY = 60
_WEBP = b"RIFF"


class ClipPictures:
    """Makes pictures of clips, and keeps them in a folder, so that the next report need not decode anything."""

    def __init__(self, folder: Path) -> None:
        """Keep them in a folder, which is made with the first one; where it takes no files they are made each time."""
        self._folder = folder

    def address(self, record: Record) -> str | None:
        """An address with the picture in it; None where the file can no longer be read."""
        path = self._folder / id_with_crop(
            record.id, record.extra
        )  # without a suffix, as folders of pictures may be sets
        content = _known(path)
        if content is None:
            content = _drawn(record)
            if content is None:
                return None
            with suppress(OutputError, OSError):
                self._folder.mkdir(exist_ok=True)
                with new_file(path) as temporary:
                    temporary.write_bytes(content)
        return f"data:image/webp;base64,{base64.b64encode(content).decode()}"


def _known(path: Path) -> bytes | None:
    try:
        content = path.read_bytes()
    except (OSError, ValueError):  # an id that is no file name
        return None
    return content if content.startswith(_WEBP) else None


def _drawn(record: Record) -> bytes | None:
    try:
        frames = spread_frames(record, _FRAMES, _SIDE)
    except (MuybridgeError, OSError):
        return None
    width, height = (max(size) for size in zip(*(frame.size for frame in frames), strict=True))
    sheet = Image.new("RGBA", (len(frames) * (width + _GAP) - _GAP, height))
    for place, frame in enumerate(frames):
        sheet.paste(frame, (place * (width + _GAP), 0))
    file = io.BytesIO()
    sheet.save(file, "WEBP", quality=_QUALITY)
    return file.getvalue()
