"""The result of every pipeline, a `Video`, and its files: mp4, gif, webp and folders of numbered png pictures."""

from __future__ import annotations

from muybridge.video.reading import read_request, read_video
from muybridge.video.saving import check_writable
from muybridge.video.value import Video

__all__ = ["Video", "check_writable", "read_request", "read_video"]
