"""Distilling: the teacher is the model without the LoRA, which is all that learns."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler
from tests.unit.training.methods.test_lora import small_method
from torch import Tensor

from muybridge.errors import ConfigError
from muybridge.training.empty_captions import WithEmptyCaption
from muybridge.training.methods.consistency import ConsistencyMethod
from muybridge.training.methods.denoise import DenoisingMethod
from muybridge.training.methods.lora import LoraMethod, LoraShape
from muybridge.training.objective.consistency import ConsistencyObjective, Distilling

SCHEDULER = DDIMScheduler(prediction_type="v_prediction", clip_sample=False)


@pytest.fixture(autouse=True)
def _same_weights() -> None:
    torch.manual_seed(0)


def small(kind: str) -> tuple[ConsistencyMethod, dict[str, Tensor]]:
    method, batch = small_method(kind)
    lora = LoraMethod(method, "spatial", LoraShape(rank=4))
    empty = {"empty_ids": torch.tensor([[0, 1, 1, 1]] * 2), "empty_mask": torch.ones(2, 4)}
    objective = ConsistencyObjective(SCHEDULER, Distilling(guidance=(2.0, 3.0)))
    return ConsistencyMethod(lora, objective), {**batch, **empty}


@pytest.mark.parametrize("kind", ["motion", "video"])
def test_the_loss_falls_and_only_the_lora_learns(kind: str) -> None:
    method, batch = small(kind)
    learning = [parameter for parameter in method.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-2)

    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = method.train()(batch, torch.Generator().manual_seed(1))["loss"]
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))

    assert losses[-1] < losses[0]
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in learning)


def test_the_teacher_is_the_model_without_the_lora() -> None:
    method, batch = small("motion")
    with torch.no_grad():
        plain = float(method.denoising(batch, torch.Generator().manual_seed(1))["loss"])
        for parameter in method.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.5)
        changed = float(method.denoising(batch, torch.Generator().manual_seed(1))["loss"])
        with method.lora.without():
            without = float(method.denoising(batch, torch.Generator().manual_seed(1))["loss"])
    assert without == plain != changed
    assert isinstance(method.denoising, DenoisingMethod)


def test_at_the_least_noise_a_student_says_what_it_is_shown() -> None:
    objective = ConsistencyObjective(SCHEDULER)
    noisy = torch.randn(1, 4, 2, 3, 3)
    said = objective.consistent(torch.randn_like(noisy), torch.zeros(1, dtype=torch.long), noisy)
    torch.testing.assert_close(said, noisy)


def test_in_phases_a_student_says_what_a_step_of_ddim_does() -> None:
    scheduler = DDIMScheduler(
        prediction_type="v_prediction", clip_sample=False, timestep_spacing="trailing", rescale_betas_zero_snr=True
    )
    objective = ConsistencyObjective(scheduler, Distilling(20, (1.0, 1.0), phases=4))
    latents, noise, output = torch.randn(3, 4, 4, 2, 3, 3).unbind()
    scheduler.set_timesteps(4)
    stretch = objective.stretch(latents, noise, torch.tensor([4, 9, 14, 19]), torch.ones(4))
    said = objective.said(stretch, output)
    assert stretch.start.tolist() == scheduler.timesteps.tolist()[::-1] == [249, 499, 749, 999]
    for index, step in enumerate(stretch.start):
        wanted = scheduler.step(output[index], int(step), stretch.noisy[index], return_dict=False)[0]
        torch.testing.assert_close(said[index].float(), wanted, rtol=1e-4, atol=1e-5)


def test_where_a_phase_ends_the_target_is_where_the_teacher_arrived() -> None:
    objective = ConsistencyObjective(SCHEDULER, Distilling(20, (1.0, 1.0), phases=4))
    latents, noise, output = torch.randn(3, 4, 4, 2, 3, 3).unbind()
    stretch = objective.stretch(latents, noise, torch.tensor([0, 5, 10, 16]), torch.ones(4))
    further = objective.step(stretch, output, output)
    target = objective.target(stretch, torch.randn_like(output), further)
    assert torch.equal(target[:3], further[:3])
    assert not torch.equal(target[3], further[3])
    torch.testing.assert_close(objective.said(stretch, output)[:3], further[:3])  # one step of the solver and no more


@pytest.mark.parametrize("kind", ["motion", "video"])
def test_a_teacher_goes_all_of_a_phase(kind: str) -> None:
    """The target is what diffusers' sampler makes of the model without the LoRA, with guidance, in so many steps."""
    method, batch = small(kind)
    method.eval()
    scheduler = DDIMScheduler(
        prediction_type="v_prediction", clip_sample=False, timestep_spacing="trailing", rescale_betas_zero_snr=True
    )
    settings = Distilling(8, (3.0, 3.0), phases=4, target="teacher")
    method.objective = ConsistencyObjective(scheduler, settings)
    with torch.no_grad():
        for parameter in method.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.1)
        networks, how = method.denoising, method.denoising.how
        told = how.told(networks, batch)
        stretch = method.objective.draw(how.latents(networks, batch), torch.Generator().manual_seed(2))
        _, found = method._taught(stretch, told, batch)
        assert set(stretch.start.tolist()) <= {249, 499, 749, 999}

        scheduler.set_timesteps(8)
        wanted = stretch.noisy
        with method.lora.without():
            for number in range(2):
                places = stretch.start - number * 125
                said, empty = (method._predict(wanted, places, each) for each in (told, method._untold(batch, told)))
                guided = empty + 3.0 * (said - empty)
                steps = [
                    scheduler.step(guided[i], int(place), wanted[i], return_dict=False)[0]
                    for i, place in enumerate(places)
                ]
                wanted = torch.stack(steps)
    torch.testing.assert_close(found.float(), wanted, rtol=1e-4, atol=1e-4)


def test_one_phase_has_no_teacher_at_its_end() -> None:
    with pytest.raises(ConfigError, match="give phases"):
        Distilling(target="teacher")


@pytest.mark.parametrize(("steps", "phases"), [(20, 3), (4, 4), (20, 0)])
def test_phases_that_are_refused(steps: int, phases: int) -> None:
    with pytest.raises(ConfigError, match="multiple of them"):
        Distilling(steps, phases=phases)


def test_phases_begin_where_the_sampler_does() -> None:
    with pytest.raises(ConfigError, match="must divide the 1000 noise levels; given 12"):
        ConsistencyObjective(SCHEDULER, Distilling(12, phases=4))


def test_empty_captions_are_as_long_as_the_others() -> None:
    from muybridge.demo.models import make_tokenizer

    batches = WithEmptyCaption(lambda _: {"input_ids": torch.ones(3, 9, dtype=torch.long)}, make_tokenizer())
    batch = batches(0)
    assert batch["empty_ids"].shape == batch["empty_mask"].shape == (3, 9)


@pytest.mark.parametrize("options", [{"solver_steps": 1}, {"guidance": (3.0, 2.0)}, {"guidance": (0.0, 2.0)}])
def test_settings_that_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError, match="Distilling needs"):
        Distilling(**options)


def test_more_steps_than_levels_are_refused() -> None:
    with pytest.raises(ConfigError, match="has 1000 noise levels; given 2000"):
        ConsistencyObjective(SCHEDULER, Distilling(solver_steps=2000))
