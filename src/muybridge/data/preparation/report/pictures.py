"""Clips as small pictures in a page: three frames beside each other, as data that needs no file."""

from __future__ import annotations

import base64
import io

from PIL import Image

from muybridge.data.preparation.frames import frames_of
from muybridge.data.record import Record
from muybridge.errors import MuybridgeError

_FRAMES = 3
_SIDE = 160
_GAP = 3
_QUALITY = 60


def clip_picture(record: Record) -> str | None:
    """An address with the picture in it; None where the file can no longer be read."""
    try:
        frames = frames_of(record, _FRAMES, _SIDE)
    except MuybridgeError:
        return None
    except OSError:  # a file that may not be opened
        return None
    width, height = (max(size) for size in zip(*(frame.size for frame in frames), strict=True))
    sheet = Image.new("RGBA", (len(frames) * (width + _GAP) - _GAP, height))
    for place, frame in enumerate(frames):
        sheet.paste(frame, (place * (width + _GAP), 0))
    file = io.BytesIO()
    sheet.save(file, "WEBP", quality=_QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
