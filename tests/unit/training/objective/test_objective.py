"""Noise levels, noise and losses that a training objective is made of."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from pydantic import ValidationError
from torch import Tensor

from muybridge.errors import ConfigError
from muybridge.training.objective.diffusion import DiffusionObjective
from muybridge.training.objective.draws import draw_noise, draw_timesteps, share_noise
from muybridge.training.objective.settings import ObjectiveSettings

VIDEO = torch.Size((2, 4, 6, 8, 8))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def objective(prediction_type: Any = "epsilon", **settings: Any) -> DiffusionObjective:
    levels: Any = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear", "clip_sample": False}
    return DiffusionObjective(
        DDIMScheduler(**levels, prediction_type=prediction_type), ObjectiveSettings.model_validate(settings)
    )


def latents(shape: torch.Size = VIDEO) -> Tensor:
    return torch.randn(shape, generator=generator(9))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"min_snr": 5, "snr_loss": True}, "min_snr"),
        ({"motion_sub_loss": 0.25, "snr_loss": True}, "motion_sub_loss"),
        ({"timestep_shift": 3}, "timesteps: shifted"),
        ({"timesteps": "logit-normal", "timestep_shift": 3}, "given timesteps: logit-normal"),
        ({"noise_sharing": "mixing"}, "shared_noise"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ObjectiveSettings.model_validate(settings)


@pytest.mark.parametrize("settings", [{"min_snr": 0}, {"shared_noise": 1}, {"timesteps": "even"}, {"gamma": 5}])
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ObjectiveSettings.model_validate(settings)


@pytest.mark.parametrize("name", ["learned_range", "snr_loss"])
def test_what_is_for_noise_is_refused_for_velocity(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} .*v_prediction"):
        objective("v_prediction", **{name: True})


def test_a_variance_needs_a_schedule_with_signal_to_the_end() -> None:
    scheduler = DDIMScheduler(prediction_type="epsilon", rescale_betas_zero_snr=True)
    with pytest.raises(ConfigError, match="has none"):
        DiffusionObjective(scheduler, ObjectiveSettings(learned_range=True))


def test_a_variance_needs_a_network_that_gives_it() -> None:
    learning = objective(learned_range=True)
    drawn = learning.draw(latents(), generator())
    with pytest.raises(ConfigError, match=r"8 output channels.*this one has 4"):
        learning.loss(drawn, drawn.target)
    with pytest.raises(ConfigError, match="this one has 4"):
        learning.check_channels(4, 4)
    learning.check_channels(8, 4)
    objective().check_channels(4, 4)


def test_shifted_levels_have_a_shift_of_three_unless_given() -> None:
    assert ObjectiveSettings(timesteps="shifted").shift == 3
    assert ObjectiveSettings.shifted(1.5).shift == 1.5
    assert ObjectiveSettings().shift == ObjectiveSettings(timesteps="logit-normal").shift == 1


def test_the_default_draws_a_level_and_then_noise() -> None:
    drawn = objective().draw(latents(), generator(3))
    expected = generator(3)
    levels = (torch.rand(2, generator=expected) * 1000).long()
    noise = torch.randn(VIDEO, generator=expected)

    assert torch.equal(drawn.timesteps, levels)
    assert torch.equal(drawn.target, noise)
    assert torch.equal(drawn.noisy, objective().scheduler.add_noise(latents(), noise, levels))  # type: ignore[arg-type]


def test_the_default_loss_is_the_mean_squared_error_of_the_first_channels() -> None:
    drawn = objective().draw(latents(), generator())
    output = torch.randn(2, 8, *VIDEO[2:], generator=generator(1))
    terms = objective().loss(drawn, output)
    assert terms.keys() == {"loss"}
    assert torch.equal(terms["loss"], F.mse_loss(output[:, :4], drawn.target))


def test_logit_normal_levels_are_mostly_in_the_middle() -> None:
    levels = draw_timesteps(ObjectiveSettings(timesteps="logit-normal"), 20_000, 1000, generator()).float()
    quartiles = torch.quantile(levels, torch.tensor([0.25, 0.5, 0.75]))
    assert quartiles.tolist() == pytest.approx([337, 499, 662], abs=12)
    assert levels.min() >= 0
    assert levels.max() <= 999


def test_a_noise_offset_is_the_same_in_all_frames() -> None:
    plain, offset = (draw_noise(ObjectiveSettings(noise_offset=share), VIDEO, generator(5)) for share in (0.0, 0.1))
    expected = generator(5)
    torch.randn(VIDEO, generator=expected)
    added = 0.1 * torch.randn(2, 4, 1, 1, 1, generator=expected)
    assert torch.allclose(offset - plain, added.expand(VIDEO), atol=1e-6)


def test_a_noise_offset_is_for_pictures_too() -> None:
    noise = draw_noise(ObjectiveSettings(noise_offset=5.0), torch.Size((3, 4, 8, 8)), generator())
    assert noise.mean(dim=(2, 3)).std() > 2


def test_shared_noise_keeps_its_variance_and_its_likeness() -> None:
    noise = draw_noise(ObjectiveSettings(shared_noise=0.8), torch.Size((4, 4, 6, 32, 32)), generator())
    frames = noise.transpose(0, 2).flatten(1)
    assert frames.std(dim=1).tolist() == pytest.approx([1] * 6, abs=0.03)
    likeness = torch.corrcoef(frames)
    assert likeness[0, 1] == pytest.approx(0.8, abs=0.02)
    assert likeness[2, 4] == pytest.approx(0.64, abs=0.03)


def test_easyanimates_shared_noise_loses_variance() -> None:
    noise = share_noise(torch.randn(4, 4, 6, 32, 32, generator=generator()), 0.5, preserving=False)
    assert noise[:, :, -1].var() == pytest.approx(1 / 3, abs=0.03)


def test_pictures_have_no_frames_to_share_noise_or_motion_between() -> None:
    pictures = latents(torch.Size((2, 4, 8, 8)))
    with pytest.raises(ConfigError, match="shared_noise"):
        objective(shared_noise=0.5).draw(pictures, generator())
    moving = objective(motion_sub_loss=0.25)
    drawn = moving.draw(pictures, generator())
    with pytest.raises(ConfigError, match="motion_sub_loss"):
        moving.loss(drawn, drawn.noisy)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_min_snr_weighs_the_mean_error_of_each_sample(prediction_type: str) -> None:
    weighing = objective(prediction_type, min_snr=5.0)
    drawn = weighing.show(latents(), latents().flip(0), torch.tensor([20, 700]))
    output = drawn.target + torch.tensor([1.0, 2.0]).view(2, 1, 1, 1, 1)
    alphas = weighing.scheduler.alphas_cumprod[[20, 700]].double()
    ratio = alphas / (1 - alphas)
    weights = ratio.clamp(max=5) / (ratio if prediction_type == "epsilon" else ratio + 1)
    expected = (weights * torch.tensor([1.0, 4.0])).mean()
    assert float(weighing.loss(drawn, output)["loss"]) == pytest.approx(float(expected), rel=1e-4)


def test_a_level_without_signal_counts_once() -> None:
    scheduler = DDIMScheduler(prediction_type="epsilon", rescale_betas_zero_snr=True)
    weights = DiffusionObjective(scheduler).min_snr_weights(torch.tensor([999]), 5.0)
    assert weights.tolist() == [1.0]


def test_the_snr_loss_is_of_clean_latents_at_little_noise() -> None:
    judging = objective(snr_loss=True)
    drawn = judging.show(latents(), latents().flip(0), torch.tensor([249, 250]))
    output = drawn.target + 0.1 * latents().flip(2)
    alpha = judging.scheduler.alphas_cumprod[249]
    clean = (drawn.noisy[0] - (1 - alpha).sqrt() * output[0]) / alpha.sqrt()
    expected = (F.mse_loss(clean, latents()[0]) + F.mse_loss(output[1], drawn.target[1])) / 2
    assert float(judging.loss(drawn, output)["loss"]) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("frames", [2, 3])
def test_the_motion_loss_is_of_differences_between_more_than_two_frames(frames: int) -> None:
    judging = objective(motion_sub_loss=0.25)
    drawn = judging.show(latents()[:, :, :frames], latents().flip(0)[:, :, :frames], torch.tensor([10, 500]))
    output = drawn.noisy
    plain = F.mse_loss(output, drawn.target)
    moving = F.mse_loss(output.diff(dim=2), drawn.target.diff(dim=2))
    expected = plain if frames == 2 else 0.75 * plain + 0.25 * moving
    assert float(judging.loss(drawn, output)["loss"]) == pytest.approx(float(expected), rel=1e-5)


def variational(level: int, variance: float) -> Tensor:
    learning = objective(learned_range=True)
    wide = torch.Size((1, 4, 4, 32, 32))
    drawn = learning.show(latents(wide), torch.randn(wide, generator=generator()), torch.tensor([level]))
    output = torch.cat((drawn.target, torch.full(wide, variance)), dim=1)
    return learning.loss(drawn, output)["vb"]


@pytest.mark.parametrize(
    ("level", "variance", "bits", "within"),
    [(0, -1.0, 1.05, 0.1), (10, -1.0, 0.0, 1e-6), (500, -1.0, 0.0, 1e-6), (10, 1.0, 7.4e-3, 1e-3)],
)
def test_a_perfect_prediction_leaves_what_the_variance_costs(
    level: int, variance: float, bits: float, within: float
) -> None:
    assert float(variational(level, variance)) == pytest.approx(bits, abs=within)


def test_the_variance_is_judged_in_bits_by_the_divergence() -> None:
    learning = objective(learned_range=True)
    drawn = learning.show(latents(), latents().flip(0), torch.tensor([40, 800]))
    output = torch.randn(2, 8, *VIDEO[2:], generator=generator(2))
    terms = learning.loss(drawn, output)

    beta = torch.linspace(0.0001, 0.02, 1000, dtype=torch.float64)
    alpha = (1 - beta).cumprod(0)
    t = torch.tensor([40, 800])
    at = {"beta": beta[t], "alpha": alpha[t], "before": alpha[t - 1]}
    b, a, p = (x.view(2, 1, 1, 1, 1) for x in at.values())
    smallest = b * (1 - p) / (1 - a)
    share = (output[:, 4:].double() + 1) / 2
    posterior, model = smallest.sqrt(), (share * b.log() + (1 - share) * smallest.log()).mul(0.5).exp()
    clean = (drawn.noisy.double() - (1 - a).sqrt() * output[:, :4]) / a.sqrt()
    weight = b * p.sqrt() / (1 - a)
    normal = torch.distributions.Normal
    shift = weight * (clean - drawn.clean)
    zero = torch.zeros_like(shift)
    expected = torch.distributions.kl_divergence(normal(zero, posterior.expand_as(zero)), normal(shift, model))
    assert float(terms["vb"]) == pytest.approx(float(expected.mean()) / math.log(2), rel=1e-4)
    assert torch.equal(terms["loss"], terms["mse"] + terms["vb"])


def test_the_variance_term_moves_nothing_but_the_variance() -> None:
    learning = objective(learned_range=True)
    drawn = learning.draw(latents(), generator())
    output = torch.randn(2, 8, *VIDEO[2:], generator=generator(2)).requires_grad_()
    (gradient,) = torch.autograd.grad(learning.loss(drawn, output)["vb"], output)
    assert not gradient[:, :4].any()
    assert gradient[:, 4:].all()
