"""Schedulers by name."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, LCMScheduler, PNDMScheduler
from torch import Tensor

from muybridge.errors import ConfigError
from muybridge.sampling import (
    SAMPLERS,
    denoise,
    find_sampler,
    make_plain_scheduler,
    make_scheduler,
    scheduler_names,
    set_timesteps,
)

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
    set_timesteps(scheduler, 25)

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
    set_timesteps(scheduler, 10)

    # A set, as PNDM takes its second step twice.
    assert {float(timestep) for timestep in scheduler.timesteps} == set(range(1, 1000, 100))


@pytest.mark.parametrize("name", ["dpm++2m", "unipc"])
def test_solvers_of_higher_order_start_where_animatediff_does(name: str) -> None:
    scheduler = make_scheduler(name)
    set_timesteps(scheduler, 10)

    assert int(scheduler.timesteps[0]) == 901
    assert len(scheduler.timesteps) == 10


def test_karras_differs_from_plain() -> None:
    plain, karras = make_scheduler("dpm++2m"), make_scheduler("dpm++2m-karras")
    set_timesteps(plain, 10)
    set_timesteps(karras, 10)

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


STABLE_DIFFUSION = PNDMScheduler(
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, skip_prk_steps=True
)
"""What the folders of Stable Diffusion 1.5 and of its finetunes come with."""


def run(scheduler: Any, num_steps: int) -> list[Tensor]:
    set_timesteps(scheduler, num_steps)
    start = torch.randn(1, 4, 2, 4, 4, generator=torch.Generator().manual_seed(0)) * float(scheduler.init_noise_sigma)
    found = []

    def predict(latents: Tensor, timestep: Tensor) -> Tensor:
        found.append(latents)
        return torch.tanh(latents) * (0.5 + timestep / 2000)

    draws = "generator" in inspect.signature(scheduler.step).parameters
    options = {"generator": torch.Generator().manual_seed(1)} if draws else {}
    found.append(denoise(predict, scheduler, start, scheduler.timesteps, step_options=options))
    return found


@pytest.mark.parametrize("num_steps", [1, 2, 4, 8])
def test_lightning_steps_equal_its_published_scheduler(num_steps: int) -> None:
    published = EulerDiscreteScheduler.from_config(
        STABLE_DIFFUSION.config, timestep_spacing="trailing", beta_schedule="linear"
    )

    expected, found = run(published, num_steps), run(make_scheduler("euler-trailing"), num_steps)

    assert len(found) == num_steps + 1
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("num_steps", [4, 6, 8])
def test_lcm_steps_equal_its_published_scheduler(num_steps: int) -> None:
    published = LCMScheduler.from_config(STABLE_DIFFUSION.config, beta_schedule="linear")

    expected, found = run(published, num_steps), run(make_scheduler("lcm"), num_steps)

    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_lightning_starts_at_the_noisiest_level() -> None:
    assert set_timesteps(make_scheduler("euler-trailing"), 4).tolist() == [999, 749, 499, 249]
    assert set_timesteps(make_scheduler("euler"), 4).tolist() == [751, 501, 251, 1]


def test_trailing_is_kept_for_a_model_with_its_own_scheduler() -> None:
    scheduler = make_scheduler("euler-trailing", make_scheduler("ddim"))

    assert scheduler.config["timestep_spacing"] == "trailing"
    assert scheduler.config["beta_schedule"] == "linear"
    assert make_plain_scheduler("euler-trailing", {"beta_end": 0.02}).config["timestep_spacing"] == "trailing"


@pytest.mark.parametrize("name", scheduler_names())
def test_every_sampler_makes_its_own_number_of_steps(name: str) -> None:
    sampler = find_sampler(name)

    latents = run(make_scheduler(name), sampler.steps)

    assert len(latents) - 1 in (sampler.steps, sampler.steps + 1)  # PNDM takes one twice
    assert torch.isfinite(latents[-1]).all()
    assert 1 <= sampler.guidance_scale <= 10


def test_names_of_samplers_are_all_different() -> None:
    assert len({sampler.name for sampler in SAMPLERS}) == len(SAMPLERS)


@pytest.mark.parametrize("num_steps", [0, -1, 1001])
def test_impossible_numbers_of_steps_are_refused(num_steps: int) -> None:
    with pytest.raises(ConfigError, match=rf"from 1 to 1000; given {num_steps}"):
        set_timesteps(make_scheduler("ddim"), num_steps)


def test_what_a_solver_itself_refuses_is_said() -> None:
    with pytest.raises(ConfigError, match="LCMScheduler cannot make 100 steps"):
        set_timesteps(make_scheduler("lcm"), 100)
