"""Likeness to true clips, drift, and the report they are put into."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from muybridge.cli.evaluate import report_lines
from muybridge.demo import evaluation
from muybridge.demo.figures import Stretch, drift_figures, frame_figures, position_figures, psnr
from muybridge.demo.measure import measure_clips
from muybridge.demo.task_report import TaskReport
from muybridge.demo.world import Scene
from muybridge.errors import ShapeError

STILL = [Scene("circle", "red", "still", background="gray"), Scene("square", "blue", "still", background="gray")]


def clips(scenes: list[Scene] | None = None) -> np.ndarray:
    return evaluation.true_clips(scenes or STILL, seed=3)


def test_psnr_is_that_of_8_bits():
    grey = np.full((3, 4, 4, 3), 100, np.uint8)
    other = grey.copy()
    other[1] += 10
    other[2, :, :2] -= 10

    values = psnr(other, grey)

    assert values[0] == pytest.approx(10 * np.log10(255**2 * 12))
    assert values[1] == pytest.approx(20 * np.log10(255 / 10))
    assert values[2] == pytest.approx(20 * np.log10(255 / 10) + 10 * np.log10(2))
    assert psnr(np.full((1, 1, 1, 3), 255, np.uint8), np.zeros((1, 1, 1, 3), np.uint8)) == pytest.approx(0)


@pytest.mark.parametrize("shape", [(2, 4, 4, 3), (4, 4, 3)])
def test_psnr_compares_as_many_pictures(shape: tuple[int, ...]):
    with pytest.raises(ShapeError, match="one shape"):
        psnr(np.zeros(shape, np.uint8), np.zeros((1, 4, 4, 3), np.uint8))


def test_pinned_frames_are_compared_in_the_mean_and_at_worst():
    truth = clips()
    made = truth.copy()
    made[0, 0] = np.clip(made[0, 0].astype(int) + 10, 0, 255)
    made[1, -1] = 0

    figures = frame_figures(made, truth, (0, -1))

    first, last = psnr(made[:, 0], truth[:, 0]), psnr(made[:, -1], truth[:, -1])
    assert figures == {
        "first_frame_psnr": round(first.mean(), 2),
        "first_frame_psnr_worst": round(first[0], 2),
        "last_frame_psnr": round(last.mean(), 2),
        "last_frame_psnr_worst": round(last[1], 2),
    }
    assert frame_figures(made, truth, (0,)).keys() == {"first_frame_psnr", "first_frame_psnr_worst"}


def test_the_error_of_the_place_is_in_pixels():
    truth = clips()
    made = truth.copy()
    made[:, 8] = np.roll(made[:, 8], (3, 4), axis=(1, 2))
    made[0, -1] = np.roll(made[0, -1], -2, axis=0)

    figures = position_figures(measure_clips(made), measure_clips(truth), width=64)

    assert figures["position_error_first"] == pytest.approx(0, abs=0.05)
    assert figures["position_error_middle"] == pytest.approx(5, abs=0.1)
    assert figures["position_error_last"] == pytest.approx(1, abs=0.1)
    assert figures["position_found"] == 1


def test_a_place_without_object_is_left_out_and_told():
    truth = clips()
    made = truth.copy()
    made[0] = 128

    one = position_figures(measure_clips(made), measure_clips(truth), width=64)
    none = position_figures(measure_clips(made)[:1], measure_clips(truth)[:1], width=64)

    assert (one["position_found"], one["position_error_first"]) == (0.5, 0)
    assert (none["position_found"], none["position_error_first"]) == (0, None)


def test_drift_is_told_for_colours_sharpness_and_place():
    begun = clips()
    later = np.roll(begun, 6, axis=3)
    later[0] += 12  # nothing in it is brighter than 220
    stretches = [Stretch(frames, measure_clips(frames)) for frames in (begun, later)]

    none, moved = drift_figures(stretches[0], stretches[0]), drift_figures(stretches[0], stretches[1])

    assert set(none.values()) == {0, 1}
    assert moved["brightness_shift"] == pytest.approx(6, abs=0.01)
    assert moved["position_shift"] == pytest.approx(6, abs=0.05)
    assert moved["contrast_ratio"] == pytest.approx(1, abs=0.001)


def test_drift_of_blank_videos_has_no_ratios_and_no_place():
    blank = np.zeros((1, 16, 64, 64, 3), np.uint8)
    stretch = Stretch(blank, measure_clips(blank))

    figures = drift_figures(stretch, stretch)

    assert (figures["sharpness_ratio"], figures["contrast_ratio"], figures["position_shift"]) == (None, None, None)


def test_a_report_holds_figures_beside_their_targets():
    columns = {"generated": {"shape": 0.75, "motion": None}, "renders": {"shape": 1.0, "flicker": 0.5}}
    sheet = np.zeros((2, 2, 3), np.uint8)
    report = TaskReport("text", 4, 7, columns, sheet, {"shape": {"ring": 0.5}}, {"shape": 0.75, "motion": 0.9})

    assert json.loads(json.dumps(report.to_dict())) == {
        "task": "text",
        "count": 4,
        "seed": 7,
        **columns,
        "by_attribute": {"shape": {"ring": 0.5}},
        "targets": {"shape": {"at_least": 0.75, "is_met": True}, "motion": {"at_least": 0.9, "is_met": False}},
    }
    assert "targets" not in replace(report, targets={}).to_dict()


def test_a_report_is_shown_as_a_table():
    columns = {"generated": {"shape": 0.7512345, "motion": 0.9}, "renders": {"shape": 1.0, "flicker": None}}
    report = TaskReport("text", 4, 7, columns, np.zeros((2, 2, 3), np.uint8), {"shape": {"ring": 0.5}}, {"shape": 0.8})

    assert report_lines(report) == [
        "text: 4 held-out prompts, seed 7",
        "         generated  renders  target",
        "shape       0.7512        1  >= 0.8, missed",
        "motion         0.9        -",
        "flicker          -        -",
        "by shape: ring 0.5",
    ]
