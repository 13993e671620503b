"""Videos as cameras, phones, editors and old programs write them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.video.reformatter import ColorRange, Colorspace, ColorTrc
from PIL import Image

from muybridge.errors import ConfigError, InputFileError
from muybridge.video import read_facts, read_frames, read_video
from muybridge.video.picture_folder import numbered_pictures
from muybridge.video.timeline import measure

Frames = npt.NDArray[np.uint8]
ONE = 65536


def greys(count: int = 4, height: int = 48, width: int = 64) -> Frames:
    return np.stack([np.full((height, width, 3), 40 + 10 * index, np.uint8) for index in range(count)])


def write(path: Path, frames: Frames, codec: str = "libx264", kind: str = "yuv420p", **options: Any) -> Path:
    """A video file of `frames [f, h, w, 3 or 4]`; options that are not popped here are the codec's."""
    rate, times = options.pop("rate", 25), options.pop("times_ms", None)
    matrix, aspect, context = options.pop("matrix", None), options.pop("aspect", None), options.pop("context", {})
    with av.open(str(path), "w", format=options.pop("container", None)) as container:
        stream: Any = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = kind
        if matrix is not None:
            stream.set_display_matrix(matrix)
        if aspect is not None:
            stream.sample_aspect_ratio = aspect
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        for index, pixels in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(pixels), format="rgb24" if frames.shape[3] == 3 else "rgba"
            )
            space = context.get("colorspace", Colorspace.ITU601)
            picture = picture.reformat(
                format=kind, dst_colorspace=space, dst_color_range=context.get("color_range", ColorRange.MPEG)
            )
            if times is not None:
                picture.pts, picture.time_base = times[index], Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def levels(frames: Frames) -> list[int]:
    """The numbers of frames of `greys`."""
    return ((frames[:, 0, 0].mean(axis=1) - 40) / 10).round().astype(int).tolist()


TURNS = {
    "90": ((0, 1, -1, 0), 90, False),
    "180": ((-1, 0, 0, -1), 180, False),
    "270": ((0, -1, 1, 0), 270, False),
    "left-right": ((-1, 0, 0, 1), 0, True),
    "upside-down": ((1, 0, 0, -1), 180, True),
    "transposed": ((0, 1, 1, 0), 270, True),
}


@pytest.mark.parametrize("name", TURNS)
def test_a_video_is_turned_as_its_matrix_says(tmp_path: Path, name: str) -> None:
    (a, b, c, d), rotation, is_mirrored = TURNS[name]
    frames = np.full((1, 32, 48, 3), 20, np.uint8)
    frames[:, :8, :8] = 240
    matrix = [a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30]
    path = write(tmp_path / "a.mp4", frames, crf="1", matrix=matrix)

    read = read_video(path).frames[0, ..., 0]

    # Where (0, 0) comes to lie, when the middle stays.
    x, y = a * -1 + c * -1, b * -1 + d * -1
    assert read.shape == ((48, 32) if b else (32, 48))
    assert read[-4 if y > 0 else 3, -4 if x > 0 else 3] > 200
    assert (read > 128).sum() < 100
    facts = read_facts(path)
    assert (facts.traits.rotation, facts.traits.is_mirrored) == (rotation, is_mirrored)
    assert (facts.height, facts.width) == read.shape


def test_a_video_turned_by_less_than_a_quarter_is_refused(tmp_path: Path) -> None:
    part = int(ONE * 0.7071)
    path = write(tmp_path / "a.mp4", greys(1), matrix=[part, part, 0, -part, part, 0, 0, 0, 1 << 30])
    with pytest.raises(InputFileError, match="turned by 45 degrees; only quarters"):
        read_video(path)


@pytest.mark.parametrize(("aspect", "size"), [(Fraction(16, 11), (48, 93)), (Fraction(3, 4), (64, 64))])
def test_pixels_that_are_not_square_are_stretched(tmp_path: Path, aspect: Fraction, size: tuple[int, int]) -> None:
    path = write(tmp_path / "a.mp4", greys(2), aspect=aspect)
    assert read_video(path).frames.shape == (2, *size, 3)
    assert read_facts(path).traits.pixel_aspect == pytest.approx(float(aspect))


def see_through(opacity: int) -> Frames:
    frames = np.full((3, 48, 64, 4), (200, 200, 200, 255), np.uint8)
    frames[:, :, 32:, 3] = opacity
    return frames


@pytest.mark.parametrize(
    ("name", "codec", "kind"),
    [("a.mov", "qtrle", "argb"), ("a.webm", "libvpx-vp9", "yuva420p"), ("b.mov", "prores_ks", "yuva444p10le")],
)
def test_transparent_videos_are_refused_and_opaque_ones_read(tmp_path: Path, name: str, codec: str, kind: str) -> None:
    path = write(tmp_path / name, see_through(255), codec, kind)
    assert np.abs(read_video(path).frames.astype(int) - 200).max() <= 3
    write(path, see_through(0), codec, kind)
    with pytest.raises(InputFileError, match="Frame 0 is partly transparent; put it on a background"):
        read_video(path)
    with pytest.raises(InputFileError, match="partly transparent"):
        list(read_frames(path))
    assert read_facts(path).traits.has_alpha


UNEVEN = (0, 40, 80, 120, 160, 1160, 2160, 3160)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_uneven_times_are_kept_at_a_constant_rate(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, greys(8), times_ms=UNEVEN)
    with pytest.warns(UserWarning, match=r"variable rate.* stay for 0.04 to 1 s; .* at 25 frames per second: 8 frames"):
        video = read_video(path)
    assert video.fps == 25
    assert levels(video.frames) == [0, 1, 2, 3, *[4] * 25, *[5] * 25, *[6] * 25, 7]
    with pytest.warns(UserWarning, match="variable rate"):
        pieces = list(read_frames(path, start=20, count=40, piece_frames=7))
    assert np.array_equal(np.concatenate(pieces), video.frames[20:60])
    assert read_facts(path).is_variable
    assert read_facts(path).num_frames == len(video.frames)


def test_a_pause_without_end_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", greys(4), times_ms=(0, 10, 20, 10**9))
    for read in (read_facts, read_video):
        with pytest.raises(
            InputFileError, match=r"stays for 1e\+06 s: at 100 .* become 100000004\. Cut such pauses out"
        ):
            read(path)


def test_long_pauses_are_counted_without_going_through_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.mkv", greys(4), times_ms=(0, 10, 20, 9 * 10**6))
    monkeypatch.setattr("muybridge.video.reading.spread", None)
    assert read_facts(path).num_frames == 900_004


@pytest.mark.parametrize(
    ("times", "declared", "fps"),
    [
        ([round(index / 30, 3) for index in range(31)], None, 30.0),  # in milliseconds
        ([0.0, 0.042, 0.083, 0.125, 0.167], 24000 / 1001, 24000 / 1001),
        ([0.0, 0.038, 0.081, 0.119, 0.161, 0.2], 25.0, 25.0),  # a camera's jitter
        ([0.0, 0.02, 0.04, 0.06, 0.08], 25.0, 25.0),  # two fields a frame
        ([0.0, 0.1, 0.2, 0.3], 1000.0, 10.0),  # a file that says what is not so
        ([5.0, 5.2, 5.4], None, 5.0),
        ([-0.08, -0.04, 0.0], None, 25.0),
        ([1.0], 7.0, 7.0),
        ([1.0], 90_000.0, None),
    ],
)
def test_even_times_are_the_rate_that_the_file_means(times: list[float], declared: float | None, fps: Any) -> None:
    timing = measure(times, 0.0, 0.001, declared)
    assert timing.is_even
    assert timing.note is None
    assert timing.fps == (fps if fps is None else pytest.approx(fps, rel=1e-9))


def test_a_frame_that_was_dropped_is_repeated(tmp_path: Path) -> None:
    times = [33 * index for index in range(12) if index != 5]
    with pytest.warns(UserWarning, match="at 30 frames per second: 11 frames become 12"):
        video = read_video(write(tmp_path / "a.mkv", greys(11), times_ms=times))
    assert levels(video.frames) == [0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 9, 10]


@pytest.mark.parametrize(
    ("name", "codec", "kind", "options"),
    [
        ("a.avi", "mjpeg", "yuvj420p", {}),
        ("b.avi", "mpeg4", "yuv420p", {"bf": "2"}),
        ("a.mpg", "mpeg1video", "yuv420p", {}),
        ("b.mpg", "mpeg2video", "yuv420p", {"bf": "2"}),
        ("a.wmv", "wmv2", "yuv420p", {"container": "asf"}),
        ("a.flv", "flv", "yuv420p", {}),
        ("a.mov", "qtrle", "rgb24", {}),
        ("a.ts", "libx264", "yuv420p", {"container": "mpegts", "bf": "3"}),
        ("a.mkv", "libx264", "yuv420p", {"bf": "3"}),
        ("a.webm", "libvpx-vp9", "yuv420p", {}),
        ("a.3gp", "mpeg4", "yuv420p", {"container": "3gp"}),
        ("a.h264", "libx264", "yuv420p", {"container": "h264", "bf": "3"}),
        ("a.m2v", "mpeg2video", "yuv420p", {"container": "mpeg2video"}),
    ],
)
def test_containers_and_codecs_give_their_frames_in_order(
    tmp_path: Path, name: str, codec: str, kind: str, options: dict[str, Any]
) -> None:
    video = read_video(write(tmp_path / name, greys(9), codec, kind, **options))
    assert levels(video.frames) == list(range(9))
    assert video.fps == 25


def test_no_more_is_read_than_asked_for(tmp_path: Path) -> None:
    video = read_video(write(tmp_path / "a.mp4", greys(9)), 4)
    assert (levels(video.frames), video.fps) == ([0, 1, 2, 3], 25)
    with pytest.raises(ConfigError, match="count must be at least 1; given 0"):
        read_video(tmp_path / "a.mp4", 0)


def test_odd_sizes(tmp_path: Path) -> None:
    assert read_video(write(tmp_path / "a.mov", greys(2, 31, 45), "qtrle", "rgb24")).frames.shape == (2, 31, 45, 3)


@pytest.mark.parametrize(
    ("space", "span", "kind"),
    [
        (Colorspace.ITU709, ColorRange.MPEG, "yuv444p"),
        (Colorspace.ITU601, ColorRange.MPEG, "yuv444p"),
        (Colorspace.ITU709, ColorRange.JPEG, "yuv444p"),
        (Colorspace.BT2020, ColorRange.MPEG, "yuv444p10le"),
        (None, ColorRange.MPEG, "yuv444p"),
    ],
)
@pytest.mark.parametrize("height", [16, 720])
def test_colours_are_those_that_the_file_means(
    tmp_path: Path, space: Any, span: ColorRange, kind: str, height: int
) -> None:
    colours = np.repeat(np.array([[[200, 30, 40], [30, 200, 60], [40, 50, 220]]], np.uint8), 16, axis=1)
    frames = np.broadcast_to(colours, (1, height, *colours.shape[1:]))
    context = {"colorspace": space, "color_range": span}
    if space is None:  # large videos that do not say it mean BT.709, small ones BT.601
        space = Colorspace.ITU709 if height > 576 else Colorspace.ITU601
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frames[0]), format="rgb24")
        context = {}
        planes = picture.reformat(format=kind, dst_colorspace=space)
        with av.open(str(tmp_path / "a.mp4"), "w") as container:
            stream: Any = container.add_stream("libx264", rate=25, options={"crf": "1"})
            stream.height, stream.width, stream.pix_fmt = height, 48, kind
            container.mux(stream.encode(planes))
            container.mux(stream.encode())
    else:
        write(tmp_path / "a.mp4", frames, "libx264", kind, crf="1", context=context)
    assert np.abs(read_video(tmp_path / "a.mp4").frames.astype(int) - frames).max() <= 4


def test_high_range_and_interlaced_videos_say_so(tmp_path: Path) -> None:
    context = {"color_trc": ColorTrc.SMPTE2084}
    bright = write(tmp_path / "hdr.mp4", greys(2), "libx264", "yuv420p10le", context=context)
    with pytest.warns(UserWarning, match=r"hdr\.mp4 is of high dynamic range \(PQ\)"):
        read_video(bright)
    woven = write(tmp_path / "tv.mp4", greys(2), **{"x264-params": "tff=1"})
    with pytest.warns(UserWarning, match=r"tv\.mp4 is interlaced"):
        read_video(woven)
    assert (read_facts(bright).traits.high_range, read_facts(woven).traits.is_interlaced) == ("PQ", True)


def test_what_an_edit_list_cuts_is_not_shown(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", greys(8), times_ms=[40 * index - 120 for index in range(8)], g="8")
    video = read_video(path)
    assert levels(video.frames) == [3, 4, 5, 6, 7]
    assert video.fps == 25


def test_a_late_start_is_no_gap(tmp_path: Path) -> None:
    video = read_video(write(tmp_path / "a.mkv", greys(4), times_ms=[5000, 5040, 5080, 5120]))
    assert (levels(video.frames), video.fps) == ([0, 1, 2, 3], 25)


def test_sound_alone_is_refused_by_words(tmp_path: Path) -> None:
    for name, codec in (("a.mp4", "aac"), ("a.wav", "pcm_s16le"), ("a.flac", "flac")):
        with av.open(str(tmp_path / name), "w") as container:
            stream: Any = container.add_stream(codec, rate=8000)
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
            sound.sample_rate = 8000
            container.mux(stream.encode(sound))
            container.mux(stream.encode())
        with pytest.raises(InputFileError, match="It holds sound and no moving pictures"):
            read_video(tmp_path / name)


@pytest.mark.parametrize("name", ["a.mkv", "a.avi", "a.flv"])
def test_a_file_that_ends_too_early_is_refused_with_what_is_there(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(256, size=(50, 48, 64, 3), dtype=np.uint8)
    codec = {"a.mkv": "libx264", "a.avi": "mpeg4", "a.flv": "flv"}[name]
    path = write(tmp_path / name, noise, codec)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputFileError, match=r"It is cut short: of . s only|cut short, or of no known kind"):
        read_video(path)


def animation(path: Path, durations: Sequence[int], **options: Any) -> Path:
    first, *others = [Image.fromarray(frame) for frame in greys(len(durations), 8, 8)]
    first.save(path, save_all=True, append_images=others, duration=list(durations), **options)
    return path


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp"])
def test_animated_pictures_keep_their_times(tmp_path: Path, name: str) -> None:
    options = {"lossless": True} if name == "a.webp" else {}
    even = read_video(animation(tmp_path / name, [120, 130, 120, 130], **options))
    assert (levels(even.frames), even.fps) == ([0, 1, 2, 3], 8)
    path = animation(tmp_path / name, [100, 100, 100, 500], **options)
    with pytest.warns(UserWarning, match=r"stay for 0.1 to 0.5 s; .* at 10 frames per second: 4 frames become 8"):
        held = read_video(path)
    assert (levels(held.frames), held.fps) == ([0, 1, 2, 3, 3, 3, 3, 3], 10)
    with pytest.warns(UserWarning, match="variable rate"):
        assert np.array_equal(np.concatenate(list(read_frames(path, 2, 4, 3))), held.frames[2:6])


def test_a_picture_before_the_animation_is_not_part_of_it(tmp_path: Path) -> None:
    path = animation(tmp_path / "a.png", [100, 100, 100], default_image=True)
    assert levels(read_video(path).frames) == [1, 2]


@pytest.mark.parametrize("disposal", [0, 1, 2, 3])
def test_frames_of_a_gif_are_drawn_as_their_disposal_says(tmp_path: Path, disposal: int) -> None:
    red, dot = Image.new("RGBA", (8, 8), (250, 0, 0, 255)), Image.new("RGBA", (8, 8))
    dot.putpixel((0, 0), (0, 250, 0, 255))
    red.save(tmp_path / "a.gif", save_all=True, append_images=[dot, red], duration=100, disposal=disposal)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            frames = read_video(tmp_path / "a.gif").frames
        except InputFileError as error:
            assert "partly transparent" in str(error)  # noqa: PT017  # what the disposal uncovers
            return
    assert frames[1, 0, 0].tolist() == [0, 250, 0]
    assert frames[1, 4, 4].tolist() == [250, 0, 0]


@pytest.mark.parametrize("name", ["a.jpg", "a.bmp", "a.tif", "a.webp", "a.gif", "a.avif", "a.png"])
def test_one_picture_is_a_video_of_one_frame(tmp_path: Path, name: str) -> None:
    Image.new("RGB", (32, 16), (200, 30, 40)).save(tmp_path / name)
    video = read_video(tmp_path / name)
    assert video.frames.shape == (1, 16, 32, 3)
    assert np.abs(video.frames.astype(int) - (200, 30, 40)).max() < 12
    facts = read_facts(tmp_path / name)
    assert (facts.num_frames, facts.height, facts.width, facts.fps) == (1, 16, 32, 8.0)


def test_a_picture_of_a_phone_is_upright_as_a_video_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (32, 16)).save(tmp_path / "a.jpg", exif=exif)
    assert read_video(tmp_path / "a.jpg").frames.shape == (1, 32, 16, 3)
    assert (read_facts(tmp_path / "a.jpg").height, read_facts(tmp_path / "a.jpg").width) == (32, 16)


def folder_of(path: Path, *names: str) -> Path:
    path.mkdir(exist_ok=True)
    for index, name in enumerate(names):
        Image.fromarray(greys(index + 1, 8, 8)[-1]).save(path / name)
    return path


@pytest.mark.parametrize(
    "names",
    [
        [f"frame{index}.png" for index in range(1, 12)],
        [f"img_{index:04d}.JPG" for index in range(95, 106)],
        ["0.png", "1.PNG", "2.jpg", "3.bmp", "4.tif", "5.webp"],
        ["clip2-frame_8_depth.png", "clip2-frame_9_depth.png", "clip2-frame_10_depth.png"],
        ["a0.png", "a10.png", "a20.png", "a30.png"],
    ],
)
def test_pictures_of_any_usual_numbering(tmp_path: Path, names: list[str]) -> None:
    folder = folder_of(tmp_path / "in", *names)
    for other in ("Thumbs.db", ".DS_Store", "sound1.wav", "notes2.txt", "._frame1.png"):
        (folder / other).write_bytes(b"no picture")
    assert levels(read_video(folder).frames) == list(range(len(names)))
    assert levels(next(read_frames(folder, start=1, piece_frames=2))) == [1, 2]


def test_pictures_left_out_and_gaps_are_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "in", "1.png", "2.png", "5.png", "cover.png")
    with pytest.warns(UserWarning, match="in (lacks|holds)") as said:
        assert len(read_video(folder)) == 3
    texts = [str(each.message) for each in said]
    assert any("lacks numbers 3 to 4:" in text for text in texts)
    assert any("without a number that are left out: cover.png." in text for text in texts)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["a1.png", "a2.png", "b1.png"],
            "several series of numbered pictures, 'a1.png' of one and 'b1.png' of another",
        ),
        (["s1_f1.png", "s1_f2.png", "s2_f1.png"], "differ in more than one number"),
        (["1.png", "01.png"], "Two pictures have the number 1"),
        (["cover.png"], "no numbered pictures"),
        ([], "no numbered pictures"),
    ],
)
def test_folders_that_can_be_meant_in_two_ways_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    folder = folder_of(tmp_path / "in", *names)
    with pytest.raises(InputFileError, match=message):
        read_video(folder)
    with pytest.raises(InputFileError, match=message):
        numbered_pictures(folder)


def test_a_transparent_picture_in_a_folder_is_refused_by_name(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "in", "0.png", "1.png")
    Image.new("RGBA", (8, 8), (9, 9, 9, 9)).save(folder / "1.png")
    with pytest.raises(InputFileError, match=r"in cannot be used as a video\. 1\.png is partly transparent"):
        read_video(folder)
