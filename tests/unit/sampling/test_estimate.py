"""The estimate of the finished latents is right for every solver and every kind of prediction."""

from __future__ import annotations

import pytest
import torch

from muybridge.sampling import SAMPLERS, denoise, make_plain_scheduler, set_timesteps
from muybridge.sampling.estimate import denoised_estimate
from muybridge.sampling.schedulers import ANIMATEDIFF_BETAS

KINDS = ("epsilon", "v_prediction", "sample")
BETWEEN = {"dpm++2m-karras"}
"""Whose noise levels lie between those that the model was trained on, so that it is not quite right."""
CASES = [(each.name, kind) for each in SAMPLERS for kind in KINDS if kind in each.predictions]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_what_a_perfect_prediction_says_is_the_video(name: str, kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    video, noise = (torch.randn(1, 4, 2, 3, 3, generator=generator) for _ in range(2))
    whole_steps = {"prediction_type": kind, "clip_sample": False, "timestep_spacing": "leading"}
    scheduler = make_plain_scheduler(name, {**ANIMATEDIFF_BETAS, **whole_steps})
    timestep = set_timesteps(scheduler, 5)[2]
    noisy = scheduler.add_noise(video, noise, timestep[None])
    power = scheduler.alphas_cumprod[int(timestep)]
    prediction = {
        "epsilon": noise,
        "v_prediction": power**0.5 * noise - (1 - power) ** 0.5 * video,
        "sample": video,
    }[kind]
    estimate = denoised_estimate(scheduler, timestep, scheduler.scale_model_input(noisy, timestep), prediction)
    tolerance = 0.1 if name in BETWEEN else 1e-4
    torch.testing.assert_close(estimate, video, atol=tolerance, rtol=tolerance)


def test_it_is_what_ddim_says_itself_clipped_like_there() -> None:
    scheduler = make_plain_scheduler("ddim", {**ANIMATEDIFF_BETAS, "clip_sample": True})
    timestep = set_timesteps(scheduler, 4)[1]
    sample, prediction = torch.randn(2, 1, 4, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    own = scheduler.step(prediction, timestep, sample).pred_original_sample  # type: ignore[call-arg, attr-defined]
    torch.testing.assert_close(denoised_estimate(scheduler, timestep, sample, prediction), own)


def test_noise_alone_gives_no_infinite_numbers() -> None:
    scheduler = make_plain_scheduler("ddim", {**ANIMATEDIFF_BETAS, "rescale_betas_zero_snr": True})
    timestep = set_timesteps(scheduler, 4)[0]
    sample, prediction = torch.randn(2, 1, 4, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    assert torch.isfinite(denoised_estimate(scheduler, timestep, sample, prediction)).all()


def test_reports_have_it_and_steps_are_what_they_were() -> None:
    noise = torch.randn(1, 4, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    found = []
    results = []
    for on_step in (None, lambda report: found.append(report.denoised())):
        scheduler = make_plain_scheduler("euler", ANIMATEDIFF_BETAS)
        set_timesteps(scheduler, 3)
        start = noise * float(scheduler.init_noise_sigma)
        results.append(denoise(lambda x, _: 0.3 * x, scheduler, start, scheduler.timesteps, on_step))
    assert torch.equal(*results)
    assert [each.shape for each in found] == [noise.shape] * 3
    torch.testing.assert_close(found[-1], results[0])  # the last step ends where it points
