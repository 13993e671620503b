"""Drift of long videos."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from muybridge.errors import ConfigError, ShapeError
from muybridge.longvideo import DriftReport, measure_segment


def noise(seed: int = 0, low: int = 60, high: int = 180, num_frames: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, size=(num_frames, 20, 24, 3), dtype=np.uint8)


def test_statistics_of_known_pictures() -> None:
    red = np.zeros((2, 5, 4, 3), np.uint8)
    red[..., 0] = 200
    found = measure_segment(3, red)
    assert (found.index, found.num_frames, found.sharpness) == (3, 2, 0.0)
    assert found.mean == pytest.approx((59.8, -33.7472, 100.0))
    assert found.deviation == pytest.approx((0, 0, 0), abs=1e-4)
    grey = np.zeros((1, 4, 4, 3), np.uint8)
    grey[:, ::2] = 100
    found = measure_segment(0, grey)
    assert found.mean == pytest.approx((50, 0, 0), abs=1e-3)
    assert found.deviation == pytest.approx((50, 0, 0), abs=1e-3)
    # Rows 100, 0, 100, 0, continued beyond the edges: -100, 200, -200, 100.
    assert found.sharpness == pytest.approx(np.var([-100, 200, -200, 100]))


def test_pieces_give_the_same_as_the_whole() -> None:
    frames = np.random.default_rng(1).integers(256, size=(9, 200, 300, 3), dtype=np.uint8)
    found = measure_segment(0, frames)
    luma = frames @ np.array([0.299, 0.587, 0.114])
    assert found.mean[0] == pytest.approx(luma.mean())
    assert found.deviation[0] == pytest.approx(luma.std())
    assert found.sharpness == pytest.approx(np.mean([measure_segment(0, f[None]).sharpness for f in frames]))


def test_drift_against_the_first_segment() -> None:
    first = noise()
    brighter = first + np.uint8(20)
    softer = ((first.astype(int) + np.roll(first, 1, 2) + np.roll(first, 1, 1)) // 3).astype(np.uint8)
    report = DriftReport(tuple(measure_segment(i, frames) for i, frames in enumerate([first, brighter, softer])))
    assert report.drift(0).mean_shift == (0, 0, 0)
    assert report.drift(0).sharpness_ratio == 1
    assert report.drift(1).mean_shift == pytest.approx((20, 0, 0), abs=1e-3)
    assert report.drift(1).deviation_ratio == pytest.approx((1, 1, 1), abs=1e-3)
    assert report.drift(1).sharpness_ratio == pytest.approx(1, abs=1e-3)
    softness = report.drift(-1).sharpness_ratio
    assert softness is not None
    assert softness < 0.5
    with pytest.raises(ConfigError, match="3 segments; given 3"):
        report.drift(3)


def test_report_as_plain_values() -> None:
    flat = np.full((1, 4, 4, 3), 90, np.uint8)
    report = DriftReport((measure_segment(0, flat), measure_segment(1, noise())))
    plain = report.to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["channels"] == ["brightness", "blueness", "redness"]
    assert [segment["index"] for segment in plain["segments"]] == [0, 1]
    # Nothing is a multiple of a flat picture's sharpness.
    assert plain["segments"][1]["sharpness_ratio"] is None
    assert plain["segments"][1]["sharpness"] > 0
    assert DriftReport(()).to_dict()["segments"] == []


def test_wrong_frames() -> None:
    wrong: Any
    for wrong in (noise()[:0], noise().astype(np.float32), noise()[0]):
        with pytest.raises(ShapeError):
            measure_segment(0, wrong)
