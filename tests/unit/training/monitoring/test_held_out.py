"""The loss at fixed noise: it is the same for the same weights, and moves when they do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.unit.training.monitoring.small import Adapted, Trainer, Whole, batches
from torch import Tensor, nn

from muybridge.errors import ConfigError
from muybridge.training.monitoring.held_out import (
    MIDDLE,
    TIMESTEPS,
    HeldOutLoss,
    fixed_losses,
    fixed_noise,
    scaled_timestep,
)

LEVELS = {f"t{timestep}" for timestep in TIMESTEPS}
MIDDLE_LEVELS = {f"t{timestep}" for timestep in MIDDLE}


def levels(values: dict[str, float], name: str) -> set[str]:
    return {key.partition("/")[2] for key in values if key.startswith(f"{name}/")}


def test_one_value_a_noise_level_and_gaps(tmp_path: Path):
    trainer = Trainer(Adapted().train(), tmp_path)
    looks = HeldOutLoss(batches(1), batches(2), every=10, count=2, noises=2)
    state = torch.random.get_rng_state()
    first = looks.observe(trainer, 0)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert trainer.method.training
    assert first == looks.observe(trainer, 10)
    assert all(levels(first, name) == LEVELS for name in ("held_out_loss", "training_loss", "gap"))
    assert all(levels(first, name) == MIDDLE_LEVELS for name in ("adapter_gap", "shuffled_gap"))
    assert first["gap/t50"] == pytest.approx(first["held_out_loss/t50"] / first["training_loss/t50"] - 1)


def test_gaps_open_when_the_adapter_does_something(tmp_path: Path):
    method = Adapted()
    looks = HeldOutLoss(batches(1), batches(2), every=10, count=1)
    first = looks.observe(Trainer(method, tmp_path), 0)
    assert all(first[f"adapter_gap/{level}"] == 0 for level in MIDDLE_LEVELS)
    assert all(first[f"shuffled_gap/{level}"] == pytest.approx(0, abs=1e-5) for level in MIDDLE_LEVELS)
    nn.init.normal_(method.along.weight, std=0.3)
    later = looks.observe(Trainer(method, tmp_path), 10)
    assert all(abs(later[f"adapter_gap/{level}"]) > 1e-3 for level in MIDDLE_LEVELS)
    assert all(abs(later[f"shuffled_gap/{level}"]) > 1e-4 for level in MIDDLE_LEVELS)
    assert method.is_on


def test_what_has_no_adapter_has_no_gap_of_it(tmp_path: Path):
    values = HeldOutLoss(batches(1), batches(2), every=10, count=1).observe(Trainer(Whole(), tmp_path), 0)
    assert levels(values, "adapter_gap") == set()
    assert levels(values, "shuffled_gap") == MIDDLE_LEVELS


def test_where_nothing_is_held_out_the_training_clips_are_measured(tmp_path: Path):
    both = HeldOutLoss(batches(2), batches(2), every=10, count=1).observe(Trainer(Adapted(), tmp_path), 0)
    alone = HeldOutLoss(None, batches(2), every=10, count=1).observe(Trainer(Adapted(), tmp_path), 0)
    assert {name.partition("/")[0] for name in alone} == {"training_loss", "adapter_gap", "shuffled_gap"}
    assert alone.items() <= both.items()


def test_it_is_the_loss_that_is_trained():
    method, batch = Whole(), batches(1)(0)
    with torch.no_grad():
        latents, told = method.encode(batch)
        losses = []
        for number in range(4):
            drawn = method.objective.show(latents, fixed_noise(method, latents, 3, number), torch.tensor([150, 150]))
            losses.append(float(method.objective.loss(drawn, method.predict(drawn, told))["loss"]))
        assert fixed_losses(method, batch, 3, (150,))[150] == pytest.approx(sum(losses) / 4)


def test_pictures_have_no_frames_to_shuffle():
    method = Whole()
    one = {"pixels": batches(1)(0)["pixels"][:, :1]}
    with torch.no_grad():
        assert fixed_losses(method, one, 0, (350,), shuffled=True) == {}
        assert fixed_losses(method, one, 0, (350,)).keys() == {350}


def test_noise_levels_are_scaled_to_the_schedule():
    assert [scaled_timestep(Whole(100), timestep) for timestep in (50, 350, 999)] == [5, 35, 99]


def test_what_is_no_denoising_network_has_one_value(tmp_path: Path):
    class Other(nn.Linear):
        def forward(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:  # type: ignore[override]
            noise = torch.randn(1, generator=generator)
            loss = super().forward(batch["pixels"]).square().mean() + noise.square().sum()
            (weighed_by,) = torch.autograd.grad(loss, self.weight, retain_graph=True)
            return {"loss": loss + weighed_by.norm()}

    values = HeldOutLoss(batches(1), batches(1), every=1).observe(Trainer(Other(8, 1), tmp_path), 0)
    assert values.keys() == {"held_out_loss/all", "training_loss/all"}
    assert values["held_out_loss/all"] == values["training_loss/all"] > 0


@pytest.mark.parametrize("wrong", [{"every": 0}, {"count": 0}, {"noises": 0}])
def test_impossible_numbers_are_refused(wrong: dict[str, int]):
    with pytest.raises(ConfigError, match="one"):
        HeldOutLoss(batches(1), batches(2), **{"every": 1, **wrong})
