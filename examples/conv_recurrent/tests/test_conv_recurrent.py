"""The kind `conv_recurrent` keeps to the contract of motion modules, in both of its forms, and remembers."""

from __future__ import annotations

import pytest
import torch
from muybridge.authoring.checks import MotionCheckReport, check_motion_module
from muybridge.errors import ConfigError
from muybridge.motion import motion_module_class

from conv_recurrent import ConvRecurrentConfig, ConvRecurrentMotionModule
from conv_recurrent.motion import blend


def status(report: MotionCheckReport, name: str) -> str:
    return next(result.status for result in report.results if result.name == name)


def test_it_is_known_by_its_name():
    assert motion_module_class("conv_recurrent") is ConvRecurrentMotionModule


def test_it_keeps_to_the_contract():
    report = check_motion_module("conv_recurrent")

    assert report.passed, str(report)
    assert status(report, "causality") == "not applicable"


def test_in_one_direction_it_is_causal_too():
    report = check_motion_module("conv_recurrent", {"bidirectional": False, "kernel_size": 4})

    assert report.passed, str(report)
    assert status(report, "causality") == "passed"


def test_the_recurrence_is_the_weighted_sum_that_it_stands_for():
    gates, candidates = torch.rand(2, 5, 3), torch.randn(2, 5, 3)
    expected = torch.zeros(2, 5, 3)
    for now in range(5):
        for then in range(now + 1):
            kept = (1 - gates[:, then + 1 : now + 1]).prod(dim=1)
            expected[:, now] += kept * gates[:, then] * candidates[:, then]

    torch.testing.assert_close(blend(gates, candidates), expected)


@pytest.mark.parametrize("wrong", [{"hidden_width": 7}, {"kernel_size": 2}, {"kernel_size": 0, "bidirectional": False}])
def test_wrong_settings_are_refused(wrong: dict[str, int]):
    with pytest.raises(ConfigError, match="conv_recurrent needs"):
        ConvRecurrentConfig(**wrong)
