"""Optimizations against the plain run, and those that are refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from muybridge.errors import ConfigError
from muybridge.runtime import OPTIMIZATIONS, optimize

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TRIAL: dict[str, Any] = {"prompt": "a red circle", "num_frames": 2, "num_inference_steps": 1}


def test_bfloat16_halves_the_weights_and_stays_close(make_pipeline: Any) -> None:
    pipeline = make_pipeline()

    report = optimize(pipeline, memory="bfloat16", trial=TRIAL, repeats=1)

    assert pipeline.unet.dtype == pipeline.vae.dtype == pipeline.text_encoder.dtype == torch.bfloat16
    assert {p.dtype for p in pipeline.motion_adapter.parameters()} == {torch.bfloat16}
    assert report.optimized.weight_bytes == pytest.approx(report.plain.weight_bytes / 2, rel=0.01)
    assert report.memory_ratio < 0.7
    assert 1e-4 < report.relative_error < 0.05


def test_what_does_not_change_numbers_does_not(make_pipeline: Any) -> None:
    pipeline = make_pipeline()

    report = optimize(pipeline, "gradient_checkpointing", ["channels_last", "attention:native"], TRIAL, repeats=1)

    assert report.relative_error < 1e-5
    assert pipeline.unet.is_gradient_checkpointing
    assert pipeline.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert list(report.changes) == ["gradient_checkpointing", "channels_last", "attention:native"]


def test_weights_stored_in_float8(make_pipeline: Any) -> None:
    report = optimize(make_pipeline(), memory="fp8_storage", trial=TRIAL, repeats=1)

    assert report.optimized.weight_bytes < 0.7 * report.plain.weight_bytes
    assert 1e-4 < report.relative_error < 0.3


def test_tiles_of_the_vae(make_pipeline: Any) -> None:
    pipeline = make_pipeline()

    optimize(pipeline, memory="vae_tiling", trial=TRIAL, repeats=1)

    assert pipeline.vae.use_tiling


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compilation for a CPU needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_blocks_give_the_same(make_pipeline: Any) -> None:
    pipeline = make_pipeline()

    report = optimize(pipeline, speed="compile", trial={**TRIAL, "num_inference_steps": 1}, repeats=1)

    assert report.relative_error < 1e-4
    compiled = [block for block in pipeline.unet.modules() if block._compiled_call_impl is not None]
    assert {type(block).__name__ for block in compiled} == set(pipeline.unet._repeated_blocks)


def test_the_report_reads_like_one(make_pipeline: Any) -> None:
    text = str(optimize(make_pipeline(), memory="bfloat16", trial=TRIAL, repeats=1))

    assert text.startswith("bfloat16: all networks in bfloat16\ntime ")
    assert all(word in text for word in ("weights", "peak", "error"))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["faster"], "Unknown optimization 'faster'. Known: bfloat16, float16"),
        (["bfloat16", "bfloat16"], "'bfloat16' is given twice"),
        (["bfloat16", "float16"], "bfloat16 does not work together with float16: both decide over precision"),
        (["int8_weights", "fp8_storage"], "both decide over weights"),
        (["compile", "fp8_storage"], "casting hooks change the weights"),
        (["compile", "model_offload"], "break the compiled graph"),
        (["float16"], "float16 cannot be used: .* choose bfloat16"),
        (["attention:abacus"], "no attention backend 'abacus'. Known: "),
    ],
)
def test_refused(make_pipeline: Any, names: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        optimize(make_pipeline(), names, trial=TRIAL, repeats=1)


def test_a_refusal_changes_nothing(make_pipeline: Any) -> None:
    pipeline = make_pipeline()

    with pytest.raises(ConfigError):
        optimize(pipeline, ["bfloat16", "compile", "model_offload"], trial=TRIAL)

    assert pipeline.unet.dtype == torch.float32


@pytest.mark.skipif(torch.accelerator.is_available(), reason="needs a machine without an accelerator")
@pytest.mark.parametrize("name", ["model_offload", "group_offload"])
def test_offload_needs_something_to_offload_from(make_pipeline: Any, name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} cannot be used: there is no accelerator"):
        optimize(make_pipeline(), name, trial=TRIAL)


def test_every_optimization_is_documented() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "guide" / "speed-and-memory.md").read_text()
    assert [name for name in OPTIMIZATIONS if f"`{name}`" not in page] == []
    assert len({each.does for each in OPTIMIZATIONS.values()}) == len(OPTIMIZATIONS)
    assert {each.goal for each in OPTIMIZATIONS.values()} == {"memory", "speed"}
