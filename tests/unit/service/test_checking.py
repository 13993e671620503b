"""What can be told before weights are read is told with the setting that it is about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from muybridge.errors import ConfigError, MuybridgeError, ShapeError
from muybridge.request import GenerateRequest
from muybridge.service.engine import Engine
from muybridge.video import Video

ANIMATEDIFF, EASYANIMATE = "demo/animatediff", "demo/easyanimate"


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine("cpu")


def asked(model: str, **values: Any) -> GenerateRequest:
    return GenerateRequest.parse({"prompt": "a red circle", "model": {"model": model}, **values})


def keyframes(path: Path, *frames: int) -> list[dict[str, Any]]:
    return [{"kind": "keyframes", "pictures": {str(frame): str(path) for frame in frames}}]


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    path = tmp_path / "photograph.png"
    Image.new("RGB", (96, 64), "red").save(path)
    return path


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sampling": {"scheduler": "nothing"}}, "sampling.scheduler: there is no scheduler 'nothing'. Known: ddim"),
        ({"shape": {"width": 65, "height": 64}}, r"shape.width: must be a multiple of 8 .*given 65.*64 is the nearest"),
        ({"shape": {"width": 64, "height": 65}}, "shape.height: must be a multiple"),
        ({"shape": {"num_frames": 13}}, "shape.num_frames: this model cannot make 13 frames; it can make 8"),
        ({"shape": {"num_frames": 32}, "segments": {"frames": 13}}, "segments.frames: segment_frames must be"),
        ({"shape": {"num_frames": 32}, "segments": {"frames": 8, "overlap": 8}}, "segments.overlap: overlap_frames"),
    ],
)
def test_settings_are_named(values: dict[str, Any], message: str, engine: Engine) -> None:
    with pytest.raises(MuybridgeError, match=f"^{message}"):
        engine.cost(asked(EASYANIMATE, **values))


@pytest.mark.parametrize("model", [ANIMATEDIFF, EASYANIMATE])
def test_frames_that_there_are_not(model: str, engine: Engine, tmp_path: Path) -> None:
    square = tmp_path / "square.png"
    Image.new("RGB", (64, 64)).save(square)
    with pytest.raises(ShapeError, match=r"^conditions\.0: Frame 16 is outside the video"):
        engine.cost(asked(model, conditions=keyframes(square, 0, 16)))
    with pytest.raises(ConfigError, match=r"^conditions\.0: Indexes 15 and -1 both mean frame 15"):
        engine.cost(asked(model, conditions=keyframes(square, 15, -1)))
    assert engine.cost(asked(model, conditions=keyframes(square, 0, -1))).fits


def test_a_picture_of_another_shape_is_refused_where_it_would_not_be_stretched(
    engine: Engine, photograph: Path
) -> None:
    with pytest.raises(ShapeError, match=r"^conditions\.0: The picture of frame 0 is 96x64 and the video 64x64"):
        engine.cost(asked(ANIMATEDIFF, conditions=keyframes(photograph, 0)))
    assert engine.cost(asked(EASYANIMATE, conditions=keyframes(photograph, 0))).fits


@pytest.mark.parametrize("size", [(96, 64), (64, 48), (80, 64), (64, 40), (52, 112), (70, 99)])
def test_a_size_that_follows_a_picture_goes_with_it(size: tuple[int, int], engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.new("RGB", size, "red").save(path)
    for model in (ANIMATEDIFF, EASYANIMATE):
        assert engine.cost(asked(model, shape={"fit": 64, "num_frames": 8}, conditions=keyframes(path, 0))).fits


def test_what_is_checked_is_what_is_made(engine: Engine, photograph: Path, tmp_path: Path) -> None:
    request = asked(
        ANIMATEDIFF,
        shape={"fit": 64, "num_frames": 2},
        sampling={"num_inference_steps": 1, "seed": 1},
        conditions=keyframes(photograph, 0),
    )
    assert engine.cost(request).fits
    made = engine.run(request, tmp_path / "made.mp4")
    assert (made.width, made.height) == (76, 52)


def test_a_model_of_segments_takes_pictures_at_the_ends_only(engine: Engine, tmp_path: Path) -> None:
    square = tmp_path / "square.png"
    Image.new("RGB", (64, 64)).save(square)
    with pytest.raises(ConfigError, match="keyframes 0 and -1; given 20"):
        engine.cost(asked(EASYANIMATE, shape={"num_frames": 48}, conditions=keyframes(square, 0, 20)))


def test_windows_make_as_much_as_a_source_has(engine: Engine, tmp_path: Path) -> None:
    square = tmp_path / "square.png"
    Image.new("RGB", (64, 64)).save(square)
    source = Video(np.zeros((24, 64, 64, 3), np.uint8), 8.0).save(tmp_path / "source.mp4")
    conditions = [{"kind": "source", "video": str(source)}, *keyframes(square, 20)]
    with pytest.raises(ShapeError, match="Frame 20 is outside"):
        engine.cost(asked(ANIMATEDIFF, conditions=conditions))
    assert engine.cost(asked(ANIMATEDIFF, conditions=conditions, sampling={"windows": {"size": 16}})).fits


def test_a_long_video_crops_the_picture_that_its_size_follows(engine: Engine, photograph: Path, tmp_path: Path) -> None:
    request = asked(
        ANIMATEDIFF,
        shape={"fit": 64, "num_frames": 6},
        segments={"frames": 4, "overlap": 2},
        sampling={"num_inference_steps": 1, "seed": 1},
        conditions=keyframes(photograph, 0),
    )
    assert engine.cost(request).fits
    made = engine.run(request, tmp_path / "made.mp4")
    assert (made.num_frames, made.width, made.height) == (6, 76, 52)
