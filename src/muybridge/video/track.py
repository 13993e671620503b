"""What a video file holds, found out from its packets and its first frame."""

from __future__ import annotations

import contextlib
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from muybridge.errors import InputFileError
from muybridge.video.container import open_input, picture_track
from muybridge.video.decoded import Traits, reading
from muybridge.video.media import MediaFile
from muybridge.video.picture import open_file
from muybridge.video.reading import reader_of

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream


@dataclass(frozen=True)
class Track:
    """The pictures of a file, as they are meant to be seen.

    Attributes:
        num_frames: that are shown, by the file's packets.
        duration_s: from the time of the first frame until the last one goes; None where the file times nothing.
        height: in pixels, upright.
        width: likewise.
        fps: frames per second; None where the file has no rate.
        is_variable: whether frames stay for different times.
        traits: what a decoded picture was.
    """

    num_frames: int
    duration_s: float | None
    height: int
    width: int
    fps: float | None
    is_variable: bool
    traits: Traits


def read_track(source: MediaFile, max_pixels: int | None = None) -> Track:
    """Look a file through without decoding more than one frame.

    Args:
        source: a video file, an animated picture, a picture, or a folder of numbered pictures.
        max_pixels: of a frame; larger ones are refused before anything is decoded.

    Raises:
        InputFileError: it is damaged, cut short, no video, or larger; `fault` says which.
    """
    with reading(source), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they say is among what is returned
        reader = reader_of(source)
        if max_pixels is not None and not (isinstance(source, Path) and source.is_dir()):
            _check_pixels(_container_size(source) if reader.is_container else _size(source), max_pixels)
        with reader.open(source) as opened, contextlib.closing(opened.frames):
            first = next(opened.frames, None)
            if first is None:
                raise InputFileError("It holds no frames.", "no-video")
            height, width = first.size or first.pixels.shape[:2]
            timing = opened.timing
            return Track(
                timing.num_frames or 1,
                timing.duration_s,
                height,
                width,
                timing.fps,
                timing.note is not None,
                first.traits,
            )


@dataclass(frozen=True)
class Soundness:
    """What decoding every packet of a file gave.

    Attributes:
        num_frames: that could be decoded, damaged ones among them.
        num_packets: there are.
        num_bad: packets that could not be decoded, or gave a damaged frame.
    """

    num_frames: int
    num_packets: int
    num_bad: int

    @property
    def bad_share(self) -> float:
        """Share of the packets."""
        return self.num_bad / max(self.num_packets, 1)


def decode_all(source: MediaFile) -> Soundness:
    """Decode every packet of a video file, going on after damaged ones, and keep nothing.

    Raises:
        InputFileError: it is no video file.
    """
    with reading(source), source.open("rb") as file, open_input(file) as container:
        return _decode_all(container, picture_track(container))


def _decode_all(container: InputContainer, stream: VideoStream) -> Soundness:
    import av

    stream.codec_context.thread_type = "NONE"
    frames = packets = bad = 0
    for packet in container.demux(stream):
        packets += bool(packet.size)
        try:
            decoded = packet.decode()
        except av.FFmpegError:
            bad += bool(packet.size)
            continue
        frames += len(decoded)
        bad += sum(frame.is_corrupt for frame in decoded)
    return Soundness(frames, packets, bad)


def _container_size(source: MediaFile) -> tuple[int, int]:
    with source.open("rb") as file, open_input(file) as container:
        context = picture_track(container).codec_context
        return context.height, context.width


def _size(source: MediaFile) -> tuple[int, int]:
    with open_file(source) as image:
        return image.height, image.width


def _check_pixels(size: tuple[int, int], most: int) -> None:
    if math.prod(size) > most:
        raise InputFileError(
            f"Its frames are {size[1]}x{size[0]}, over {most / 1e6:g} million pixels. Scale it down first.", "too-large"
        )
