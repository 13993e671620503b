"""Videos written as their frames come, and read piece by piece."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from muybridge.errors import ConfigError, InputFileError, OutputError, ShapeError
from muybridge.video import Video, VideoWriter, read_frames, read_request, read_video, save_stream
from muybridge.video.encoding import FileSettings, collected
from muybridge.video.gif import write_gif

Frames = npt.NDArray[np.uint8]
SUFFIXES = [".mp4", ".gif", ".webp", ".png"]
REQUEST = {"prompt": "a red circle", "seed": 7}


def ramp(num_frames: int, height: int = 18, width: int = 21) -> Frames:
    y, x = np.mgrid[0:height, 0:width]
    frames = [np.stack([40 + 4 * x + 8 * (i % 9), 20 + 6 * y, 240 - 4 * x - i % 31], -1) for i in range(num_frames)]
    return np.stack(frames).clip(0, 255).astype(np.uint8)


def content(path: Path) -> dict[str, bytes]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return {file.name if path.is_dir() else "": file.read_bytes() for file in files}


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def write_plain_mp4(path: Path, frames: Frames, rate: Fraction, comment: str) -> None:
    """The mp4 that a video is saved as, in one go."""
    height, width = frames.shape[1:3]
    exact = (
        Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP | Interpolation.FULL_CHR_H_INT
    )
    with av.open(f"file:{path}", "w", format="mp4", options={"movflags": "+faststart"}) as container:
        container.metadata["comment"] = comment
        container.metadata["description"] = f"{width}x{height} pixels"
        stream = container.add_stream(
            "libx264", rate=rate, options={"crf": "12", "threads": "1", "bf": "0", "mbtree": "0"}
        )
        stream.height, stream.width, stream.pix_fmt = height + height % 2, width + width % 2, "yuv420p"
        context = stream.codec_context
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        for pixels in frames:
            padded = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            picture = av.VideoFrame.from_ndarray(padded, format="rgb24").reformat(
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                interpolation=exact,
            )
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def test_mp4_has_the_bytes_of_a_plain_writer(tmp_path: Path) -> None:
    frames = ramp(30)
    write_plain_mp4(tmp_path / "plain.mp4", frames, Fraction("23.976"), '{"prompt":"a red circle","seed":7}')
    saved = Video(frames, 23.976, REQUEST).save(tmp_path / "saved.mp4")
    assert saved.read_bytes() == (tmp_path / "plain.mp4").read_bytes()


def test_png_has_the_bytes_it_always_had(tmp_path: Path) -> None:
    frames = ramp(3)
    notes = PngInfo()
    notes.add_text("frames per second", "23.976")
    notes.add_text("comment", '{"prompt":"a red circle","seed":7}')
    (tmp_path / "plain").mkdir()
    for index, frame in enumerate(frames):
        name = tmp_path / "plain" / f"{index:04d}.png"
        Image.fromarray(frame).save(name, pnginfo=notes if index == 0 else None)
    assert content(Video(frames, 23.976, REQUEST).save(tmp_path / "saved.png")) == content(tmp_path / "plain")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("cuts", [[1, 2, 3], [5], [0, 0, 9, 9, 20]])
def test_pieces_give_the_bytes_of_the_whole(tmp_path: Path, suffix: str, cuts: list[int]) -> None:
    frames = ramp(20)
    whole = Video(frames, 12.5, REQUEST).save(tmp_path / f"whole{suffix}")
    pieces = save_stream(tmp_path / f"pieces{suffix}", iter(np.split(frames, cuts)), 12.5, REQUEST)
    assert content(pieces) == content(whole)
    assert read_request(pieces) == REQUEST


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_piece_may_be_changed_after_it_is_written(tmp_path: Path, suffix: str) -> None:
    frames = ramp(6)
    buffer = np.empty_like(frames[:2])
    with VideoWriter(tmp_path / f"out{suffix}") as writer:
        for index in (0, 2, 4):
            buffer[:] = frames[index : index + 2]
            writer.write(buffer)
        buffer[:] = 0
        assert writer.num_frames == 6
    assert content(writer.path) == content(Video(frames).save(tmp_path / f"whole{suffix}"))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("the camera broke"), ValueError("no")])
def test_an_error_between_frames_leaves_the_old_file(tmp_path: Path, suffix: str, error: Any) -> None:
    old = Video(ramp(2)).save(tmp_path / f"out{suffix}")
    before = content(old)

    def pieces() -> Iterator[Frames]:
        yield ramp(3)
        raise error

    with pytest.raises(error if isinstance(error, type) else type(error)) as caught:
        save_stream(tmp_path / f"out{suffix}", pieces())
    # The caller's own error, not one about the file.
    assert not isinstance(caught.value, OutputError)
    assert content(old) == before
    assert names(tmp_path) == [old.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_frames(tmp_path: Path, suffix: str) -> None:
    for pieces in ([], [ramp(1)[:0]]):
        with pytest.raises(ShapeError, match="at least one frame"):
            save_stream(tmp_path / f"out{suffix}", pieces)
    assert names(tmp_path) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_frames_of_several_sizes(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(ShapeError, match="21x18 like the first; given 18x20"):
        save_stream(tmp_path / f"out{suffix}", [ramp(2), ramp(2, 20, 18)])
    assert names(tmp_path) == []


def test_a_refused_piece_does_not_spoil_the_file(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "out.mp4") as writer:
        writer.write(ramp(2))
        for wrong in (ramp(1, 4, 4), ramp(1).astype(np.float32), ramp(1)[0]):
            with pytest.raises(ShapeError):
                writer.write(wrong)  # type: ignore[arg-type]
        writer.write(ramp(1))
    assert len(read_video(writer.path)) == 3


def test_the_path_is_asked_before_the_first_frame(tmp_path: Path) -> None:
    made = []

    def pieces() -> Iterator[Frames]:
        made.append(1)
        yield ramp(1)

    with pytest.raises(OutputError, match="there is no folder"):
        save_stream(tmp_path / "nowhere" / "out.mp4", pieces())
    with pytest.raises(ConfigError, match="suffix"):
        save_stream(tmp_path / "out.avi", pieces())
    with pytest.raises(ConfigError, match="100 frames per second"):
        save_stream(tmp_path / "out.gif", pieces(), fps=120)
    with pytest.raises(ConfigError, match="fps must be"):
        save_stream(tmp_path / "out.mp4", pieces(), fps=0)
    with pytest.raises(ConfigError, match="JSON"):
        save_stream(tmp_path / "out.mp4", pieces(), request={"value": float("nan")})
    assert made == []
    assert names(tmp_path) == []


def test_a_writer_is_used_once_and_inside_its_block(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "out.mp4")
    with pytest.raises(ConfigError, match="with block"):
        writer.write(ramp(1))
    with writer:
        writer.write(ramp(1))
    with pytest.raises(ConfigError, match="with block"):
        writer.write(ramp(1))
    with pytest.raises(ConfigError, match="used already"), writer:
        pass
    assert len(read_video(tmp_path / "out.mp4")) == 1


def test_the_file_appears_only_at_the_end(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "out.mp4") as writer:
        writer.write(ramp(5))
        assert not (tmp_path / "out.mp4").exists()
    assert names(tmp_path) == ["out.mp4"]


def test_formats_that_need_all_frames_say_so(tmp_path: Path) -> None:
    open_encoder = collected(write_gif, max_bytes=1 << 20)
    settings = FileSettings(height=256, width=256, fps=8.0, comment=None)
    piece = np.zeros((4, 256, 256, 3), np.uint8)

    def write_too_much() -> None:
        with open_encoder(tmp_path / "out.gif", settings) as take:
            take(piece)
            take(piece)

    with pytest.raises(ShapeError, match=r"8 frames of 256x256 are over 1 MiB. Save as .mp4 or .png"):
        write_too_much()
    assert names(tmp_path) == []


@pytest.mark.parametrize("suffix", [".mp4", ".png"])
def test_memory_does_not_grow_with_the_video(tmp_path: Path, suffix: str) -> None:
    def peak(num_pieces: int) -> int:
        tracemalloc.start()
        pieces = (np.full((4, 128, 128, 3), index, np.uint8) for index in range(num_pieces))
        path = save_stream(tmp_path / f"{num_pieces}{suffix}", pieces)
        read = sum(len(piece) for piece in read_frames(path, piece_frames=4))
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert read == 4 * num_pieces
        return used

    peak(2)  # what is imported on first use
    piece_bytes = 4 * 128 * 128 * 3
    assert peak(40) - peak(4) < piece_bytes


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("start", "count", "piece"), [(0, None, 16), (0, None, 3), (5, 4, 3), (9, 100, 1), (10, 1, 2)])
def test_pieces_are_the_frames_of_the_whole(
    tmp_path: Path, suffix: str, start: int, count: int | None, piece: int
) -> None:
    path = Video(ramp(11)).save(tmp_path / f"out{suffix}")
    expected = read_video(path).frames[start : None if count is None else start + count]
    pieces = list(read_frames(path, start, count, piece))
    assert np.array_equal(np.concatenate(pieces), expected)
    assert {len(frames) for frames in pieces[:-1]} <= {piece}
    assert pieces[-1].dtype == np.uint8


def test_equal_frames_of_a_webp_are_all_read(tmp_path: Path) -> None:
    frames = np.repeat(ramp(2), (7, 3), axis=0)
    pieces = list(read_frames(Video(frames).save(tmp_path / "out.webp"), start=5, piece_frames=2))
    assert np.array_equal(np.concatenate(pieces), frames[5:])


def test_what_is_read_can_be_written_again(tmp_path: Path) -> None:
    source = Video(ramp(9)).save(tmp_path / "in.webp")
    copy = save_stream(tmp_path / "out.webp", read_frames(source, piece_frames=2))
    assert copy.read_bytes() == source.read_bytes()


def test_wrong_reading(tmp_path: Path) -> None:
    path = Video(ramp(3)).save(tmp_path / "out.mp4")
    for wrong in ({"start": -1}, {"count": 0}, {"piece_frames": 0}):
        with pytest.raises(ConfigError, match="at least"):
            read_frames(path, **wrong)
    with pytest.raises(InputFileError, match="There is no file"):
        read_frames(tmp_path / "nothing.mp4")
    with pytest.raises(InputFileError, match="has no frame 3"):
        list(read_frames(path, start=3))
    (tmp_path / "text.mp4").write_text("a red circle")
    with pytest.raises(InputFileError, match=r"text\.mp4"):
        list(read_frames(tmp_path / "text.mp4"))


def test_pictures_of_several_sizes_are_found_across_pieces(tmp_path: Path) -> None:
    folder = Video(ramp(5)).save(tmp_path / "out")
    Image.new("RGB", (8, 8)).save(folder / "0003.png")
    frames = read_frames(folder, start=1, piece_frames=2)
    assert len(next(frames)) == 2
    with pytest.raises(InputFileError, match="Frame 3 is 8x8, the ones before 21x18"):
        next(frames)
