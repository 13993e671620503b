"""The result of every pipeline, a `Video`, and its files: mp4, gif, webp and folders of numbered png pictures."""

from __future__ import annotations

from muybridge.video.formats import check_writable
from muybridge.video.reading import VideoFacts, read_facts, read_frames, read_request, read_video
from muybridge.video.saving import VideoWriter, save_stream
from muybridge.video.value import Video

__all__ = [
    "Video",
    "VideoFacts",
    "VideoWriter",
    "check_writable",
    "read_facts",
    "read_frames",
    "read_request",
    "read_video",
    "save_stream",
]
