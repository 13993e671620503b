"""Gradients through the U-Net, with and without checkpointing, and compilation of the whole of it."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.backbones.unet.layers import Downsample, ResidualBlock, SpatialTransformer, Upsample
from muybridge.motion import MotionModule

Inputs = tuple[Tensor, Tensor, Tensor]
IN_ROWS = (ResidualBlock, SpatialTransformer, MotionModule)


def train_once(unet: UNet3DConditionModel, inputs: Inputs) -> tuple[Tensor, dict[str, Tensor], Counter[str]]:
    calls: Counter[str] = Counter()

    def count(name: str) -> object:
        return unet.get_submodule(name).register_forward_pre_hook(lambda *_: calls.update([name]))

    hooks = [count(name) for name, m in unet.named_modules() if isinstance(m, (*IN_ROWS, Downsample, Upsample))]
    unet.zero_grad()
    loss = unet(*inputs).sample.square().mean()
    loss.backward()
    for hook in hooks:
        assert isinstance(hook, torch.utils.hooks.RemovableHandle)
        hook.remove()
    gradients = {name: p.grad.clone() for name, p in unet.named_parameters() if p.grad is not None}
    return loss.detach(), gradients, calls


@pytest.mark.parametrize("frozen_image_model", [False, True])
def test_checkpointing_runs_every_row_again_and_changes_no_gradient(
    moving: UNet3DConditionModel, inputs: Inputs, frozen_image_model: bool
) -> None:
    if frozen_image_model:
        for name, parameter in moving.named_parameters():
            parameter.requires_grad_("motion_modules" in name)
    loss, gradients, calls = train_once(moving, inputs)
    assert set(calls.values()) == {1}
    moving.enable_gradient_checkpointing()
    loss_again, gradients_again, calls_again = train_once(moving, inputs)
    moving.disable_gradient_checkpointing()
    for name, times in calls_again.items():
        expected = 2 if isinstance(moving.get_submodule(name), IN_ROWS) else 1
        assert times == expected, name
    assert calls_again.keys() == calls.keys()
    assert torch.equal(loss, loss_again)
    assert gradients.keys() == gradients_again.keys() == {n for n, p in moving.named_parameters() if p.requires_grad}
    for name, gradient in gradients.items():
        assert torch.allclose(gradients_again[name], gradient, rtol=1e-4, atol=1e-7), name
    assert set(train_once(moving, inputs)[2].values()) == {1}


def test_gradients_reach_all_weights_and_all_inputs(moving: UNet3DConditionModel, inputs: Inputs) -> None:
    sample, text = inputs[0].clone().requires_grad_(), inputs[2].clone().requires_grad_()
    moving(sample, inputs[1], text).sample.square().mean().backward()
    dead = {
        n for n, p in moving.named_parameters() if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()
    }
    assert dead == set()
    for value in (sample, text):
        assert value.grad is not None
        assert value.grad.abs().max() > 0


def test_the_path_without_gradients_gives_the_same(moving: UNet3DConditionModel, inputs: Inputs) -> None:
    recorded = moving(*inputs).sample.detach()
    with torch.no_grad():
        plain = moving(*inputs).sample
    assert (plain - recorded).abs().max() <= 1e-5 * recorded.abs().max()


@pytest.mark.slow
def test_compiles_without_graph_breaks(moving: UNet3DConditionModel, inputs: Inputs) -> None:
    compiled = torch.compile(moving, fullgraph=True, backend="eager")
    with torch.no_grad():
        found, expected = compiled(*inputs).sample, moving(*inputs).sample
    torch.compiler.reset()
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_repeated_blocks_are_named_as_they_are(moving: UNet3DConditionModel) -> None:
    names = {type(module).__name__ for module in moving.modules()}
    assert set(UNet3DConditionModel._repeated_blocks) <= names
    assert set(UNet3DConditionModel._no_split_modules) <= names
    assert all(isinstance(blocks, nn.ModuleList) for blocks in (moving.down_blocks, moving.up_blocks))
