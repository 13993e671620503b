"""Quantized weights, where torchao is installed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from muybridge.errors import ConfigError
from muybridge.runtime import optimize
from muybridge.runtime.quantization import quantize

pytestmark = pytest.mark.filterwarnings("ignore")  # torchao's own
TRIAL: dict[str, Any] = {"prompt": "a red circle", "num_frames": 2, "num_inference_steps": 1}


@pytest.mark.parametrize("scheme", ["int8_weights", "int8_dynamic"])
def test_quantized_weights_take_less_and_stay_close(make_pipeline: Any, scheme: str) -> None:
    pytest.importorskip("torchao")

    report = optimize(make_pipeline(), scheme, trial=TRIAL, repeats=1)

    assert report.optimized.weight_bytes < 0.85 * report.plain.weight_bytes
    assert 1e-5 < report.relative_error < 0.2


def test_only_large_layers_are_quantized() -> None:
    pytest.importorskip("torchao")
    network = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 8))

    quantize(network, "int8_weights")

    assert type(network[0].weight.data) is not torch.Tensor
    assert type(network[1].weight.data) is torch.Tensor


def test_a_network_without_large_layers_is_refused() -> None:
    pytest.importorskip("torchao")
    with pytest.raises(ConfigError, match="no linear layer of 32 features"):
        quantize(nn.Linear(8, 8), "int8_weights")


def test_a_lora_is_fused_first(make_pipeline: Any) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    pipeline = make_pipeline()
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["to_q"]), pipeline.unet)

    with pytest.raises(ConfigError, match=r"fuse it with pipe.fuse_lora\(\)"):
        optimize(pipeline, "int8_weights", trial=TRIAL)
