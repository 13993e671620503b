"""Equality of AnimateDiff's two stages with the original trainer: loss, gradients, clipping and the first step."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from tests.golden.test_animatediff import original  # noqa: F401  the network that the case is of
from tests.golden.test_training_objective import assert_gradient_norms, error, scheduler
from torch import Tensor, nn

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.motion.keys import ORIGINAL_MOTION_KEYS
from muybridge.training.objective.diffusion import DiffusionObjective
from muybridge.training.optimizers import OptimizerSettings, make_optimizer


def assert_stepped(found: Tensor, wanted: Tensor, gradient: Tensor, rate: float) -> None:
    """The first step is the rate times the gradient's sign, but where the gradient is nothing but rounding."""
    clear = gradient.abs() > 1e-3 * gradient.abs().max()
    difference = (found - wanted).abs()
    assert float(difference[clear].max()) <= 0.02 * rate
    assert float(difference.max()) <= 2 * rate


def test_the_motion_stage_equals_the_original(
    golden: Any,
    original: tuple[UNet3DConditionModel, dict[str, Tensor]],  # noqa: F811
) -> None:
    unet, weights = original
    tensors, meta = golden("train_animatediff_stages")
    how, rate = meta["runs"]["motion"], meta["runs"]["motion"]["learning_rate_used"]
    given = {k.removeprefix("inputs/motion."): v for k, v in tensors.items() if k.startswith("inputs/motion.")}
    recorded = {k.removeprefix("outputs/motion."): v for k, v in tensors.items() if k.startswith("outputs/motion.")}
    names = {k.removeprefix("weights/") for k in weights if k.startswith("weights/")}
    own = dict(unet.requires_grad_(False).named_parameters())
    parameters = {name: own[new] for name in names if (new := ORIGINAL_MOTION_KEYS.rename(name)) is not None}
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    objective = DiffusionObjective(scheduler(how["scheduler"]))
    optimizer = make_optimizer(OptimizerSettings(name="adamw"), unet, rate, rate)

    drawn = objective.show(given["latents"], given["noise"], given["timesteps"])
    prediction = unet(drawn.noisy, drawn.timesteps, given["encoder_hidden_states"]).sample
    loss = objective.loss(drawn, prediction)["loss"]
    loss.backward()

    assert error(drawn.noisy, recorded["noisy_latents"]) <= 1e-5
    assert error(prediction.detach(), recorded["model_pred"]) <= 1e-5
    assert error(loss.detach(), recorded["loss"]) <= 1e-5
    assert_gradient_norms(parameters, recorded["grad_norm_of_each_trained_parameter"])
    gradients = {k.removeprefix("grad."): v for k, v in recorded.items() if k.startswith("grad.")}
    for name, gradient in gradients.items():
        assert error(parameters[name].grad, gradient) <= 1e-4, name  # type: ignore[arg-type]

    norm = nn.utils.clip_grad_norm_(optimizer.parameters, 1.0)
    assert error(norm, recorded["total_grad_norm"]) <= 1e-4
    optimizer.step()
    for name, gradient in gradients.items():
        assert_stepped(parameters[name].detach(), recorded[f"after_step.{name}"], gradient, rate)
    assert all(torch.equal(own[k], v) for k, v in weights_of_images(weights).items())


def test_the_image_stage_equals_the_original(golden: Any) -> None:
    weights = weights_of_images(golden("animatediff_unet_v2_small")[0])
    tensors, meta = golden("train_animatediff_stages")
    given = {k.removeprefix("inputs/image."): v for k, v in tensors.items() if k.startswith("inputs/image.")}
    recorded = {k.removeprefix("outputs/image."): v for k, v in tensors.items() if k.startswith("outputs/image.")}
    unet = UNet2DConditionModel(**meta["image_unet_config"])
    unet.load_state_dict(weights)
    objective = DiffusionObjective(scheduler(meta["runs"]["image"]["scheduler"]))

    drawn = objective.show(given["latents"], given["noise"], given["timesteps"])
    loss = objective.loss(drawn, unet(drawn.noisy, drawn.timesteps, given["encoder_hidden_states"]).sample)["loss"]
    loss.backward()

    assert error(drawn.noisy, recorded["noisy_latents"]) <= 1e-5
    assert error(loss.detach(), recorded["loss"]) <= 1e-5
    own = dict(unet.named_parameters())
    for key, gradient in recorded.items():
        if key.startswith("grad."):
            assert error(own[key.removeprefix("grad.")].grad, gradient) <= 1e-4, key  # type: ignore[arg-type]


def weights_of_images(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    names = {k: v.float() for k, v in weights.items() if k.startswith("weights/") and "motion_modules." not in k}
    return {k.removeprefix("weights/"): v for k, v in names.items()}
