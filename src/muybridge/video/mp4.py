"""H.264 in mp4."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from muybridge.errors import OutputError
from muybridge.video.encoding import FileSettings, Frames, TakeFrames

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import OutputContainer
    from av.video.stream import VideoStream

# The same frames must give the same bytes. x264 notes its number of threads in the file, hence one. Its rate control
# varies from run to run where a side is no multiple of 16 (measured with x264 165): with B-frames always, and with its
# macroblock tree by what lay in memory before (2 of 3 runs after some decoding). Hence neither; files grow by 4 %.
_ENCODER = {"crf": "12", "threads": "1", "bf": "0", "mbtree": "0"}
_MAX_RATE_DENOMINATOR = 100_000
_TRUE_SIZE = re.compile(r"(\d{1,5})x(\d{1,5}) pixels")


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


@contextlib.contextmanager
def _encoder_errors(settings: FileSettings) -> Iterator[None]:
    import av

    try:
        yield
    except OSError:  # of the file, and to be reported as such
        raise
    except (av.FFmpegError, ValueError) as error:
        raise OutputError(
            f"The H.264 encoder failed on frames of {settings.width}x{settings.height}. Nothing was left behind. "
            "Save as .webp or .png instead."
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
        interpolation=exact_chroma(),
    )


def true_size(metadata: Mapping[str, str]) -> tuple[tuple[int, int] | None, int, int]:
    """(height and width of frames that `open_mp4` padded, or None; true height; true width), from a file's metadata."""
    noted = _TRUE_SIZE.fullmatch(metadata.get("description", ""))
    if noted is None:
        return None, 0, 0
    width, height = int(noted[1]), int(noted[2])
    return (height + height % 2, width + width % 2), height, width


def exact_chroma() -> int:
    """Flags of the colour conversion; with the default ones a round trip is five times as far off."""
    from av.video.reformatter import Interpolation

    return (
        Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP | Interpolation.FULL_CHR_H_INT
    )
