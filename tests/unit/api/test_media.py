"""What uploaded files are, by their content alone."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from muybridge.api.errors import ApiError
from muybridge.api.media import examine
from muybridge.api.settings import Limits
from muybridge.video import Video

LIMITS = Limits()


def bomb_png(side: int) -> bytes:
    """A picture of one colour that is small as a file."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    rows = zlib.compress(b"\x00" * 1000)  # more is not looked at
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("kind", "type_"), [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp")])
def test_a_picture_is_known_by_its_content(tmp_path, kind, type_):
    path = tmp_path / "movie.mp4"
    Image.new("RGB", (24, 16), (1, 2, 3)).save(path, kind)
    found = examine(path, "mask", LIMITS)
    assert (found.kind, found.type, found.width, found.height, found.num_frames) == ("picture", type_, 24, 16, 1)


@pytest.mark.parametrize(("suffix", "type_"), [("mp4", "video/mp4"), ("gif", "image/gif"), ("webp", "image/webp")])
def test_a_video_is_known_by_its_content(tmp_path, suffix, type_):
    frames = np.random.default_rng(0).integers(0, 255, (5, 16, 24, 3), np.uint8)
    path = Video(frames).save(tmp_path / f"a.{suffix}").rename(tmp_path / "a.png")
    found = examine(path, "init_video", LIMITS)
    assert (found.kind, found.type, found.width, found.height, found.num_frames) == ("video", type_, 24, 16, 5)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a picture",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"<html><script>alert(1)</script></html>",
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"\x80\x04\x95pickle",
        b"\x89PNG\r\n\x1a\ngarbage",
        b"\xff\xd8\xff\xe0 cut",
        b"GIF89a",
        b"RIFF\x04\x00\x00\x00WEBP",
        b"\x00\x00\x00\x18ftypisom" + b"\x00" * 64,
        b"\x1a\x45\xdf\xa3" + b"\xff" * 64,
    ],
)
def test_what_is_neither_is_refused_without_its_path(tmp_path, content):
    path = tmp_path / "secret-folder-name"
    path.write_bytes(content)
    with pytest.raises(ApiError) as caught:
        examine(path, "keyframes[0]", LIMITS)
    assert caught.value.status == 400
    assert caught.value.code == "input_unreadable"
    assert caught.value.param == "keyframes[0]"
    assert str(tmp_path) not in str(caught.value)


def test_a_huge_picture_is_refused_before_it_is_decoded(tmp_path):
    path = tmp_path / "bomb"
    path.write_bytes(bomb_png(12_000))
    with pytest.raises(ApiError) as caught:
        examine(path, "mask", LIMITS)
    assert caught.value.status == 413
    assert "144000000" not in str(caught.value)
    assert "12000x12000" in str(caught.value)


def test_a_larger_one_than_pillow_itself_takes(tmp_path):
    path = tmp_path / "bomb"
    path.write_bytes(bomb_png(20_000))
    with pytest.raises(ApiError):
        examine(path, "mask", LIMITS)


@pytest.mark.parametrize("suffix", ["mp4", "gif", "webp"])
def test_frames_are_counted_while_they_are_decoded(tmp_path, suffix):
    path = Video(np.zeros((40, 16, 16, 3), np.uint8)).save(tmp_path / f"a.{suffix}")
    if suffix != "mp4":  # the same frame again and again is joined there
        frames = np.random.default_rng(0).integers(0, 255, (40, 16, 16, 3), np.uint8)
        path = Video(frames).save(path)
    with pytest.raises(ApiError) as caught:
        examine(path, "init_video", Limits(video_pixels=16 * 16 * 20))
    assert caught.value.status == 413


def test_a_cut_video_is_refused(tmp_path):
    path = Video(np.random.default_rng(0).integers(0, 255, (20, 32, 32, 3), np.uint8)).save(tmp_path / "a.mp4")
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(ApiError) as caught:
        examine(path, "init_video", LIMITS)
    assert str(tmp_path) not in str(caught.value)


def test_a_transparent_picture_is_refused_in_words(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGBA", (8, 8), (1, 2, 3, 4)).save(buffer, "PNG")
    path = tmp_path / "a"
    path.write_bytes(buffer.getvalue())
    with pytest.raises(ApiError, match="transparent"):
        examine(path, "input_reference", LIMITS)
