"""Schedulers by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, PNDMScheduler

from muybridge.errors import ConfigError
from muybridge.sampling import make_scheduler, scheduler_names

# diffusers hands tensors to numpy in a way that numpy will give up.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

ZERO_SNR: dict[str, Any] = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.001,
    "beta_end": 0.02,
    "num_train_timesteps": 500,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
}


def test_ddim_has_the_settings_of_animatediff() -> None:
    scheduler = make_scheduler("ddim")
    scheduler.set_timesteps(25)

    assert isinstance(scheduler, DDIMScheduler)
    assert scheduler.timesteps.tolist() == list(range(961, 0, -40))
    assert torch.allclose(scheduler.betas, torch.linspace(0.00085, 0.012, 1000))
    assert scheduler.config["clip_sample"] is False
    assert scheduler.config["prediction_type"] == "epsilon"
    assert float(scheduler.final_alpha_cumprod) == 1.0


@pytest.mark.parametrize("name", scheduler_names())
def test_every_scheduler_has_the_betas_of_animatediff(name: str) -> None:
    scheduler: Any = make_scheduler(name)

    assert torch.allclose(scheduler.betas, torch.linspace(0.00085, 0.012, 1000))


@pytest.mark.parametrize("name", ["ddim", "euler", "euler-a", "pndm"])
def test_steps_are_spaced_as_animatediff_has_them(name: str) -> None:
    scheduler = make_scheduler(name)
    scheduler.set_timesteps(10)

    # A set, as PNDM takes its second step twice.
    assert {float(timestep) for timestep in scheduler.timesteps} == set(range(1, 1000, 100))


@pytest.mark.parametrize("name", ["dpm++2m", "unipc"])
def test_solvers_of_higher_order_start_where_animatediff_does(name: str) -> None:
    scheduler = make_scheduler(name)
    scheduler.set_timesteps(10)

    assert int(scheduler.timesteps[0]) == 901
    assert len(scheduler.timesteps) == 10


def test_karras_differs_from_plain() -> None:
    plain, karras = make_scheduler("dpm++2m"), make_scheduler("dpm++2m-karras")
    plain.set_timesteps(10)
    karras.set_timesteps(10)

    assert plain.timesteps.tolist() != karras.timesteps.tolist()


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(ConfigError, match=r"Unknown scheduler 'dimm'\. Known: ddim, dpm") as caught:
        make_scheduler("dimm")
    assert all(name in str(caught.value) for name in scheduler_names())


@pytest.mark.parametrize("name", sorted(set(scheduler_names()) - {"pndm"}))
def test_what_a_model_was_trained_with_is_taken_over(name: str) -> None:
    scheduler: Any = make_scheduler(name, DDIMScheduler(**ZERO_SNR, clip_sample=True))

    assert {key: scheduler.config[key] for key in ZERO_SNR} == ZERO_SNR
    assert len(scheduler.betas) == 500
    assert float(scheduler.alphas_cumprod[-1]) < 1e-6
    assert scheduler.config.get("clip_sample", False) is False


def test_karras_is_kept_for_a_model_with_its_own_scheduler() -> None:
    assert make_scheduler("dpm++2m-karras", DDIMScheduler(**ZERO_SNR)).config["use_karras_sigmas"] is True


def test_spacing_of_stable_diffusions_own_scheduler_is_taken_over() -> None:
    own = PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1)

    scheduler = make_scheduler("euler", own)

    assert isinstance(scheduler, EulerDiscreteScheduler)
    assert scheduler.config["beta_schedule"] == "scaled_linear"
    assert scheduler.config["timestep_spacing"] == "leading"


def test_a_solver_that_cannot_start_from_zero_signal_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'pndm' cannot start from zero signal.* Use one of ddim, euler") as caught:
        make_scheduler("pndm", DDIMScheduler(**ZERO_SNR))
    assert "pndm" not in str(caught.value).split("Use one of")[1]
