"""What an image model predicts, as its file, its folder or its user says."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from muybridge.checkpoints.prediction import (
    PREDICTIONS,
    Prediction,
    prediction_of_file,
    prediction_of_scheduler,
    prediction_type,
    without_marks,
)
from muybridge.errors import CheckpointError, ConfigError

MARK = torch.tensor([])


def found(state: dict[str, Tensor], metadata: dict[str, str] | None = None, asked: str | None = None) -> Prediction:
    return prediction_of_file(state, metadata or {}, "m.safetensors", asked)


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_spellings(kind: str) -> None:
    for spelling in PREDICTIONS[kind]:
        assert prediction_type(spelling) == prediction_type(f" {spelling.upper()}") == kind


def test_an_unknown_spelling_lists_the_known() -> None:
    with pytest.raises(ConfigError, match=r"Unknown prediction 'flow'\. Known: epsilon \(or eps, noise\); v_pred"):
        prediction_type("flow")


@pytest.mark.parametrize(
    ("state", "metadata", "kind", "zero_snr", "said_by"),
    [
        ({}, {}, "epsilon", False, "nothing, so as most models"),
        ({"v_pred": MARK}, {}, "v_prediction", False, "key v_pred"),
        ({"v_pred": MARK, "ztsnr": MARK}, {}, "v_prediction", True, "key v_pred"),
        ({}, {"modelspec.prediction_type": "v"}, "v_prediction", False, "header entry modelspec.prediction_type"),
        ({}, {"modelspec.prediction_type": "v_prediction"}, "v_prediction", False, "header entry modelspec.pre"),
        ({}, {"modelspec.prediction_type": "epsilon"}, "epsilon", False, "header entry modelspec.prediction_type"),
        ({}, {"ss_v_parameterization": "True"}, "v_prediction", False, "header entry ss_v_parameterization"),
        ({}, {"ss_v_parameterization": "False"}, "epsilon", False, "header entry ss_v_parameterization"),
        (
            {},
            {"ss_v_parameterization": "True", "ss_zero_terminal_snr": "True"},
            "v_prediction",
            True,
            "header entry ss",
        ),
        ({"v_pred": MARK}, {"ss_zero_terminal_snr": "False"}, "v_prediction", False, "key v_pred"),
        ({}, {"format": "pt", "modelspec.title": "x"}, "epsilon", False, "nothing"),
    ],
)
def test_what_a_file_says(
    state: dict[str, Tensor], metadata: dict[str, str], kind: str, zero_snr: bool, said_by: str
) -> None:
    prediction = found(state, metadata)
    assert (prediction.type, prediction.zero_snr) == (kind, zero_snr)
    assert prediction.said_by.startswith(said_by)


def test_the_word_of_a_user_counts_before_the_file_with_a_note_where_they_differ() -> None:
    with pytest.warns(UserWarning, match=r"says that it predicts v_prediction \(key v_pred\), and is run as.* epsilon"):
        assert found({"v_pred": MARK, "ztsnr": MARK}, asked="eps").settings() == Prediction().settings()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert found({}, asked="v").type == "v_prediction"
        assert found({"v_pred": MARK}, asked="v").type == "v_prediction"


def test_what_contradicts_itself_is_noted() -> None:
    with pytest.warns(UserWarning, match=r"two things: its key v_pred.*header entry.*epsilon\. The key is believed"):
        assert found({"v_pred": MARK}, {"modelspec.prediction_type": "epsilon"}).type == "v_prediction"
    with pytest.warns(UserWarning, match=r"start from pure noise and to predict that noise.*--prediction v"):
        assert not found({"ztsnr": MARK}).zero_snr
    with pytest.warns(UserWarning, match="start from pure noise"):
        assert not prediction_of_scheduler({"rescale_betas_zero_snr": True}, "m").zero_snr


def test_what_no_motion_module_was_made_for_is_refused() -> None:
    for key in ("edm_mean", "edm_vpred.sigma_max"):
        with pytest.raises(CheckpointError, match=f"noise levels of EDM \\({key} is among its keys\\)"):
            found({key: MARK}, asked="v")
    with pytest.raises(CheckpointError, match=r"predicts 'rectified flow', which is not known.*--prediction: epsilon"):
        found({}, {"modelspec.prediction_type": "rectified flow"})
    assert found({}, {"modelspec.prediction_type": "rectified flow"}, asked="v").type == "v_prediction"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, ("epsilon", False)),
        ({"prediction_type": "sample"}, ("sample", False)),
        ({"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}, ("v_prediction", True)),
    ],
)
def test_what_a_folder_says(config: dict[str, Any], expected: tuple[str, bool]) -> None:
    prediction = prediction_of_scheduler(config, "folder")
    assert (prediction.type, prediction.zero_snr) == expected


def test_marks_are_no_weights() -> None:
    assert without_marks({"v_pred": MARK, "ztsnr": MARK, "a": MARK}).keys() == {"a"}
