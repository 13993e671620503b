"""Videos in whatever container FFmpeg reads, as they are meant to be seen."""

from __future__ import annotations

import contextlib
import math
import re
import struct
import warnings
from collections.abc import Generator, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple, cast

import numpy as np

from muybridge.errors import InputFileError
from muybridge.types import SettingsDict
from muybridge.video.decoded import LazyFrame, Traits
from muybridge.video.encoding import Frames
from muybridge.video.media import MediaFile
from muybridge.video.mp4 import exact_chroma, true_size
from muybridge.video.opened import Opened
from muybridge.video.picture import transparency_error
from muybridge.video.timeline import Timing, measure

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.codeccontext import VideoCodecContext
    from av.video.reformatter import VideoReformatter
    from av.video.stream import VideoStream

# Real files only: a playlist or concatenation would make FFmpeg open what it names. Those of sound are there to be
# refused in words that say so.
_CONTAINERS = ",".join(
    (
        *("mov", "matroska", "avi", "mpegts", "mpeg", "mpegvideo", "asf", "flv", "ogg", "mxf", "ivf", "h264", "hevc"),
        *("mp3", "wav", "flac", "aac"),
    )
)
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""FFmpeg's own decoders of these leave transparency out."""
_OPAQUE = 250  # what compression leaves of 255
_MAX_PIXEL_ASPECT = 8
_HIGH_RANGES = {16: "PQ", 18: "HLG"}
_CLOCK = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")
_MOST_MISSING = 0.05


@contextlib.contextmanager
def open_container(path: MediaFile) -> Iterator[Opened]:
    """Open a video file; its packets are looked through once, without decoding, for their times."""
    with path.open("rb") as file, open_input(file) as container:
        timing = _timing(container, picture_track(container))
    with path.open("rb") as file, open_input(file) as container:
        yield Opened(timing, upright_frames(container, path), container.metadata.get("comment"))


def read_container_comment(path: Path) -> str | None:
    """The comment, without decoding."""
    with path.open("rb") as file, open_input(file) as container:
        return container.metadata.get("comment")


def open_input(file: IO[bytes]) -> InputContainer:
    """Open a file for FFmpeg, that nothing else is opened for."""
    import av

    return av.open(file, "r", options={"format_whitelist": _CONTAINERS})


def picture_track(container: InputContainer) -> VideoStream:
    """The pictures that a player shows.

    Raises:
        InputFileError: there are none, or none that can be decoded.
    """
    from av.stream import Disposition

    beside = Disposition.attached_pic | Disposition.timed_thumbnails
    tracks = [stream for stream in container.streams.video if not stream.disposition & beside]
    if not tracks:
        what = "It holds sound and no moving pictures." if container.streams.audio else "It has no picture track."
        raise InputFileError(f"{what} Give one that shows something.", "no-video")
    track = next((stream for stream in tracks if stream.disposition & Disposition.default), tracks[0])
    if getattr(track, "codec_context", None) is None:
        raise InputFileError("There is no decoder here for its pictures. Convert it to an mp4 of H.264.")
    return track


def _timing(container: InputContainer, stream: VideoStream) -> Timing:
    packets = [packet for packet in container.demux(stream) if packet.size]
    if container.format.name.startswith("mov") and len(packets) < stream.frames:
        raise InputFileError(
            f"It is cut short: {len(packets)} of its {stream.frames} frames are there. Copy it again from where it "
            "came from.",
            "broken-tail",
        )
    rate = stream.average_rate or stream.guessed_rate
    declared = float(rate) if rate else None
    shown = [packet for packet in packets if packet.pts is not None and not packet.is_discard]
    if not shown or stream.time_base is None:
        return measure([], 0.0, 0.0, declared)
    unit = float(stream.time_base)
    last = max(shown, key=lambda packet: packet.pts or 0)
    timing = measure([(packet.pts or 0) * unit for packet in shown], (last.duration or 0) * unit, unit, declared)
    _check_whole(container, stream, shown, timing.last_s)
    return timing


def _check_whole(container: InputContainer, stream: VideoStream, shown: list[Packet], last_s: float) -> None:
    """Raises InputFileError where the file says that it is longer than it is."""
    said = _said_duration(container, stream)
    unit = float(stream.time_base or 0)
    times = [(packet.pts or 0) * unit for packet in shown]
    found = max(times) - min(*times, 0.0) + last_s
    if said is not None and said - found > _MOST_MISSING * said + 2 * last_s:
        raise InputFileError(
            f"It is cut short: of {said:.3g} s only {found:.3g} s are there. Copy it again, or save what is there as a "
            "new file.",
            "broken-tail",
        )


def _said_duration(container: InputContainer, stream: VideoStream) -> float | None:
    if clock := _CLOCK.match(stream.metadata.get("DURATION", "")):
        return 3600 * int(clock[1]) + 60 * int(clock[2]) + float(clock[3])
    if container.format.name in ("avi", "asf") and stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if container.format.name in ("matroska,webm", "flv") and len(container.streams) == 1 and container.duration:
        return container.duration / 1e6
    return None


class _Look(NamedTuple):
    """What all frames of a file are converted by."""

    crop: tuple[tuple[int, int] | None, int, int]
    pixel_aspect: Fraction
    reformatter: VideoReformatter  # one for all frames: preparing it takes as long as converting a small one


def upright_frames(
    container: InputContainer, path: MediaFile, is_strict: bool = True
) -> Generator[LazyFrame, None, None]:
    """Frames from where the container stands, as they are meant to be seen.

    Args:
        container: that is read.
        path: stands for it in warnings.
        is_strict: whether one that is damaged ends it; otherwise only converting that one fails.
    """
    from av.video.reformatter import VideoReformatter

    stream = picture_track(container)
    aspect = stream.sample_aspect_ratio
    square = aspect if aspect and aspect > 0 else Fraction(1)
    look = _Look(true_size(container.metadata), square, VideoReformatter())
    if not 1 / _MAX_PIXEL_ASPECT <= look.pixel_aspect <= _MAX_PIXEL_ASPECT:
        raise InputFileError(
            f"Its pixels are said to be {float(look.pixel_aspect):g} times as wide as high. Mend that."
        )
    unit = float(stream.time_base or 0)
    for index, frame in enumerate(_decoded(container, stream)):
        if frame.is_corrupt and is_strict:
            raise _damage(index)
        traits, turn = _traits(frame, look)
        if index == 0:
            _say(path, traits)
        height, width = _size(frame, look)
        if turn.transposed:
            height, width = width, height
        convert = partial(_pixels, frame, index, look, turn)
        scale = None if look.crop[0] == (frame.height, frame.width) else partial(_scaled, frame, index, look, turn)
        start_s, stays_s = (frame.pts or 0) * unit, (frame.duration or 0) * unit
        yield LazyFrame(convert, start_s, None, (height, width), traits, stays_s, scale)


def _damage(index: int) -> InputFileError:
    return InputFileError(f"Frame {index} is damaged. Copy the file again from where it came from.", "damaged")


def _decoded(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """All frames in the order of display; those of WebM with their transparency."""
    import av
    from av.codec.codec import UnknownCodecError

    decoder = _ALPHA_DECODERS.get(stream.codec_context.name)
    if stream.metadata.get("alpha_mode") != "1" or decoder is None:
        yield from container.decode(stream)
        return
    try:
        context = cast("VideoCodecContext", av.CodecContext.create(decoder, "r"))
    except UnknownCodecError:  # FFmpeg may have been built without
        raise transparency_error("It") from None
    for packet in container.demux(stream):
        yield from context.decode(packet)


class _Turn(NamedTuple):
    """What brings a picture upright: rows and columns exchanged, then mirrored."""

    transposed: bool = False
    left_right: bool = False
    upside_down: bool = False

    def applied(self, pixels: Frames) -> Frames:
        if self.transposed:
            pixels = pixels.swapaxes(0, 1)
        if self.left_right:
            pixels = pixels[:, ::-1]
        return pixels[::-1] if self.upside_down else pixels

    @property
    def is_mirrored(self) -> bool:
        return (self.transposed + self.left_right + self.upside_down) % 2 == 1

    @property
    def rotation(self) -> int:
        """Degrees clockwise; where it is mirrored too, those after left and right were exchanged."""
        if self.transposed:
            return 90 if self.left_right else 270
        return 180 if self.upside_down else 0


def _traits(frame: VideoFrame, look: _Look) -> tuple[Traits, _Turn]:
    turn = _turn(frame)
    return (
        Traits(
            turn.rotation,
            turn.is_mirrored,
            float(look.pixel_aspect),
            _has_alpha(frame),
            frame.interlaced_frame,
            _HIGH_RANGES.get(int(frame.color_trc)),
        ),
        turn,
    )


def _say(path: MediaFile, traits: Traits) -> None:
    if traits.is_interlaced:
        warnings.warn(
            f"{path} is interlaced: where something moves, every other line shows another moment. Deinterlace it "
            "first, as with ffmpeg's filter bwdif.",
            stacklevel=2,
        )
    if traits.high_range:
        warnings.warn(
            f"{path} is of high dynamic range ({traits.high_range}); read as it is, its colours look pale or dark. "
            "Convert it to standard range first.",
            stacklevel=2,
        )


def _turn(frame: VideoFrame) -> _Turn:
    """From the display matrix, in which x' = a x + c y and y' = b x + d y, with y downwards."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return _Turn()
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(data))
    straight, across = max(abs(a), abs(d)), max(abs(b), abs(c))
    if min(straight, across) > 0.01 * max(straight, across):
        angle = math.degrees(math.atan2(b, a)) % 360
        raise InputFileError(f"It is to be shown turned by {angle:.0f} degrees; only quarters can be. Save it upright.")
    if across > straight:
        return _Turn(True, c < 0, b < 0)
    return _Turn(False, a < 0, d < 0)


def _has_alpha(frame: VideoFrame) -> bool:
    return frame.format.has_palette or any(component.is_alpha for component in frame.format.components)


def _size(frame: VideoFrame, look: _Look) -> tuple[int, int]:
    """Height and width, cropped where `open_mp4` padded them, and with square pixels: the shorter side is stretched."""
    padded, height, width = look.crop
    if (frame.height, frame.width) != padded:
        height, width = frame.height, frame.width
    aspect = look.pixel_aspect
    return (height, round(width * aspect)) if aspect >= 1 else (round(height / aspect), width)


def _pixels(frame: VideoFrame, index: int, look: _Look, turn: _Turn) -> Frames:
    return _converted(frame, index, look, turn, _size(frame, look))


def _scaled(frame: VideoFrame, index: int, look: _Look, turn: _Turn, height: int, width: int) -> Frames:
    """At a height and width, which are those of the upright picture."""
    return _converted(frame, index, look, turn, (width, height) if turn.transposed else (height, width))


def _converted(frame: VideoFrame, index: int, look: _Look, turn: _Turn, size: tuple[int, int]) -> Frames:
    if frame.is_corrupt:
        raise _damage(index)
    height, width = size
    converted: SettingsDict = {"format": "rgba" if _has_alpha(frame) else "rgb24", "interpolation": exact_chroma()}
    if look.pixel_aspect != 1 or size != _size(frame, look):
        converted |= {"height": height, "width": width}
    if _is_untold_hd(frame):
        from av.video.reformatter import Colorspace

        converted["src_colorspace"] = Colorspace.ITU709
    pixels = np.asarray(look.reformatter.reformat(frame, **converted).to_ndarray(), np.uint8)
    if pixels.shape[2] == 4:
        if pixels[..., 3].min() < _OPAQUE:
            raise transparency_error(f"Frame {index}")
        pixels = pixels[..., :3]
    return np.ascontiguousarray(turn.applied(pixels[:height, :width]))


def _is_untold_hd(frame: VideoFrame) -> bool:
    """Whether the file does not say which colours it means, and is as large as those that mean the ones of BT.709."""
    from av.video.reformatter import ColorPrimaries

    is_untold = int(frame.colorspace) == int(ColorPrimaries.UNSPECIFIED)
    return is_untold and not frame.format.is_rgb and (frame.width >= 1280 or frame.height > 576)
