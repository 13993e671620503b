"""What happens between the steps of a call: callbacks, interruption, errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from muybridge.errors import NonFiniteError

PROMPT = "a red circle moving left"


def run(pipeline: Any, **options: Any) -> Any:
    return pipeline(PROMPT, **{"num_frames": 2, "seed": 1, "num_inference_steps": 4, **options})


class Recorder:
    """Sees every step; what is given for a step replaces its latents."""

    def __init__(self, replacements: dict[int, Tensor] | None = None, stop_after: int | None = None) -> None:
        self.steps: list[tuple[int, int]] = []
        self.latents: list[Tensor] = []
        self.replacements = replacements or {}
        self.stop_after = stop_after

    def __call__(self, pipe: Any, step: int, timestep: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor] | None:
        self.steps.append((step, int(timestep)))
        self.latents.append(tensors["latents"])
        if step == self.stop_after:
            pipe.interrupt()
        return {"latents": self.replacements[step]} if step in self.replacements else None


def test_a_callback_sees_every_step(pipeline: Any) -> None:
    recorder = Recorder()

    result = run(pipeline, callback_on_step_end=recorder, output_type="latent")

    assert recorder.steps == [(0, 751), (1, 501), (2, 251), (3, 1)]
    assert torch.equal(recorder.latents[-1], result)
    assert torch.equal(run(pipeline, output_type="latent"), result)


def test_a_callback_can_replace_the_latents(pipeline: Any) -> None:
    recorder = Recorder()
    expected = run(pipeline, seed=2, callback_on_step_end=recorder, output_type="latent")

    replaced = Recorder({1: recorder.latents[1]})

    assert torch.equal(run(pipeline, callback_on_step_end=replaced, output_type="latent"), expected)


def test_a_callback_can_return_nothing_in_two_ways(pipeline: Any) -> None:
    plain = run(pipeline, output_type="latent")

    assert torch.equal(run(pipeline, callback_on_step_end=lambda *_: {}, output_type="latent"), plain)


def test_interrupt_decodes_what_there_is(pipeline: Any) -> None:
    whole, cut = Recorder(), Recorder(stop_after=1)
    run(pipeline, callback_on_step_end=whole)

    latents = run(pipeline, callback_on_step_end=cut, output_type="latent")
    video = run(pipeline, callback_on_step_end=Recorder(stop_after=1))

    assert [step for step, _ in cut.steps] == [0, 1]
    assert torch.equal(latents, whole.latents[1])
    assert video.frames.shape == (2, 16, 16, 3)
    assert video.request["made"]["interrupted"] is True


def test_a_replacement_counts_in_the_interrupted_step(pipeline: Any) -> None:
    replacement = torch.zeros(1, 4, 2, 8, 8)

    result = run(pipeline, callback_on_step_end=Recorder({1: replacement}, stop_after=1), output_type="latent")

    assert torch.equal(result, replacement)


def test_an_interruption_is_over_with_the_call(pipeline: Any) -> None:
    whole = run(pipeline, output_type="latent")
    run(pipeline, callback_on_step_end=Recorder(stop_after=0))

    after = Recorder()

    assert torch.equal(run(pipeline, callback_on_step_end=after, output_type="latent"), whole)
    assert len(after.steps) == 4


def test_errors_of_a_callback_come_through(pipeline: Any) -> None:
    def fail(*_: Any) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run(pipeline, callback_on_step_end=fail)


def test_nan_names_the_step_and_the_layer(make_pipeline: Any) -> None:
    pipeline = make_pipeline()
    with torch.no_grad():
        pipeline.motion_adapter.get_parameter("up_blocks.1.motion_modules.0.proj_in.weight")[0, 0] = torch.nan

    with pytest.raises(
        NonFiniteError,
        match=r"Step 1 \(timestep 751\).*first in up_blocks.1.motion_modules.0.proj_in.weight \(Linear\)",
    ):
        run(pipeline)


@pytest.mark.parametrize("batched", [True, False])
def test_nan_from_a_callback_names_the_next_step(pipeline: Any, batched: bool) -> None:
    recorder = Recorder({1: torch.full((1, 4, 2, 8, 8), torch.nan)})

    with pytest.raises(NonFiniteError, match=r"Step 3 \(timestep 251\).*the input of conv_in"):
        run(pipeline, callback_on_step_end=recorder, batched_guidance=batched)


def test_all_zero_predictions_are_an_error(make_pipeline: Any) -> None:
    pipeline = make_pipeline()
    with torch.no_grad():
        pipeline.unet.conv_out.weight.zero_()
        pipeline.unet.conv_out.bias.zero_()

    with pytest.raises(NonFiniteError, match=r"Step 1 .*first in conv_out \(Convolution\)"):
        run(pipeline)


def test_a_vae_that_gives_nan_is_an_error(make_pipeline: Any) -> None:
    pipeline = make_pipeline()
    with torch.no_grad():
        pipeline.vae.decoder.conv_in.bias[0] = torch.nan

    with pytest.raises(NonFiniteError, match=r"The VAE gave NaN"):
        run(pipeline)
    assert bool(run(pipeline, output_type="latent").isfinite().all())


def test_nothing_is_printed_without_a_progress_bar(pipeline: Any, capfd: pytest.CaptureFixture[str]) -> None:
    run(pipeline)

    assert capfd.readouterr() == ("", "")


def test_the_progress_bar_counts_the_steps(make_pipeline: Any, capfd: pytest.CaptureFixture[str]) -> None:
    pipeline = make_pipeline()
    pipeline.set_progress_bar_config(disable=False)

    run(pipeline)

    captured = capfd.readouterr()
    assert captured.out == ""
    assert "4/4" in captured.err


def test_no_gradients_are_kept(pipeline: Any) -> None:
    assert not run(pipeline, output_type="latent").requires_grad
