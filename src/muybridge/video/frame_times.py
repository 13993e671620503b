"""When the frames of a video are shown, found out without decoding where that can be."""

from __future__ import annotations

from muybridge.errors import InputFileError
from muybridge.video.container import open_input, picture_track
from muybridge.video.decoded import reading
from muybridge.video.media import MediaFile
from muybridge.video.moments import timed_frames
from muybridge.video.reading import reader_of


def frame_times(source: MediaFile, fps: float | None = None) -> list[float]:
    """Seconds from the first frame, of all frames, in ascending order.

    Args:
        source: a video file, whose packets are looked through, an animated picture, or a folder of numbered pictures.
        fps: the rate of a folder of pictures that notes none.

    Raises:
        InputFileError: it is no video, or does not time its frames.
    """
    with reading(source):
        if not reader_of(source).is_container:
            return [frame.start_s for frame in timed_frames(source, 0.0, fps)]
        with source.open("rb") as file, open_input(file) as container:
            stream = picture_track(container)
            if stream.time_base is None or stream.start_time is None:
                raise InputFileError("It does not say when its frames are shown. Save it anew, as mp4.", "no-times")
            first, unit = stream.start_time, stream.time_base
            shown = [packet.pts for packet in container.demux(stream) if packet.size and not packet.is_discard]
            return sorted(float((pts - first) * unit) for pts in shown if pts is not None)
