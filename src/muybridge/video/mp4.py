"""H.264 in mp4, and reading of whatever video FFmpeg decodes."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from muybridge.errors import InputFileError, OutputError
from muybridge.video.decoded import Decoded, stack_frames
from muybridge.video.encoding import FileSettings, Frames, TakeFrames

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer, OutputContainer
    from av.video.stream import VideoStream

# The same frames must give the same bytes. x264 notes its number of threads in the file, hence one; and with B-frames
# its rate control varies from run to run where a side is no multiple of 16 (measured with x264 165), hence none.
_ENCODER = {"crf": "12", "threads": "1", "bf": "0"}
_MAX_RATE_DENOMINATOR = 100_000
_TRUE_SIZE = re.compile(r"(\d{1,5})x(\d{1,5}) pixels")
# Real files only: a playlist or concatenation would make FFmpeg open what it names.
_CONTAINERS = "mov,matroska,avi,mpegts"


@contextlib.contextmanager
def open_mp4(path: Path, settings: FileSettings) -> Iterator[TakeFrames]:
    """Write yuv420p frame by frame, with the index in front, so that a browser starts before it has the whole file.

    The index is moved to the front when the context ends, which copies the file once.
    """
    import av

    height, width = settings.height, settings.width
    with (
        _encoder_errors(settings),
        av.open(f"file:{path}", "w", format="mp4", options={"movflags": "+faststart"}) as container,
    ):
        if settings.comment is not None:
            container.metadata["comment"] = settings.comment
        if height % 2 or width % 2:
            container.metadata["description"] = f"{width}x{height} pixels"
        stream = _add_stream(container, settings)

        def take(frames: Frames) -> None:
            for pixels in frames:
                with _encoder_errors(settings):
                    container.mux(stream.encode(_to_picture(pixels)))

        yield take
        container.mux(stream.encode())


def read_mp4(path: Path) -> Decoded:
    """Decode all frames, cropped to the true size where `open_mp4` padded them."""
    with path.open("rb") as file, _open(file) as container:
        stream = _picture_track(container)
        frames = stack_frames(_decode(container))
        rate = stream.average_rate or stream.guessed_rate
        return Decoded(frames, float(rate) if rate else None, container.metadata.get("comment"))


def iterate_mp4(path: Path, start: int) -> Generator[Frames, None, None]:
    """Decode frame by frame, `[h, w, 3]`; those before `start` are decoded too, but not converted.

    Not a jump to the nearest key picture: where that is in frames is known only for files of a constant rate.
    """
    with path.open("rb") as file, _open(file) as container:
        _picture_track(container)
        yield from _decode(container, start)


def read_mp4_comment(path: Path) -> str | None:
    """The comment, without decoding."""
    with path.open("rb") as file, _open(file) as container:
        return container.metadata.get("comment")


@contextlib.contextmanager
def _encoder_errors(settings: FileSettings) -> Iterator[None]:
    import av

    try:
        yield
    except OSError:  # of the file, and to be reported as such
        raise
    except (av.FFmpegError, ValueError) as error:
        raise OutputError(
            f"The H.264 encoder failed on frames of {settings.width}x{settings.height}: {error}. Nothing was left "
            "behind. Save as .webp or .png instead."
        ) from error


def _add_stream(container: OutputContainer, settings: FileSettings) -> VideoStream:
    from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

    rate = Fraction(settings.fps).limit_denominator(_MAX_RATE_DENOMINATOR)
    stream = container.add_stream("libx264", rate=rate, options=dict(_ENCODER))
    height, width = settings.height, settings.width
    stream.height, stream.width, stream.pix_fmt = height + height % 2, width + width % 2, "yuv420p"
    # Players guess the colours of a file that does not name them, and guess differently.
    context = stream.codec_context
    context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
    context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
    return stream


def _to_picture(pixels: Frames) -> VideoFrame:
    import av
    from av.video.reformatter import ColorRange, Colorspace

    height, width = pixels.shape[:2]
    padded = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return av.VideoFrame.from_ndarray(padded, format="rgb24").reformat(
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        interpolation=_exact_chroma(),
    )


def _open(file: IO[bytes]) -> InputContainer:
    import av

    return av.open(file, "r", options={"format_whitelist": _CONTAINERS})


def _picture_track(container: InputContainer) -> VideoStream:
    if not container.streams.video:
        raise InputFileError("It has no picture track.")
    return container.streams.video[0]


def _decode(container: InputContainer, start: int = 0) -> Iterator[Frames]:
    padded, height, width = _true_size(container)
    for frame in itertools.islice(container.decode(video=0), start, None):
        pixels = np.asarray(frame.reformat(format="rgb24", interpolation=_exact_chroma()).to_ndarray(), np.uint8)
        yield pixels[:height, :width] if pixels.shape[:2] == padded else pixels


def _true_size(container: InputContainer) -> tuple[tuple[int, int] | None, int, int]:
    """(height and width of padded frames or None, true height, true width)."""
    noted = _TRUE_SIZE.fullmatch(container.metadata.get("description", ""))
    if noted is None:
        return None, 0, 0
    width, height = int(noted[1]), int(noted[2])
    return (height + height % 2, width + width % 2), height, width


def _exact_chroma() -> int:
    """Flags of the colour conversion; with the default ones a round trip is five times as far off."""
    from av.video.reformatter import Interpolation

    return (
        Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP | Interpolation.FULL_CHR_H_INT
    )
