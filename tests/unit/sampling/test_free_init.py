"""FreeInit: its filter, the mixing of frequencies, and the loop around the denoising loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from diffusers.pipelines.free_init_utils import FreeInitMixin
from torch import Tensor

from muybridge.errors import ConfigError
from muybridge.sampling import FreeInit, denoise, denoise_repeatedly, draw_noise, make_scheduler, video_generators
from muybridge.sampling.free_init import check_levels, low_pass, mix_frequencies
from muybridge.sampling.schedulers import set_timesteps
from muybridge.types import LatentShape

SHAPE = LatentShape(4, 6, 5, 8)


def predict(latents: Tensor, timestep: Tensor) -> Tensor:
    return torch.tanh(latents.roll(1, dims=2)) * (0.5 + timestep / 2000)


def repeated(settings: FreeInit, name: str = "ddim", num_steps: int = 4, **options: Any) -> tuple[Tensor, list[int]]:
    generators = video_generators(3, 2)
    noise = draw_noise(generators, SHAPE)
    scheduler = make_scheduler(name)
    counts: list[int] = []

    def run(start: Tensor, timesteps: Tensor) -> Tensor:
        counts.append(len(timesteps))
        return denoise(predict, scheduler, start, timesteps)

    return denoise_repeatedly(settings, run, scheduler, noise, generators, num_steps, **options), counts


@pytest.mark.parametrize("kind", ["butterworth", "gaussian", "ideal"])
@pytest.mark.parametrize(("spatial", "temporal"), [(0.25, 0.25), (0.5, 0.1)])
def test_filter_equals_diffusers(kind: Any, spatial: float, temporal: float) -> None:
    expected = FreeInitMixin()._get_free_init_freq_filter((1, 1, 6, 5, 8), "cpu", kind, 4, spatial, temporal)

    found = low_pass(FreeInit(kind=kind, spatial_stop=spatial, temporal_stop=temporal), 6, 5, 8)

    torch.testing.assert_close(found, expected[0, 0], rtol=1e-6, atol=1e-7)


def test_mixing_equals_diffusers() -> None:
    low, high = (draw_noise(video_generators(seed, 1), SHAPE) for seed in (1, 2))
    kept = low_pass(FreeInit(), 6, 5, 8)

    expected = FreeInitMixin()._apply_freq_filter(low, high, kept)

    torch.testing.assert_close(mix_frequencies(low, high, kept), expected, rtol=1e-5, atol=1e-6)


def test_all_frequencies_kept_is_the_one_and_none_the_other() -> None:
    low, high = (draw_noise(video_generators(seed, 1), SHAPE) for seed in (1, 2))

    torch.testing.assert_close(mix_frequencies(low, high, torch.ones(6, 5, 8)), low, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mix_frequencies(low, high, torch.zeros(6, 5, 8)), high, rtol=1e-4, atol=1e-5)


def test_passes_equal_diffusers() -> None:
    class Repeating(FreeInitMixin):
        scheduler: Any = make_scheduler("ddim")

    generators = video_generators(3, 1)
    noise = draw_noise(generators, SHAPE)
    theirs = Repeating()
    theirs.enable_free_init(num_iters=3)
    expected, device = noise, torch.device("cpu")
    for index in range(3):
        expected, timesteps = theirs._apply_free_init(expected, index, 4, device, torch.float32, generators[0])
        expected = denoise(predict, theirs.scheduler, expected, timesteps)

    scheduler = make_scheduler("ddim")
    generators = video_generators(3, 1)
    noise = draw_noise(generators, SHAPE)
    found = denoise_repeatedly(
        FreeInit(), lambda start, steps: denoise(predict, scheduler, start, steps), scheduler, noise, generators, 4
    )

    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_one_pass_is_as_without() -> None:
    scheduler = make_scheduler("ddim")
    scheduler.set_timesteps(4)
    plain = denoise(predict, scheduler, draw_noise(video_generators(3, 2), SHAPE), scheduler.timesteps)

    assert torch.equal(repeated(FreeInit(passes=1))[0], plain)


def test_further_passes_change_the_result() -> None:
    assert not torch.allclose(repeated(FreeInit(passes=1))[0], repeated(FreeInit(passes=2))[0], atol=1e-2)


@pytest.mark.parametrize("name", ["euler", "dpm++2m", "unipc"])
def test_every_pass_starts_at_the_solvers_own_noise_level(name: str) -> None:
    starts: list[float] = []
    scheduler = make_scheduler(name)

    def run(start: Tensor, timesteps: Tensor) -> Tensor:  # noqa: ARG001
        starts.append(float(start.std()) / float(scheduler.init_noise_sigma))
        return torch.zeros_like(start)

    generators = video_generators(3, 1)
    shape = LatentShape(4, 8, 16, 16)
    denoise_repeatedly(FreeInit(passes=3), run, scheduler, draw_noise(generators, shape), generators, 4)

    assert starts == pytest.approx([1, 1, 1], abs=0.1)


def test_coarse_to_fine_takes_fewer_steps_first() -> None:
    assert repeated(FreeInit(passes=3, coarse_to_fine=True), num_steps=10)[1] == [3, 6, 10]
    assert repeated(FreeInit(passes=3), num_steps=10)[1] == [10, 10, 10]


@pytest.mark.parametrize("name", ["ddim", "euler", "dpm++2m"])
def test_a_control_that_short_passes_would_miss_is_refused(name: str) -> None:
    scheduler = make_scheduler(name)
    set_timesteps(scheduler, 12)
    whole = scheduler.timesteps.clone()
    high, low = (float(whole[index]) for index in (0, -1))
    narrow = (float(whole[1]), float(whole[1]))

    for settings in (FreeInit(passes=3), FreeInit(passes=1, coarse_to_fine=True)):
        check_levels(settings, scheduler, 12, [narrow])
    gradual = FreeInit(passes=3, coarse_to_fine=True)
    check_levels(gradual, scheduler, 12, [(low, high)])
    assert torch.equal(scheduler.timesteps, whole)
    with pytest.raises(ConfigError, match=r"Pass 1 of 3 of FreeInit has 4 of 12 steps.*Widen the range"):
        check_levels(gradual, scheduler, 12, [(low, high), narrow])
    assert torch.equal(scheduler.timesteps, whole)


def test_stopping_ends_after_the_pass() -> None:
    assert repeated(FreeInit(passes=3), stopped=lambda: True)[1] == [4]


def test_a_video_does_not_depend_on_its_batch() -> None:
    together, _ = repeated(FreeInit())
    generators = video_generators(4, 1)
    scheduler = make_scheduler("ddim")
    alone = denoise_repeatedly(
        FreeInit(),
        lambda start, steps: denoise(predict, scheduler, start, steps),
        scheduler,
        draw_noise(generators, SHAPE),
        generators,
        4,
    )

    torch.testing.assert_close(together[1:], alone, rtol=1e-5, atol=1e-6)


def test_zero_signal_at_the_top_is_possible() -> None:
    scheduler: Any = DDIMScheduler(
        rescale_betas_zero_snr=True, timestep_spacing="trailing", prediction_type="v_prediction"
    )
    generators = video_generators(3, 1)

    found = denoise_repeatedly(
        FreeInit(passes=2),
        lambda start, steps: denoise(predict, scheduler, start, steps),
        scheduler,
        draw_noise(generators, SHAPE),
        generators,
        3,
    )

    assert torch.isfinite(found).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"passes": 0}, "at least 1 pass"),
        ({"order": 0}, "order 1"),
        ({"spatial_stop": 0.0}, "above 0 and at most 1"),
        ({"temporal_stop": 1.5}, "above 0 and at most 1"),
        ({"kind": "box"}, "one of butterworth, gaussian, ideal; given 'box'"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FreeInit(**settings)
