"""Parts of video files as files of their own."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from muybridge.errors import InputFileError, OutputError
from muybridge.video.container import open_input, picture_track
from muybridge.video.decoded import reading
from muybridge.video.encoding import Frames
from muybridge.video.media import MediaFile
from muybridge.video.mp4 import exact_chroma
from muybridge.video.raw_frames import RawFrames

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

MOST_MISSING = 4
"""Frames at the end that a cut without loss may leave out, as frames after them are needed to decode them."""
_NEAR_S = 2e-3
_FAR = 2**62
_MOST_AHEAD = 32
"""Packets that may be coded before one that is shown earlier: twice as many as H.264 and HEVC allow."""
_CLOCK = 90_000
_QUALITY = "16"


def copy_part(source: MediaFile, target: Path, start_s: float, end_s: float | None) -> int:
    """Copy what is coded from the keyframe before a part on; an edit list says where the part begins.

    Frames are those of the source, bit for bit, which is checked by decoding both. Sound is left out.

    Args:
        source: a video file.
        target: an mp4 file to be; what is there when this fails is of no use.
        start_s: of the first frame, in seconds from the source's first one.
        end_s: the first frame from then on is left out; None for all.

    Returns:
        How many frames the target shows: as many as the part has, or up to `MOST_MISSING` less.

    Raises:
        InputFileError: this cannot be done to the file (`fault` is `not-copied`), or it cannot be read.
    """
    import av

    try:
        with _opened(source) as file, open_input(file) as container:
            _copy(container, target, start_s, end_s)
    except (av.FFmpegError, ValueError) as error:
        raise InputFileError(f"What is coded cannot be put into an mp4: {error}.", "not-copied") from error
    with reading(source):
        return _compared(source, target, start_s, end_s)


def _opened(source: MediaFile) -> IO[bytes]:
    with reading(source):
        return source.open("rb")


def _copy(container: InputContainer, target: Path, start_s: float, end_s: float | None) -> None:
    import av

    stream = picture_track(container)
    if stream.time_base is None or stream.start_time is None:
        raise InputFileError("It does not say when its frames are shown.", "no-times")
    unit = float(stream.time_base)
    first = stream.start_time + round(start_s / unit)
    last = _FAR if end_s is None else stream.start_time + round(end_s / unit)
    if start_s > 0:
        container.seek(first, stream=stream)
    found = list(_packets_until(container, stream, last))
    if start_s > 0 and found and (found[0].pts or 0) > first and found[0].dts is not None:
        container.seek(found[0].dts - 1, stream=stream)  # its first frames belong to the keyframe before
        found = list(_packets_until(container, stream, last))
    packets = _closed(found, last)
    with av.open(f"file:{target}", "w", format="mp4", options={"movflags": "+faststart"}) as out:
        track = out.add_stream_from_template(stream)
        for packet, dts in zip(packets, _decoding_times(packets), strict=True):
            packet.pts, packet.dts = (packet.pts or 0) - first, dts - first
            packet.stream = track
            out.mux(packet)


def _packets_until(container: InputContainer, stream: VideoStream, last: int) -> Iterator[Packet]:
    ahead = 0
    for packet in container.demux(stream):
        if not packet.size:
            continue
        if packet.pts is None:
            raise InputFileError("Not all of its packets are timed.", "not-copied")
        ahead = ahead + 1 if packet.pts >= last else 0
        if ahead > _MOST_AHEAD:
            return
        yield packet


def _decoding_times(packets: list[Packet]) -> list[int]:
    """Times of decoding, which some containers do not note: in order, and none after that of showing."""
    noted = [packet.dts for packet in packets]
    if None not in noted:
        return [dts for dts in noted if dts is not None]
    shown = [packet.pts or 0 for packet in packets]
    in_order = sorted(shown)
    delay = max((early - late for early, late in zip(in_order, shown, strict=True)), default=0)
    return [time - max(delay, 0) for time in in_order]


def _closed(packets: Iterable[Packet], last: int) -> list[Packet]:
    """The longest beginning of which every frame before `last` can be decoded, and that shows none after it.

    Leaving out by time of showing alone would leave frames without those that they refer to.
    """
    packets = list(packets)
    # Of the packets from each on, the earliest time at which one is shown.
    later = list(itertools.accumulate(reversed([packet.pts or 0 for packet in packets]), min, initial=_FAR))[::-1]
    latest, kept = -_FAR, 0
    for count, packet in enumerate(packets, 1):
        latest = max(latest, packet.pts or 0)
        if latest < last and latest < later[count]:
            kept = count
    return packets[:kept]


def _compared(source: MediaFile, target: Path, start_s: float, end_s: float | None) -> int:
    count = 0
    wanted = iter(RawFrames(source, start_s, end_s))
    origin: float | None = None
    for time_s, frame in RawFrames(target):
        expected = next(wanted, None)
        if expected is None:
            raise InputFileError("Its copy shows more than the part.", "not-copied")
        origin = expected[0] if origin is None else origin
        if abs(time_s - (expected[0] - origin)) > _NEAR_S or not _is_equal(frame, expected[1]):
            raise InputFileError(f"Frame {count} of its copy is another one.", "not-copied")
        count += 1
    missing = sum(1 for _ in wanted)
    if not count or missing > MOST_MISSING:
        raise InputFileError(f"Its copy lacks {missing} frames.", "not-copied")
    return count


def _is_equal(one: VideoFrame, other: VideoFrame) -> bool:
    if (one.format.name, one.width, one.height) != (other.format.name, other.width, other.height):
        return False
    return np.array_equal(_pixels(one), _pixels(other))


def _pixels(frame: VideoFrame) -> np.ndarray:
    try:
        return frame.to_ndarray()
    except ValueError:  # of a kind that has no array
        return frame.to_ndarray(format="rgb48le")


def encode_timed(target: Path, frames: Iterable[tuple[float, Frames]]) -> int:
    """Encode frames, `uint8 [h, w, 3]`, as H.264 in mp4, each to be shown at its time; the first one at 0.

    Sides are made even by leaving out a row or column.

    Returns:
        How many frames there were.

    Raises:
        OutputError: the encoder cannot do it.
    """
    import av

    options = {"crf": _QUALITY, "threads": "1", "bf": "0", "mbtree": "0"}  # see `mp4` for why: the same bytes each time
    count, origin = 0, 0.0
    try:
        with av.open(f"file:{target}", "w", format="mp4", options={"movflags": "+faststart"}) as out:
            stream = out.add_stream("libx264", rate=Fraction(30), options=options)
            stream.codec_context.time_base = Fraction(1, _CLOCK)
            for time_s, pixels in frames:
                height, width = (side // 2 * 2 for side in pixels.shape[:2])
                if not count:
                    origin = time_s
                    _describe(stream, height, width)
                frame = _frame(pixels[:height, :width])
                frame.pts, frame.time_base = round((time_s - origin) * _CLOCK), Fraction(1, _CLOCK)
                out.mux(stream.encode(frame))
                count += 1
            out.mux(stream.encode())
    except (av.FFmpegError, ValueError) as error:
        raise OutputError(f"The H.264 encoder failed: {error}.") from error
    return count


def _describe(stream: VideoStream, height: int, width: int) -> None:
    from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

    stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
    context = stream.codec_context
    context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
    context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709


def _frame(pixels: Frames) -> VideoFrame:
    import av
    from av.video.reformatter import ColorRange, Colorspace

    return av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        interpolation=exact_chroma(),
    )
