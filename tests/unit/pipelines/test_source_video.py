"""What is kept of a source video, and what is said of the rest."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from muybridge.errors import ConfigError, ShapeError
from muybridge.request.following import Usual, follow, followed_video
from muybridge.request.sizes import size_like, stretch_of
from muybridge.sampling import WindowSettings
from muybridge.types import VideoShape
from muybridge.video import Video

NOTHING = (None, None, None)


def black(count: int = 40, height: int = 48, width: int = 96) -> np.ndarray:
    return np.zeros((count, height, width, 3), np.uint8)


def usual(**changes: Any) -> Usual:
    settings: dict[str, Any] = {
        "num_frames": 16,
        "size": (64, 64),
        "fps": 8.0,
        "multiple": 8,
        "largest": lambda most: most // 4 * 4,
        "is_bounded": True,
        "more": "Ask for {}.".format,
    }
    return Usual(**{**settings, **changes})


def followed(*given: Any, asked: Any = NOTHING, fps: float | None = None, **changes: Any) -> tuple[Any, list[str]]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        sources = [followed_video("The source video", each) for each in given[:1] if each is not None]
        sources += [
            followed_video(f"Control video {index}" if index else "The control video", each, may_be_pictures=True)
            for index, each in enumerate(given[1:])
        ]
        found = follow(asked, fps, sources, usual(**changes))
    return found, [str(each.message) for each in said]


def test_without_a_source_a_model_makes_what_it_makes() -> None:
    assert followed() == ((VideoShape(16, 64, 64), 8.0), [])
    assert followed(asked=(5, None, 32), fps=3.0) == ((VideoShape(5, 64, 32), 3.0), [])


def test_rate_and_shape_are_the_sources_and_what_is_cut_is_said() -> None:
    found, said = followed(Video(black(), fps=25))
    assert found == (VideoShape(16, 48, 96), 25.0)
    assert said == ["The source video has 40 frames, of which the first 16 are used. Ask for 40."]


def test_a_model_that_can_takes_all() -> None:
    assert followed(black(), is_bounded=False) == ((VideoShape(40, 48, 96), 8.0), [])


def test_a_shorter_source_makes_a_shorter_video() -> None:
    assert followed(black(12))[0][0].num_frames == 12
    found, said = followed(black(10))
    assert found[0].num_frames == 8
    assert said == ["The source video has 10 frames, of which the first 8 are used. Ask for 10."]


def test_what_is_asked_for_counts() -> None:
    assert followed(Video(black(), fps=25), asked=(8, 40, 80), fps=6.0) == ((VideoShape(8, 40, 80), 6.0), [])
    found, said = followed(black(16), asked=(None, 64, 64))
    assert found[0] == VideoShape(16, 64, 64)
    assert said == [
        "The source video is 96x48 and the video 64x64: it is stretched. Leave the size out to keep its shape as far "
        "as the model can."
    ]


def test_controls_are_followed_too() -> None:
    assert followed(None, Video(black(16), fps=12)) == ((VideoShape(16, 48, 96), 12.0), [])
    assert followed(None, ["a.png"] * 12) == ((VideoShape(12, 64, 64), 8.0), [])
    _, said = followed(Video(black(16), fps=25), Video(black(20), fps=30))
    assert said == [
        "The control video has 20 frames, of which the first 16 are used. Ask for 16.",
        "The source video plays at 25 frames per second and the control video at 30. They are taken frame by frame, "
        "and the result plays at 25: bring them to one rate first.",
    ]


@pytest.mark.parametrize(
    ("source", "asked", "own", "size"),
    [
        ((1080, 1920), (None, None), (384, 672), (384, 672)),  # what the model is made for
        ((480, 640), (None, None), (512, 512), (432, 576)),
        ((1920, 1080), (None, None), (512, 512), (688, 384)),
        ((48, 96), (None, 128), (64, 64), (64, 128)),
        ((48, 96), (32, None), (64, 64), (32, 64)),
        ((10, 1000), (None, None), (64, 64), (16, 656)),
    ],
)
def test_sizes_of_the_shape_of_a_source(source: Any, asked: Any, own: Any, size: tuple[int, int]) -> None:
    found = size_like(source, asked, own, 16)
    assert found == size
    assert stretch_of(source, found) <= 0.02 or source == (10, 1000)


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (black().astype(np.float32), ShapeError, "uint8"),
        (black()[0], ShapeError, "uint8"),
        (["a.png"], ConfigError, "must be a Video or a numpy array .*; given list.*read_video"),
    ],
)
def test_sources_that_are_no_videos(source: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        followed_video("The source video", source)


def test_a_call_keeps_rate_shape_and_length(pipeline: Any) -> None:
    source = Video(black(6, 8, 32), fps=25)
    video = pipeline("a red circle", init_video=source, num_inference_steps=1, seed=1)
    assert (video.frames.shape, video.fps) == ((6, 8, 32, 3), 25.0)
    assert {name: video.request["shape"][name] for name in ("num_frames", "height", "width", "fps")} == {
        "num_frames": 6,
        "height": 8,
        "width": 32,
        "fps": 25.0,
    }
    long = Video(black(20, 8, 32), fps=25)
    with pytest.warns(UserWarning, match=r"first 16 are used. For all, give num_frames=20 with windows \(--frames 20"):
        latents = pipeline("a red circle", init_video=long, num_inference_steps=1, seed=1, output_type="latent")
    assert latents.shape[2] == 16
    windows = WindowSettings(size=16, overlap=4)
    settings: dict[str, Any] = {"windows": windows, "num_inference_steps": 1, "seed": 1, "output_type": "latent"}
    assert pipeline("a red circle", init_video=long, **settings).shape[2] == 20
