"""H.264 in mp4, and reading of whatever video FFmpeg decodes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from muybridge.errors import InputFileError, OutputError
from muybridge.video.decoded import Decoded, stack_frames

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer

# The same frames must give the same bytes. x264 notes its number of threads in the file, hence one; and with B-frames
# its rate control varies from run to run where a side is no multiple of 16 (measured with x264 165), hence none.
_ENCODER = {"crf": "12", "threads": "1", "bf": "0"}
_MAX_RATE_DENOMINATOR = 100_000
_TRUE_SIZE = re.compile(r"(\d{1,5})x(\d{1,5}) pixels")
# Real files only: a playlist or concatenation would make FFmpeg open what it names.
_CONTAINERS = "mov,matroska,avi,mpegts"


def write_mp4(path: Path, frames: npt.NDArray[np.uint8], fps: float, comment: str | None) -> None:
    """Write yuv420p with the index in front, so that a browser starts before it has the whole file."""
    import av

    height, width = frames.shape[1:3]
    try:
        with av.open(f"file:{path}", "w", format="mp4", options={"movflags": "+faststart"}) as container:
            if comment is not None:
                container.metadata["comment"] = comment
            if height % 2 or width % 2:
                container.metadata["description"] = f"{width}x{height} pixels"
            _encode(container, frames, Fraction(fps).limit_denominator(_MAX_RATE_DENOMINATOR))
    except OSError:
        raise
    except (av.FFmpegError, ValueError) as error:
        raise OutputError(
            f"The H.264 encoder failed on {len(frames)} frames of {width}x{height}: {error}. Nothing was left behind. "
            "Save as .webp or .png instead."
        ) from error


def read_mp4(path: Path) -> Decoded:
    """Decode all frames, cropped to the true size where `write_mp4` padded them."""
    with path.open("rb") as file, _open(file) as container:
        if not container.streams.video:
            raise InputFileError("It has no picture track.")
        stream = container.streams.video[0]
        frames = stack_frames(_decode(container))
        rate = stream.average_rate or stream.guessed_rate
        return Decoded(_crop(frames, container), float(rate) if rate else None, container.metadata.get("comment"))


def read_mp4_comment(path: Path) -> str | None:
    """The comment, without decoding."""
    with path.open("rb") as file, _open(file) as container:
        return container.metadata.get("comment")


def _encode(container: OutputContainer, frames: npt.NDArray[np.uint8], rate: Fraction) -> None:
    import av
    from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

    height, width = frames.shape[1:3]
    stream = container.add_stream("libx264", rate=rate, options=dict(_ENCODER))
    stream.height, stream.width, stream.pix_fmt = height + height % 2, width + width % 2, "yuv420p"
    # Players guess the colours of a file that does not name them, and guess differently.
    context = stream.codec_context
    context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
    context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
    for pixels in frames:
        padded = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        picture = av.VideoFrame.from_ndarray(padded, format="rgb24").reformat(
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            interpolation=_exact_chroma(),
        )
        container.mux(stream.encode(picture))
    container.mux(stream.encode())


def _open(file: IO[bytes]) -> InputContainer:
    import av

    return av.open(file, "r", options={"format_whitelist": _CONTAINERS})


def _decode(container: InputContainer) -> Iterator[npt.NDArray[np.uint8]]:
    for frame in container.decode(video=0):
        yield np.asarray(frame.reformat(format="rgb24", interpolation=_exact_chroma()).to_ndarray(), np.uint8)


def _crop(frames: npt.NDArray[np.uint8], container: InputContainer) -> npt.NDArray[np.uint8]:
    noted = _TRUE_SIZE.fullmatch(container.metadata.get("description", ""))
    if noted is None:
        return frames
    width, height = int(noted[1]), int(noted[2])
    if frames.shape[1:3] != (height + height % 2, width + width % 2):
        return frames
    return np.ascontiguousarray(frames[:, :height, :width])


def _exact_chroma() -> int:
    """Flags of the colour conversion; with the default ones a round trip is five times as far off."""
    from av.video.reformatter import Interpolation

    return (
        Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP | Interpolation.FULL_CHR_H_INT
    )
