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
