"""Videos as values and as files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageSequence

from muybridge.errors import ConfigError, InputFileError, OutputError, ShapeError
from muybridge.video import Video, check_writable, read_request, read_video
from muybridge.video.request import MAX_REQUEST_BYTES
from muybridge.video.timing import tick_durations

SUFFIXES = [".mp4", ".gif", ".webp", ".png"]
REQUEST: dict[str, Any] = {
    "prompt": 'ein Kreis für dich: 红色的圆 😀 "quoted"; a=b # c\n\\ \u0000 \ud800',
    "seed": 2**53 + 1,
    "settings": {"steps": 4, "scale": 7.5, "keyframes": [0, -1], "fast": True, "negative": None},
}


def ramp(num_frames: int = 5, height: int = 33, width: int = 47) -> npt.NDArray[np.uint8]:
    """Smooth pictures, different in every frame and at every edge, that codecs must not get wrong."""
    y, x = np.mgrid[0:height, 0:width]
    frames = [np.stack([40 + 4 * x + 8 * i, 20 + 6 * y, 240 - 4 * x], -1) for i in range(num_frames)]
    return np.stack(frames).clip(0, 255).astype(np.uint8)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def error_of(read: Video, frames: npt.NDArray[np.uint8]) -> float:
    return float(np.abs(read.frames.astype(int) - frames).mean())


def test_value() -> None:
    video = Video(ramp(6), fps=12.0)
    assert (len(video), video.height, video.width, video.duration_s) == (6, 33, 47, 0.5)
    assert video.request is None
    pictures = video.to_pil()
    assert [picture.size for picture in pictures] == [(47, 33)] * 6
    assert np.array_equal(np.asarray(pictures[3]), video.frames[3])


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((2, 4, 4, 3), np.float32),
        np.zeros((2, 4, 4), np.uint8),
        np.zeros((2, 3, 4, 4), np.uint8),
        np.zeros((0, 4, 4, 3), np.uint8),
        np.zeros((2, 0, 4, 3), np.uint8),
        [[[[0, 0, 0]]]],
    ],
)
def test_wrong_frames(frames: Any) -> None:
    with pytest.raises(ShapeError, match=r"uint8 \[f, h, w, 3\]"):
        Video(frames)


@pytest.mark.parametrize("fps", [0, -1.0, float("nan"), float("inf"), 1e4, "8"])
def test_wrong_fps(fps: Any) -> None:
    with pytest.raises(ConfigError, match="fps must be"):
        Video(ramp(), fps=fps)


def test_wrong_request() -> None:
    with pytest.raises(ConfigError, match="mapping"):
        Video(ramp(), request="a circle")  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(32, 48), (33, 47), (32, 47), (33, 48), (1, 1)])
@pytest.mark.parametrize(("suffix", "tolerance"), [(".mp4", 2.0), (".gif", 8.0), (".webp", 0.0), (".png", 0.0)])
def test_round_trip(tmp_path: Path, suffix: str, tolerance: float, size: tuple[int, int]) -> None:
    frames = ramp(5, *size)
    written = Video(frames, request=REQUEST).save(tmp_path / f"out{suffix}")
    assert written == (tmp_path / "out" if suffix == ".png" else tmp_path / f"out{suffix}")
    assert names(tmp_path) == [written.name]
    video = read_video(written)
    assert video.frames.shape == frames.shape
    assert video.frames.dtype == np.uint8
    assert error_of(video, frames) <= tolerance
    assert video.request == REQUEST
    assert video.fps == pytest.approx(8.0, rel=0.01)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_one_frame(tmp_path: Path, suffix: str) -> None:
    written = Video(ramp(1), fps=5.0, request=REQUEST).save(tmp_path / f"out{suffix}")
    video = read_video(written)
    assert (len(video), video.fps, video.request) == (1, 5.0, REQUEST)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_equal_frames_are_all_kept(tmp_path: Path, suffix: str) -> None:
    frames = np.repeat(ramp(2, 16, 16), (7, 3), axis=0)
    video = read_video(Video(frames, fps=23.976).save(tmp_path / f"out{suffix}"))
    assert video.frames.shape == frames.shape
    assert np.abs(video.frames.astype(int) - frames).mean((1, 2, 3)).max() < 8
    assert read_video(tmp_path / f"out{suffix}").fps == pytest.approx(23.976, rel=0.01)


@pytest.mark.parametrize("fps", [23.976, 24000 / 1001, 29.97, 0.01, 7, 60.0, 1000.0])
@pytest.mark.parametrize("suffix", [".mp4", ".webp", ".png"])
def test_fps_is_exact(tmp_path: Path, suffix: str, fps: float) -> None:
    assert read_video(Video(ramp(4, 16, 16), fps=fps).save(tmp_path / f"out{suffix}")).fps == fps


def test_fps_of_gif_is_rounded_without_drift(tmp_path: Path) -> None:
    assert tick_durations(6, 24.0, 100) == [4, 4, 5, 4, 4, 4]
    assert tick_durations(4, 100.0, 100) == [1, 1, 1, 1]
    assert sum(tick_durations(2400, 23.976, 100)) == 10010
    assert read_video(Video(ramp(24), fps=23.976).save(tmp_path / "out.gif")).fps == pytest.approx(23.976, rel=0.01)


def test_gif_loops_for_ever_with_one_palette(tmp_path: Path) -> None:
    frames = np.full((4, 24, 24, 3), (20, 100, 200), np.uint8)
    for index in range(4):
        frames[index, 5:9, 4 * index : 4 * index + 6] = (250, 30, 60)
    path = Video(frames).save(tmp_path / "out.gif")
    assert np.array_equal(read_video(path).frames, frames)
    with Image.open(path) as image:
        assert image.info["loop"] == 0
        for index in range(4):
            image.seek(index)
            assert image.info["duration"] in (120, 130)
            box = image.tile[0].extents if image.tile else (0, 0, 24, 24)
            assert box == (0, 0, 24, 24)


def test_webp_loops_for_ever(tmp_path: Path) -> None:
    with Image.open(Video(ramp()).save(tmp_path / "out.webp")) as image:
        assert image.info["loop"] == 0
        assert len(list(ImageSequence.Iterator(image))) == 5


def test_mp4_plays_in_browsers(tmp_path: Path) -> None:
    path = Video(ramp(), fps=23.976, request=REQUEST).save(tmp_path / "out.mp4")
    data, atoms, start = path.read_bytes(), [], 0
    while start < len(data):
        atoms.append(data[start + 4 : start + 8])
        start += int.from_bytes(data[start : start + 4], "big")
    assert start == len(data)
    assert atoms.index(b"moov") < atoms.index(b"mdat")
    with av.open(path) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert (stream.width, stream.height, stream.frames) == (48, 34, 5)
        assert stream.average_rate == Fraction("23.976")
        assert container.duration == pytest.approx(av.time_base * 5 / 23.976, abs=2)
        assert json.loads(container.metadata["comment"]) == REQUEST
        assert "creation_time" not in container.metadata


def test_mp4_pads_with_the_edge(tmp_path: Path) -> None:
    frames = np.full((2, 15, 15, 3), 30, np.uint8)
    frames[:, -1], frames[:, :, -1] = 220, 220
    with av.open(Video(frames).save(tmp_path / "out.mp4")) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert stored.shape == (16, 16, 3)
    assert np.abs(stored[-2:].astype(int) - 220).max() < 12
    assert np.abs(stored[:, -2:].astype(int) - 220).max() < 12


def test_mp4_keeps_colours(tmp_path: Path) -> None:
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0], [128, 64, 200]], np.uint8)
    frames = np.broadcast_to(colours[:, None, None], (6, 16, 16, 3))
    read = read_video(Video(frames, fps=1.0).save(tmp_path / "out.mp4"))
    assert np.abs(read.frames.astype(int) - frames).max() <= 4


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_same_video_same_bytes(tmp_path: Path, suffix: str) -> None:
    video = Video(ramp(12, 49, 65), fps=23.976, request=REQUEST)
    results = set()
    litter = []
    for index in range(8):
        path = video.save(tmp_path / f"{index}{suffix}")
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        results.add(tuple(file.read_bytes() for file in files))
        # Memory that is not where it was shows an encoder that reads what it never wrote.
        litter.append(np.full(10_000 + 777 * index, 31 * index, np.uint8))
    assert len(results) == 1


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_request_stays_out_when_asked(tmp_path: Path, suffix: str) -> None:
    path = Video(ramp(), request={"prompt": "a secret circle"}).save(tmp_path / f"out{suffix}", embed_request=False)
    assert read_request(path) is None
    files = [path] if path.is_file() else list(path.iterdir())
    assert not any(b"secret" in file.read_bytes() for file in files)
    assert read_video(path).frames.shape == (5, 33, 47, 3)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_largest_request(tmp_path: Path, suffix: str) -> None:
    request = {"prompt": "x" * (MAX_REQUEST_BYTES - len('{"prompt":""}'))}
    assert read_request(Video(ramp(2, 8, 8), request=request).save(tmp_path / f"out{suffix}")) == request
    request["prompt"] += "x"
    with pytest.raises(ConfigError, match="embed_request=False"):
        Video(ramp(2, 8, 8), request=request).save(tmp_path / f"more{suffix}")
    assert len(names(tmp_path)) == 1


@pytest.mark.parametrize("value", [float("nan"), Path("a"), {1, 2}, b"bytes"])
def test_request_that_json_cannot_express(tmp_path: Path, value: Any) -> None:
    video = Video(ramp(), request={"value": value})
    with pytest.raises(ConfigError, match="JSON"):
        video.save(tmp_path / "out.gif")
    assert names(tmp_path) == []
    assert video.save(tmp_path / "out.gif", embed_request=False).exists()


@pytest.mark.parametrize("comment", ["made with love", "[1, 2]", '{"a": NaN}', "[" * 100_000, "9" * 100_000, "", "{"])
def test_foreign_comments_are_no_requests(tmp_path: Path, comment: str) -> None:
    path = tmp_path / "foreign.gif"
    Image.new("RGB", (4, 4)).save(path, comment=comment)
    assert read_request(path) is None
    assert read_video(path).request is None


def test_oversized_comment_is_no_request(tmp_path: Path) -> None:
    path = tmp_path / "foreign.gif"
    Image.new("RGB", (4, 4)).save(path, comment=json.dumps({"prompt": "x" * MAX_REQUEST_BYTES}))
    assert read_request(path) is None


def test_png_folder_names(tmp_path: Path) -> None:
    video = Video(ramp(2), request=REQUEST)
    assert video.save(tmp_path / "a.png") == tmp_path / "a"
    assert video.save(tmp_path / "b") == tmp_path / "b"
    assert video.save(f"{tmp_path}/c.d/") == tmp_path / "c.d"
    assert names(tmp_path) == ["a", "b", "c.d"]
    assert all(names(tmp_path / name) == ["0000.png", "0001.png"] for name in names(tmp_path))
    assert read_request(tmp_path / "a.png") == read_request(tmp_path / "a" / "0000.png") == REQUEST
    assert len(read_video(tmp_path / "a.png")) == 2
    assert len(read_video(tmp_path / "a" / "0001.png")) == 1


def test_png_folder_is_replaced_whole(tmp_path: Path) -> None:
    Video(ramp(5)).save(tmp_path / "out.png")
    Video(ramp(2)).save(tmp_path / "out.png")
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["0000.png", "0001.png"]


def test_png_folder_with_other_things_is_kept(tmp_path: Path) -> None:
    folder = Video(ramp(5)).save(tmp_path / "out.png")
    (folder / "notes.txt").write_text("mine")
    for attempt in (lambda: Video(ramp(2)).save(tmp_path / "out"), lambda: check_writable(tmp_path / "out.png")):
        with pytest.raises(OutputError, match=r"notes\.txt"):
            attempt()
    assert names(tmp_path) == ["out"]
    assert len(names(folder)) == 6


def test_many_pictures_keep_their_order(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    for number, level in ((10000, 200), (9999, 100), (2, 50)):
        Image.new("RGB", (4, 4), (level, 0, 0)).save(folder / f"{number:04d}.png")
    with pytest.warns(UserWarning, match="out lacks numbers 3 to 9998"):
        assert read_video(folder).frames[:, 0, 0, 0].tolist() == [50, 100, 200]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_existing_file_is_replaced(tmp_path: Path, suffix: str) -> None:
    Video(ramp(2)).save(tmp_path / f"out{suffix}")
    path = Video(ramp(4)).save(tmp_path / f"out{suffix.upper()}".replace("OUT", "out"))
    assert len(read_video(path)) == 4
    Video(ramp(3)).save(path)
    assert len(read_video(path)) == 3


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link.gif").symlink_to(tmp_path / "real" / "out.gif")
    Video(ramp(2)).save(tmp_path / "link.gif")
    assert (tmp_path / "link.gif").is_symlink()
    assert names(tmp_path / "real") == ["out.gif"]


class InterruptedFrames(np.ndarray):
    """Frames during whose reading somebody presses Ctrl+C."""

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, int) and key == 3:
            raise KeyboardInterrupt
        return super().__getitem__(key)

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_interrupt_leaves_the_old_file(tmp_path: Path, suffix: str) -> None:
    path = Video(ramp(2)).save(tmp_path / f"out{suffix}")
    with pytest.raises(KeyboardInterrupt):
        Video(ramp(5).view(InterruptedFrames)).save(tmp_path / f"out{suffix}")
    assert names(tmp_path) == [path.name]
    assert len(read_video(path)) == 2


FULL_DISK = """
import resource, sys
import numpy as np
from muybridge.errors import OutputError
from muybridge.video import Video
frames = np.random.default_rng(0).integers(256, size=(6, 128, 128, 3), dtype=np.uint8)
small = Video(frames[:1, :16, :16]).save(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    Video(frames).save(sys.argv[1])
except OutputError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on file sizes")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, suffix: str) -> None:
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / f"out{suffix}")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "could not be written" in done.stdout
    assert "Free some space" in done.stdout
    assert len(names(tmp_path)) == 1
    assert read_video(tmp_path / names(tmp_path)[0]).frames.shape == (1, 16, 16, 3)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_missing_folder(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "nowhere" / f"out{suffix}"
    for attempt in (lambda: check_writable(path), lambda: Video(ramp()).save(path)):
        with pytest.raises(OutputError, match=r"there is no folder .*nowhere"):
            attempt()
    assert names(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_folder_without_permission(tmp_path: Path, suffix: str) -> None:
    tmp_path.chmod(0o555)
    try:
        for attempt in (
            lambda: check_writable(tmp_path / f"o{suffix}"),
            lambda: Video(ramp()).save(tmp_path / f"o{suffix}"),
        ):
            with pytest.raises(OutputError, match="Permission denied"):
                attempt()
    finally:
        tmp_path.chmod(0o755)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_folder_that_takes_no_files(suffix: str) -> None:
    for attempt in (lambda: check_writable(f"/proc/out{suffix}"), lambda: Video(ramp()).save(f"/proc/out{suffix}")):
        with pytest.raises(OutputError, match="could not be written"):
            attempt()


def test_something_else_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "out.mp4").mkdir()
    (tmp_path / "out").write_text("a file")
    for name in ("out.mp4", "out", "out.png"):
        with pytest.raises(OutputError, match="Choose another name"):
            check_writable(tmp_path / name)
        with pytest.raises(OutputError, match="Choose another name"):
            Video(ramp()).save(tmp_path / name)
    assert names(tmp_path) == ["out", "out.mp4"]


@pytest.mark.parametrize("name", ["out.jpg", "out.avi", "out.mp4.part"])
def test_unknown_suffix(tmp_path: Path, name: str) -> None:
    for attempt in (lambda: check_writable(tmp_path / name), lambda: Video(ramp()).save(tmp_path / name)):
        with pytest.raises(ConfigError, match=r"\.gif, \.mp4, \.png, \.webp"):
            attempt()


def test_check_writable_leaves_nothing(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        check_writable(tmp_path / f"out{suffix}")
    check_writable(f"{tmp_path}/{'n' * 250}.gif")
    assert names(tmp_path) == []


def test_limits_of_formats(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="100 frames per second"):
        Video(ramp(), fps=120.0).save(tmp_path / "out.gif")
    for suffix, side in ((".webp", 16384), (".mp4", 16385), (".gif", 65536)):
        with pytest.raises(ShapeError, match=f"at most {side - 1} pixels"):
            Video(np.zeros((2, 1, side, 3), np.uint8)).save(tmp_path / f"out{suffix}")
    assert names(tmp_path) == []


def test_missing_input(tmp_path: Path) -> None:
    for read in (read_video, read_request):
        with pytest.raises(InputFileError, match="There is no file"):
            read(tmp_path / "nothing.mp4")


def test_no_media(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("a red circle")
    (tmp_path / "empty.gif").write_bytes(b"")
    (tmp_path / "head.gif").write_bytes(b"GIF89a")
    (tmp_path / "head.webp").write_bytes(b"RIFF\x20\0\0\0WEBPVP8X")
    (tmp_path / "head.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile other.mp4\n")
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.mp4\n#EXT-X-ENDLIST\n")
    (tmp_path / "folder").mkdir()
    Video(ramp()).save(tmp_path / "other.mp4").rename(tmp_path / "hidden.mp4")
    for name in names(tmp_path):
        if name != "hidden.mp4":
            for read in (read_video, read_request):
                with pytest.raises(InputFileError, match=name):
                    read(tmp_path / name)


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_truncated_files(tmp_path: Path, suffix: str) -> None:
    path = Video(np.random.default_rng(0).integers(256, size=(6, 64, 64, 3), dtype=np.uint8)).save(
        tmp_path / f"out{suffix}"
    )
    data = path.read_bytes()
    for kept in (20, 600, len(data) // 2, len(data) - 500):
        path.write_bytes(data[:kept])
        with pytest.raises(InputFileError, match="out"):
            read_video(path)


def test_truncated_picture(tmp_path: Path) -> None:
    folder = Video(ramp()).save(tmp_path / "out")
    (folder / "0002.png").write_bytes((folder / "0002.png").read_bytes()[:-60])
    with pytest.raises(InputFileError, match="out"):
        read_video(folder)


def test_pictures_of_several_sizes(tmp_path: Path) -> None:
    folder = Video(ramp()).save(tmp_path / "out")
    Image.new("RGB", (8, 8)).save(folder / "0002.png")
    with pytest.raises(InputFileError, match="Frame 2 is 8x8, the first 47x33"):
        read_video(folder)


def test_importing_is_light() -> None:
    code = "import muybridge.video, sys; print([m for m in ('torch', 'av', 'PIL') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
