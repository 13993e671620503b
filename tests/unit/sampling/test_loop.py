"""The denoising loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from muybridge.debug import first_anomalous_module
from muybridge.errors import NonFiniteError
from muybridge.sampling import (
    Scheduler,
    StepReport,
    StopSampling,
    denoise,
    draw_noise,
    make_scheduler,
    video_generators,
)
from muybridge.types import LatentShape

# diffusers hands tensors to numpy in a way that numpy will give up.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def steps(count: int) -> Scheduler:
    scheduler = make_scheduler("ddim")
    scheduler.set_timesteps(count)
    return scheduler


def start() -> Tensor:
    return draw_noise(video_generators(0, 1), LatentShape(4, 3, 8, 8))


def tenth(latents: Tensor, _timestep: Tensor) -> Tensor:
    return latents * 0.1


def network(pipeline: Any) -> Any:
    text = torch.randn(1, 7, 16, generator=torch.Generator().manual_seed(1))

    def predict(latents: Tensor, timestep: Tensor) -> Tensor:
        with torch.no_grad():
            return pipeline.unet(latents, timestep, text).sample

    return predict


def run(pipeline: Any, **options: Any) -> Tensor:
    predict, scheduler = network(pipeline), steps(4)

    def diagnose(latents: Tensor, timestep: Tensor) -> str:
        return first_anomalous_module(pipeline.unet, lambda: predict(latents, timestep)) or "the scheduler"

    return denoise(predict, scheduler, start(), scheduler.timesteps, diagnose=diagnose, **options)


def test_steps_are_those_of_the_scheduler_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    scheduler, reports = steps(4), []
    expected = start()

    result = denoise(tenth, scheduler, start(), scheduler.timesteps, reports.append)

    for timestep, report in zip(scheduler.timesteps, reports, strict=True):
        expected = scheduler.step(tenth(expected, timestep), timestep, expected, return_dict=False)[0]
        assert torch.equal(report.latents, expected)
    assert torch.equal(result, expected)
    assert [(report.index, int(report.timestep)) for report in reports] == [(0, 751), (1, 501), (2, 251), (3, 1)]
    assert capsys.readouterr() == ("", "")


def test_latents_given_are_left_alone() -> None:
    scheduler, latents = steps(2), start()

    denoise(tenth, scheduler, latents, scheduler.timesteps)

    assert torch.equal(latents, start())


def test_the_input_is_scaled_for_the_scheduler() -> None:
    scheduler, seen = make_scheduler("euler"), []
    scheduler.set_timesteps(2)

    def predict(latents: Tensor, timestep: Tensor) -> Tensor:
        seen.append(float(latents.std()))
        return tenth(latents, timestep)

    denoise(predict, scheduler, start() * float(scheduler.init_noise_sigma), scheduler.timesteps)

    assert seen[0] == pytest.approx(float(start().std()), rel=1e-3)


def test_step_options_reach_the_scheduler() -> None:
    scheduler = steps(4)

    def noisy(seed: int) -> Tensor:
        options = {"eta": 1.0, "generator": video_generators(seed, 1)}
        return denoise(tenth, scheduler, start(), scheduler.timesteps, step_options=options)

    assert torch.equal(noisy(1), noisy(1))
    assert not torch.equal(noisy(1), noisy(2))


def test_on_step_replaces_the_latents() -> None:
    scheduler, seen = steps(3), []

    def predict(latents: Tensor, timestep: Tensor) -> Tensor:
        seen.append(latents)
        return tenth(latents, timestep)

    def on_step(report: StepReport) -> Tensor | None:
        return torch.full_like(report.latents, report.index + 1) if report.index != 1 else None

    result = denoise(predict, scheduler, start(), scheduler.timesteps, on_step)

    assert torch.equal(seen[1], torch.full_like(seen[1], 1))
    assert not torch.equal(seen[2], torch.full_like(seen[2], 2))
    assert torch.equal(result, torch.full_like(result, 3))


@pytest.mark.parametrize("replaced", [None, torch.full((1, 4, 3, 8, 8), 5.0)])
def test_stop_sampling_ends(replaced: Tensor | None) -> None:
    scheduler, seen = steps(4), []

    def on_step(report: StepReport) -> None:
        seen.append(report.latents)
        if report.index == 1:
            raise StopSampling(replaced)

    result = denoise(tenth, scheduler, start(), scheduler.timesteps, on_step)

    assert len(seen) == 2
    assert torch.equal(result, seen[-1] if replaced is None else replaced)


def test_a_stray_stop_iteration_is_no_wish_to_stop() -> None:
    scheduler = steps(4)

    def on_step(_: StepReport) -> None:
        next(iter(()))

    with pytest.raises(StopIteration):
        denoise(tenth, scheduler, start(), scheduler.timesteps, on_step)


def test_without_steps_nothing_happens() -> None:
    scheduler = steps(4)

    assert torch.equal(denoise(tenth, scheduler, start(), scheduler.timesteps[:0]), start())


def test_nan_in_a_weight_names_the_first_step_and_the_layer(make_pipeline: Any) -> None:
    pipeline = make_pipeline()
    with torch.no_grad():
        pipeline.unet.get_parameter("up_blocks.1.resnets.0.norm2.weight")[3] = torch.nan

    with pytest.raises(NonFiniteError, match=r"Step 1 \(timestep 751\).*up_blocks.1.resnets.0.norm2.weight \(GroupN"):
        run(pipeline)


def test_overflow_names_the_layer_it_happens_in(make_pipeline: Any, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline = make_pipeline()
    with torch.no_grad():
        pipeline.unet.get_parameter("mid_block.resnets.0.conv1.weight").fill_(3e38)

    with pytest.raises(NonFiniteError, match=r"first in mid_block.resnets.0.conv1 \(Convolution\). Try float32"):
        run(pipeline)
    assert capsys.readouterr() == ("", "")


def test_nan_that_comes_later_names_its_step(pipeline: Any) -> None:
    def on_step(report: StepReport) -> Tensor | None:
        return report.latents * torch.nan if report.index == 1 else None

    with pytest.raises(NonFiniteError, match=r"Step 3 \(timestep 251\).*first in the input of conv_in \(Convolution\)"):
        run(pipeline, on_step=on_step)


def test_all_zero_predictions_are_an_error(make_pipeline: Any) -> None:
    pipeline = make_pipeline()
    with torch.no_grad():
        pipeline.unet.conv_out.weight.zero_()
        pipeline.unet.conv_out.bias.zero_()

    with pytest.raises(NonFiniteError, match=r"Step 1 .*first in conv_out \(Convolution\)"):
        run(pipeline)


def test_without_a_diagnosis_the_network_is_named() -> None:
    scheduler = steps(4)

    with pytest.raises(NonFiniteError, match=r"Step 1 \(timestep 751\) gave .* first in the network\."):
        denoise(lambda latents, _: latents * torch.inf, scheduler, start(), scheduler.timesteps)


def test_what_the_scheduler_spoils_is_noticed() -> None:
    scheduler = steps(4)

    def explode(latents: Tensor, _timestep: Tensor) -> Tensor:
        return torch.full_like(latents, 3e38)  # finite, but not once the scheduler has divided it

    with pytest.raises(NonFiniteError, match="Step 1"):
        denoise(explode, scheduler, start(), scheduler.timesteps)


def test_no_value_is_waited_for_before_the_end() -> None:
    # A meta tensor has no values: reading one is an error, where on a GPU it would be a wait.
    scheduler, seen = steps(4), []

    with pytest.raises(RuntimeError, match="meta tensors"):
        denoise(tenth, scheduler, start().to("meta"), scheduler.timesteps, seen.append)

    assert [report.index for report in seen] == [0, 1, 2, 3]
