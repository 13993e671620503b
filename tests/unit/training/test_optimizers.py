"""Optimizers as settings: what they make of a method's parameters, and what they refuse."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from muybridge.errors import ConfigError
from muybridge.training.muon import Muon
from muybridge.training.optimizers import OptimizerName, OptimizerSettings, TrainingOptimizer, make_optimizer
from muybridge.training.schedules import ScheduleSettings

PACKAGES = {"adamw8bit": "torchao", "prodigy": "prodigyopt", "schedule-free": "schedulefree"}


def installed(name: str) -> bool:
    return name not in PACKAGES or importlib.util.find_spec(PACKAGES[name]) is not None


def every_optimizer() -> list[Any]:
    compiled = pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torchao compiles its step
    return [
        pytest.param(
            name,
            marks=[
                pytest.mark.skipif(not installed(name), reason="not installed"),
                *(compiled if name == "adamw8bit" else ()),
            ],
        )
        for name in ("muon", "adamw", *PACKAGES)
    ]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 2))


def rate_of(name: str) -> float:
    return 1.0 if name == "prodigy" else 0.01


def settings(name: OptimizerName, **others: Any) -> OptimizerSettings:
    return OptimizerSettings(name=name, **others)


def train(method: nn.Module, optimizer: TrainingOptimizer, steps: int, first: int = 0) -> float:
    loss = torch.zeros(())
    for step in range(first, first + steps):
        inputs = torch.randn(32, 64, generator=torch.Generator().manual_seed(step))
        loss = (method(inputs) - inputs[:, :2].flip(1)).square().mean()
        loss.backward()
        optimizer.set_rate(min(1.0, (step + 1) / 4))
        optimizer.step()
    return float(loss.detach())


def weights(method: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in method.state_dict().items()}


@pytest.mark.parametrize("name", every_optimizer())
def test_the_loss_falls(name: OptimizerName) -> None:
    method = network()
    optimizer = make_optimizer(settings(name), method, rate_of(name), 0.01)
    first = train(method, optimizer, 1)
    steps = 160 if name == "prodigy" else 40  # it looks for its rate first
    assert train(method, optimizer, steps, first=1) < 0.6 * first


@pytest.mark.parametrize("name", every_optimizer())
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(name: OptimizerName, tmp_path: Path) -> None:
    whole, first, second = network(), network(), network()
    train(whole, make_optimizer(settings(name), whole, rate_of(name), 0.01), 6)
    begun = make_optimizer(settings(name), first, rate_of(name), 0.01)
    train(first, begun, 3)
    torch.save({"weights": first.state_dict(), "optimizers": begun.state_dict()}, tmp_path / "state.pt")

    settings(name).check()
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    second.load_state_dict(state["weights"])
    resumed = make_optimizer(settings(name), second, rate_of(name), 0.01)
    resumed.load_state_dict(state["optimizers"])
    train(second, resumed, 3, first=3)

    assert all(torch.equal(value, second.state_dict()[n]) for n, value in whole.state_dict().items())


@pytest.mark.parametrize("name", every_optimizer())
def test_what_is_evaluated_is_put_back(name: OptimizerName) -> None:
    method = network()
    optimizer = make_optimizer(settings(name), method, rate_of(name), 0.01)
    train(method, optimizer, 5)
    trained = weights(method)
    with optimizer.averaged():
        evaluated = weights(method)
    assert all(torch.allclose(value, method.state_dict()[n], atol=1e-6) for n, value in trained.items())
    moved = not torch.equal(evaluated["0.weight"], trained["0.weight"])
    assert moved == (name == "schedule-free")


def test_the_default_is_muon_for_hidden_matrices_and_adamw_for_the_rest() -> None:
    method = network()
    matrices, others = make_optimizer(OptimizerSettings(), method, 0.02, 0.03).optimizers
    assert isinstance(matrices, Muon)
    assert matrices.param_groups[0]["lr"] == 0.02
    assert matrices.param_groups[0]["momentum"] == 0.95
    assert [p.ndim for p in matrices.param_groups[0]["params"]] == [2, 2]
    (group,) = others.param_groups
    assert (group["lr"], group["betas"], group["weight_decay"], group["eps"]) == (0.03, (0.9, 0.95), 0.0, 1e-8)
    assert [p.ndim for p in group["params"]] == [1, 1]


def test_the_settings_arrive() -> None:
    given = settings("adamw", betas=(0.8, 0.9), weight_decay=0.2, epsilon=1e-6)
    (group,) = make_optimizer(given, network(), 0.02, 0.5).optimizers[0].param_groups
    assert (group["lr"], group["betas"], group["weight_decay"], group["eps"]) == (0.02, (0.8, 0.9), 0.2, 1e-6)
    assert make_optimizer(settings("adamw"), network(), 0.02, 0.5).optimizers[0].param_groups[0]["weight_decay"] == 0.01
    muon, rest = make_optimizer(settings("muon", weight_decay=0.1, momentum=0.9), network(), 0.02, 0.03).optimizers
    assert (muon.param_groups[0]["weight_decay"], muon.param_groups[0]["momentum"]) == (0.1, 0.9)
    assert rest.param_groups[0]["weight_decay"] == 0.1


def test_rates_follow_a_factor_of_their_peaks() -> None:
    optimizer = make_optimizer(OptimizerSettings(), network(), 0.02, 0.03)
    optimizer.set_rate(0.1)
    optimizer.set_rate(0.5)
    assert [o.param_groups[0]["lr"] for o in optimizer.optimizers] == [0.01, 0.015]


def test_what_is_frozen_is_left_alone() -> None:
    method = network()
    method[0].requires_grad_(False)
    before = weights(method)
    optimizer = make_optimizer(settings("adamw"), method, 0.01, 0.01)
    train(method, optimizer, 2)
    assert torch.equal(method.state_dict()["0.weight"], before["0.weight"])
    assert {id(p) for p in optimizer.parameters} == {id(p) for p in method[2].parameters()}
    with pytest.raises(ConfigError, match="Nothing to train"):
        make_optimizer(settings("adamw"), method.requires_grad_(False), 0.01, 0.01)


@pytest.mark.parametrize("name", list(PACKAGES))
def test_a_library_that_is_missing_is_named(name: OptimizerName, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (PACKAGES[name], f"{PACKAGES[name]}.optim"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(ConfigError, match=rf"{name} needs {PACKAGES[name]}: pip install 'muybridge\[optimizers\]'"):
        settings(name).check()


def test_settings_that_have_no_effect_are_refused() -> None:
    with pytest.raises(ValidationError, match="momentum is muon's"):
        settings("adamw", momentum=0.9)
    with pytest.raises(ValidationError, match=r"given \[0.9, 1.0\]"):
        settings("adamw", betas=(0.9, 1.0))


def test_prodigy_is_not_given_a_rate_of_other_optimizers() -> None:
    with pytest.raises(ConfigError, match=r"usually 1; given 0.002"):
        make_optimizer(settings("prodigy"), network(), 0.002, 0.002)


@pytest.mark.skipif(not installed("schedule-free"), reason="not installed")
def test_schedule_free_refuses_a_schedule() -> None:
    with pytest.raises(ConfigError, match="given the schedule cosine"):
        settings("schedule-free").check(ScheduleSettings(name="cosine"))
    settings("schedule-free").check(ScheduleSettings(name="constant"))


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_parts_have_rates_of_their_own(name: Any) -> None:
    class Method(nn.Module):
        rate_factors = {"text.": 0.5}

        def __init__(self) -> None:
            super().__init__()
            self.text, self.backbone = nn.Linear(3, 3), nn.Linear(3, 3)

    method = Method()
    optimizer = make_optimizer(OptimizerSettings(name=name), method, 0.1, 0.1)
    optimizer.set_rate(0.5)

    groups = [group for each in optimizer.optimizers for group in each.param_groups]
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    assert rates[id(method.text.weight)] == rates[id(method.text.bias)] == 0.025
    assert rates[id(method.backbone.weight)] == rates[id(method.backbone.bias)] == 0.05
