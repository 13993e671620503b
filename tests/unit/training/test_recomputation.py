"""Blocks that are computed again, or compiled, give what they gave."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from tests.training_processes import METHODS, PlainMethod, clips
from torch import Tensor, nn

from muybridge.errors import ConfigError
from muybridge.training.config import Recomputation
from muybridge.training.recomputation import blocks_of, compile_blocks, recompute


def gradients(method: nn.Module) -> dict[str, Tensor]:
    method.train()
    torch.manual_seed(0)  # of dropout
    method(clips(0), torch.Generator().manual_seed(0))["loss"].backward()
    return {name: p.grad for name, p in method.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("mode", ["blocks", "selective"])
@pytest.mark.parametrize("kind", ["unet", "transformer"])
def test_gradients_stay_what_they_are(kind: str, mode: Recomputation) -> None:
    plain = METHODS[kind]()
    again = deepcopy(plain)
    recompute(again, mode)
    before, after = gradients(plain), gradients(again)
    assert before.keys() == after.keys()
    assert before
    assert all(torch.allclose(after[name], before[name], rtol=1e-5, atol=1e-7) for name in before)


def kept_for_backward(mode: Recomputation) -> int:
    method = METHODS["transformer"]()
    recompute(method, mode)
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        method(clips(0), torch.Generator().manual_seed(0))
    return sum(sizes.values())


def test_blocks_keep_less() -> None:
    assert kept_for_backward("blocks") < 0.8 * kept_for_backward("none")


def test_methods_without_such_networks_are_refused() -> None:
    recompute(PlainMethod(), "none")
    with pytest.raises(ConfigError, match="gradient_checkpointing selective has no effect"):
        recompute(PlainMethod(), "selective")
    with pytest.raises(ConfigError, match="compile has no effect"):
        compile_blocks(PlainMethod())


def test_blocks_are_found_in_every_network() -> None:
    assert [type(block).__name__ for block in blocks_of(PlainMethod())] == ["Block"] * 3
    names = {type(block).__name__ for block in blocks_of(METHODS["unet"]())}
    assert {"DownLevel", "MidLevel", "UpLevel"} <= names


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_compiled_blocks_train_alike() -> None:
    plain = METHODS["transformer"]()
    compiled = deepcopy(plain)
    compile_blocks(compiled)
    before, after = gradients(plain), gradients(compiled)
    assert before.keys() == after.keys()
    assert all(torch.allclose(after[name], before[name], rtol=1e-3, atol=1e-5) for name in before)
