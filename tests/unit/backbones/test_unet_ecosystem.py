"""What tools of diffusers, accelerate and peft do to any model, they can do to the U-Net with its motion modules."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from diffusers.hooks import apply_group_offloading
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.motion.attention import Attention

Inputs = tuple[Tensor, Tensor, Tensor]
CPU = torch.device("cpu")


def run(unet: nn.Module, inputs: Inputs) -> Tensor:
    with torch.no_grad():
        return unet(*inputs).sample


def difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


GROUPS: list[dict[str, Any]] = [
    {"offload_type": "leaf_level"},
    {"offload_type": "block_level", "num_blocks_per_group": 1},
]


@pytest.mark.parametrize("options", GROUPS, ids=lambda options: options["offload_type"])
@pytest.mark.parametrize("as_method", [True, False])
def test_group_offloading(
    moving: UNet3DConditionModel, inputs: Inputs, options: dict[str, Any], as_method: bool
) -> None:
    expected = run(moving, inputs)
    if as_method:
        moving.enable_group_offload(onload_device=CPU, offload_device=CPU, **options)
    else:
        apply_group_offloading(moving, onload_device=CPU, offload_device=CPU, **options)
    for _ in range(2):
        assert difference(run(moving, inputs), expected) <= 1e-5


@pytest.mark.parametrize("options", GROUPS, ids=lambda options: options["offload_type"])
def test_group_offloading_to_disk(
    moving: UNet3DConditionModel, inputs: Inputs, options: dict[str, Any], tmp_path: Path
) -> None:
    expected = run(moving, inputs)
    # Between its calls a layer has no weights at all, so one that is used without being called shows.
    moving.enable_group_offload(onload_device=CPU, offload_device=CPU, offload_to_disk_path=str(tmp_path), **options)
    for _ in range(2):
        assert difference(run(moving, inputs), expected) <= 1e-5
    assert list(tmp_path.iterdir())


def test_sequential_offloading(moving: UNet3DConditionModel, inputs: Inputs) -> None:
    expected = run(moving, inputs)
    cpu_offload(moving, CPU)
    assert {parameter.device.type for parameter in moving.parameters()} == {"meta"}
    assert difference(run(moving, inputs), expected) <= 1e-5


def test_layerwise_casting(moving: UNet3DConditionModel, inputs: Inputs) -> None:
    rounded = copy.deepcopy(moving)
    cast = [
        name
        for name, module in moving.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and not re.search("norm|time_embedding", name)
    ]
    with torch.no_grad():
        for name in cast:
            for parameter in rounded.get_submodule(name).parameters():
                parameter.copy_(parameter.to(torch.float8_e4m3fn))
    plain = run(moving, inputs)
    moving.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    for _ in range(2):
        assert difference(run(moving, inputs), run(rounded, inputs)) <= 1e-5
    assert difference(run(moving, inputs), plain) > 1e-3
    stored = {name: p.dtype for name, p in moving.named_parameters()}
    assert {stored[f"{name}.weight"] for name in cast} == {torch.float8_e4m3fn}
    assert {dtype for name, dtype in stored.items() if "norm" in name} == {torch.float32}


def test_an_attention_backend_reaches_every_attention(moving: UNet3DConditionModel, inputs: Inputs) -> None:
    attentions = [module for module in moving.modules() if isinstance(module, Attention)]
    assert len(attentions) == 4 * 2 + 7 * 2  # spatial transformers, of two; motion modules, of two
    expected = run(moving, inputs)
    moving.set_attention_backend("native")
    assert all(attention.processor._attention_backend == "native" for attention in attentions)
    assert torch.equal(run(moving, inputs), expected)
    moving.reset_attention_backend()
    assert {attention.processor._attention_backend for attention in attentions} == {None}


@pytest.mark.parametrize("target", ["proj_in", "to_q", "to_out.0", "ff.net.0.proj"])
def test_lora_finds_the_layers_and_acts(moving: UNet3DConditionModel, inputs: Inputs, target: str) -> None:
    expected = run(moving, inputs)
    torch.manual_seed(0)
    # Only the spatial transformers, where proj_in is a 1 x 1 convolution.
    config = LoraConfig(r=2, target_modules=rf".*\.attentions\..*{re.escape(target)}")
    inject_adapter_in_model(config, moving)
    assert difference(run(moving, inputs), expected) <= 1e-5
    added = [parameter for name, parameter in moving.named_parameters() if "lora_B" in name]
    assert len(added) >= 4
    for parameter in added:
        nn.init.normal_(parameter, std=0.5)
    assert difference(run(moving, inputs), expected) > 1e-3
