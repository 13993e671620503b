"""What was learned can be taken out, and then the network is bit for bit what it was before."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from muybridge.motion import TemporalConfig
from muybridge.pipelines.animatediff.family import TRAINING
from muybridge.training.methods.adapters import MotionMethod
from muybridge.training.methods.denoise import DenoisingMethod, TrainedNetworks
from muybridge.training.methods.lora import LoraMethod, LoraParts, LoraShape
from muybridge.training.methods.sparse_control import SparseControlMethod, make_keyframe_control
from muybridge.training.objective.diffusion import DiffusionObjective

BATCH = {
    "pixels": torch.linspace(-1, 1, 2 * 3 * 3 * 16 * 16).reshape(2, 3, 3, 16, 16),
    "input_ids": torch.tensor([[0, 3, 4, 1]] * 2),
    "frame_positions": torch.arange(3.0),
    "known": torch.tensor([[True, False, False]] * 2),
}


def make_method(kind: str, pipeline: Any) -> tuple[Any, list[nn.Parameter]]:
    """A method, and the weights that make its adapter do something."""
    objective = DiffusionObjective(DDIMScheduler(clip_sample=False))
    networks = TrainedNetworks(pipeline.unet, pipeline.text_encoder, pipeline.vae)
    if kind == "motion":
        return MotionMethod(networks, objective, TRAINING), []
    if kind == "sparse control":
        control = make_keyframe_control(pipeline.unet, TemporalConfig(num_heads=4, trained_frames=8))
        method = SparseControlMethod(pipeline.unet, control, pipeline.vae, pipeline.text_encoder, objective, TRAINING)
        zeros = [p for p in control.parameters() if p.ndim == 4 and not p.any() and p.requires_grad]
        return method, zeros
    method = LoraMethod(DenoisingMethod(networks, objective, TRAINING), LoraParts("spatial"), LoraShape(rank=2))
    return method, [weight for name, weight in method.named_parameters() if "lora_B" in name]


def without(kind: str, pipeline: Any, noisy: Tensor, timesteps: Tensor, told: dict[str, Any]) -> Tensor:
    if kind == "motion":
        pipeline.unet.remove_motion_adapter()
    return pipeline.unet(noisy, timesteps, **{name: value for name, value in told.items() if name != "shown"}).sample


@pytest.mark.parametrize("kind", ["lora", "motion", "sparse control"])
@torch.no_grad()
def test_off_is_what_it_was_before(make_pipeline: Any, kind: str):
    method, zeros = make_method(kind, make_pipeline())
    method.eval()
    for weight in zeros:
        nn.init.normal_(weight, std=0.3)
    latents, told = method.encode(BATCH)
    drawn = method.objective.show(latents, torch.ones_like(latents), torch.tensor([500, 500]))
    on = method.predict(drawn, told)
    with method.without():
        off = method.predict(drawn, told)
    assert torch.equal(method.predict(drawn, told), on)
    assert not torch.equal(on, off)
    expected = without(kind, make_pipeline(), drawn.noisy, drawn.timesteps, told)
    assert torch.equal(off, expected)


@torch.no_grad()
def test_modules_that_do_something_already_go_back_to_that(make_pipeline: Any):
    pipeline = make_pipeline()
    networks = TrainedNetworks(pipeline.unet, pipeline.text_encoder, pipeline.vae)
    objective = DiffusionObjective(DDIMScheduler(clip_sample=False))
    method = MotionMethod(networks, objective, TRAINING, keeps_first=True).eval()
    latents, told = method.encode(BATCH)
    drawn = method.objective.show(latents, torch.ones_like(latents), torch.tensor([500, 500]))
    before = method.predict(drawn, told)
    for parameter in pipeline.unet.motion_adapter.parameters():
        parameter.mul_(1.7)
    after, learned = method.predict(drawn, told), copy.deepcopy(pipeline.unet.motion_adapter.state_dict())
    assert not torch.equal(after, before)

    with method.without():
        assert torch.equal(method.predict(drawn, told), before)
    with pytest.raises(KeyboardInterrupt), method.without():
        raise KeyboardInterrupt

    assert all(torch.equal(value, learned[name]) for name, value in pipeline.unet.motion_adapter.state_dict().items())
    assert torch.equal(method.predict(drawn, told), after)
