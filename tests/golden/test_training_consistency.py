"""Equality of consistency distillation with the public scripts, on the numbers that they gave."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from muybridge.sampling.schedulers import ANIMATEDIFF_BETAS, EASYANIMATE_BETAS
from muybridge.training.objective.consistency import ConsistencyObjective, Distilling

RUNS = ("sd_eps_huber", "sd_v_l2", "animatediff_eps_huber", "easyanimate_v_huber", "easyanimate_eps_l2")
LEVELS = {
    "sd": {**ANIMATEDIFF_BETAS, "beta_schedule": "scaled_linear"},
    "animatediff": ANIMATEDIFF_BETAS,
    "easyanimate": {name: value for name, value in EASYANIMATE_BETAS.items() if name.startswith(("beta", "num"))},
}


def assert_close(found: Tensor, recorded: Tensor, limit: float = 1e-5) -> None:
    assert float((found - recorded).abs().max() / recorded.abs().max()) <= limit


@pytest.mark.parametrize("run", RUNS)
def test_a_step_equals_the_public_scripts(golden: Any, run: str) -> None:
    tensors, meta = golden("train_lcm_distillation")
    how = meta["runs"][run]
    given = {k.removeprefix(f"inputs/{run}."): v for k, v in tensors.items() if k.startswith(f"inputs/{run}.")}
    recorded = {k.removeprefix(f"outputs/{run}."): v for k, v in tensors.items() if k.startswith(f"outputs/{run}.")}
    scheduler = DDIMScheduler(**LEVELS[how["scheduler"]], prediction_type=how["prediction_type"], clip_sample=False)
    huber = how["huber_c"] if how["loss_type"] == "huber" else None
    objective = ConsistencyObjective(scheduler, Distilling(how["K"], huber=huber))

    # The scripts count guidance without the text's own share.
    stretch = objective.stretch(given["latents"], given["noise"], given["index"], given["w"] + 1)
    further = objective.step(stretch, given["teacher_cond"], given["teacher_uncond"])
    student = given["student"].clone().requires_grad_()
    prediction = objective.consistent(student, stretch.start, stretch.noisy)
    target = objective.consistent(given["target_net"], stretch.end, further)
    loss = objective.loss(prediction, target)
    loss.backward()

    assert torch.equal(stretch.start, recorded["start_timesteps"])
    assert torch.equal(stretch.end, recorded["end_timesteps"])
    assert_close(stretch.noisy, recorded["noisy"])
    assert_close(further, recorded["x_prev"])
    assert_close(prediction.detach(), recorded["model_pred"])
    assert_close(target, recorded["target"])
    assert_close(loss.detach(), recorded["loss"])
    assert student.grad is not None
    assert_close(student.grad, recorded["grad_student"], 1e-4)
