"""The small EasyAnimate inside the package."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from muybridge import load_pipeline
from muybridge.checkpoints import locate_model
from muybridge.demo.measure import measure_clip
from muybridge.pipelines import EasyAnimatePipeline
from muybridge.pipelines.planning import plan_video
from muybridge.runtime.plan import PlanSettings
from muybridge.types import VideoShape

MODEL = "demo/easyanimate"


@pytest.fixture(scope="module")
def pipeline() -> EasyAnimatePipeline:
    loaded = load_pipeline(MODEL)
    assert isinstance(loaded, EasyAnimatePipeline)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in locate_model(MODEL).rglob("*") if path.is_file()) <= 16e6


def test_colour_background_and_motion_follow_the_prompt(pipeline: EasyAnimatePipeline) -> None:
    video = pipeline("a red circle moving left on a white background", seed=1)

    found = measure_clip(video.frames)

    assert (found.colour, found.background, found.motion) == ("red", "white", "moving left")


def test_a_given_frame_comes_back(pipeline: EasyAnimatePipeline) -> None:
    picture = np.full((64, 64, 3), 255, np.uint8)
    picture[20:44, 10:34] = (30, 90, 220)

    video = pipeline("a blue square still on a white background", keyframes={0: Image.fromarray(picture)}, seed=1)
    other = pipeline("a blue square still on a white background", seed=1)

    def distance(frames: np.ndarray) -> float:
        return float(np.abs(frames[0].astype(int) - picture).mean())

    assert distance(video.frames) < distance(other.frames) / 2


def test_its_memory_can_be_planned() -> None:
    plan = plan_video(MODEL, VideoShape(16, 64, 64), device="cpu", choices=(PlanSettings("float32"),))

    assert set(plan.runs[0].peaks) == {"text", "denoise", "decode", "conditions"}
    assert 30e6 < plan.runs[0].peak < 300e6
