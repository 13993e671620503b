"""What the training methods optimise, and what they leave alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.errors import ConfigError
from muybridge.motion import MotionAdapter
from muybridge.motion.registry import make_config
from muybridge.pipelines.animatediff.family import TRAINING
from muybridge.training.methods.adapters import MotionMethod
from muybridge.training.methods.denoise import ImageDiffusionMethod, TrainedNetworks
from muybridge.training.objective.diffusion import DiffusionObjective
from muybridge.training.objective.settings import ObjectiveSettings

TEXT: dict[str, Any] = {
    "vocab_size": 12,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 6,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}


@pytest.fixture(autouse=True)
def _same_weights() -> None:
    torch.manual_seed(0)


def small_vae() -> AutoencoderKL:
    settings: dict[str, Any] = {
        "block_out_channels": (8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "norm_num_groups": 4,
        "sample_size": 16,
    }
    return AutoencoderKL(**settings)


def small_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=4,
    )


def small_text_encoder() -> CLIPTextModel:
    return CLIPTextModel(CLIPTextConfig(**TEXT))


def scheduler(prediction_type: Any = "v_prediction") -> DDIMScheduler:
    return DDIMScheduler(prediction_type=prediction_type, clip_sample=False)


def small_motion_method() -> MotionMethod:
    unet = UNet3DConditionModel.from_unet2d(small_unet())
    config = make_config("temporal", {"num_heads": 4, "trained_frames": 8})
    unet.set_motion_adapter(MotionAdapter.for_sites(unet.motion_sites().values(), "temporal", config))
    return MotionMethod(
        TrainedNetworks(unet, small_text_encoder(), small_vae()), DiffusionObjective(scheduler()), TRAINING
    )


def image_batch(seed: int = 0, num_frames: int | None = None) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    frames = () if num_frames is None else (num_frames,)
    batch = {
        "pixels": torch.rand(2, *frames, 3, 16, 16, generator=generator) * 2 - 1,
        "input_ids": torch.randint(2, 12, (2, 6), generator=generator),
    }
    return batch if num_frames is None else {**batch, "frame_positions": torch.arange(num_frames).float() * 2}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def train(method: nn.Module, batch: dict[str, Tensor], steps: int = 3) -> None:
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    method.train()
    for step in range(steps):
        optimizer.zero_grad()
        method(batch, generator(step))["loss"].backward()
        optimizer.step()


def changed(method: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, value in method.state_dict().items() if not torch.equal(value, before[name])}


def snapshot(method: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in method.state_dict().items()}


def test_the_epsilon_target_is_the_noise():
    objective = DiffusionObjective(scheduler("epsilon"))
    latents = torch.randn(3, 4, 5, 5, generator=generator(1))

    drawn = objective.draw(latents, generator(2))
    timesteps, noisy, target = drawn.timesteps, drawn.noisy, drawn.target

    alpha = objective.scheduler.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    assert torch.allclose(noisy, alpha.sqrt() * latents + (1 - alpha).sqrt() * target, atol=1e-5)
    assert target.std() == pytest.approx(1, abs=0.15)


def test_the_v_target_is_the_velocity():
    objective = DiffusionObjective(scheduler("v_prediction"))
    latents = torch.randn(3, 4, 5, 5, generator=generator(1))

    drawn = objective.draw(latents, generator(2))
    timesteps, noisy, target = drawn.timesteps, drawn.noisy, drawn.target

    alpha = objective.scheduler.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    noise = (noisy - alpha.sqrt() * latents) / (1 - alpha).sqrt()
    assert torch.allclose(target, alpha.sqrt() * noise - (1 - alpha).sqrt() * latents, atol=1e-4)


def test_other_targets_are_refused():
    with pytest.raises(ConfigError, match="'sample'"):
        DiffusionObjective(scheduler("sample"))


def test_the_shift_moves_noise_levels_up():
    latents = torch.zeros(4000, 1)
    even, shifted = (
        DiffusionObjective(scheduler(), ObjectiveSettings.shifted(shift)).draw(latents, generator(3)).timesteps.float()
        for shift in (1.0, 3.0)
    )

    assert even.mean() == pytest.approx(500, abs=15)
    assert shifted.median() == pytest.approx(750, abs=15)
    assert (shifted >= even).all()
    assert even.min() >= 0
    assert even.max() >= 990
    assert shifted.max() <= 999


def test_noise_levels_are_one_for_each_clip():
    drawn = DiffusionObjective(scheduler()).draw(torch.zeros(2, 4, 3, 8, 8), generator(4))
    noisy = drawn.noisy

    assert drawn.timesteps.shape == (2,)
    assert noisy.shape == drawn.target.shape == (2, 4, 3, 8, 8)
    assert not torch.equal(noisy[:, :, 0], noisy[:, :, 1]), "noise is independent between frames"


def test_image_training_changes_unet_and_text_encoder_only():
    method = ImageDiffusionMethod(small_unet(), small_text_encoder(), small_vae(), DiffusionObjective(scheduler()))
    before = snapshot(method)

    train(method, image_batch())

    moved = changed(method, before)
    assert {name.split(".")[0] for name in moved} == {"unet", "text_encoder"}
    assert not method.vae.training
    assert method.unet.training


def test_motion_training_changes_motion_modules_only():
    method = small_motion_method()
    before = snapshot(method)

    train(method, image_batch(num_frames=3))

    moved = changed(method, before)
    assert moved
    assert all("motion_modules" in name for name in moved)
    trainable = {name for name, p in method.named_parameters() if p.requires_grad}
    assert all("motion_modules" in name for name in trainable)
    adapter = method.backbone.motion_adapter
    assert adapter is not None
    assert len(trainable) == len(list(adapter.parameters()))


def test_frozen_parts_stay_in_evaluation_mode():
    method = small_motion_method().train()

    training = {name for name, module in method.named_modules() if module.training}

    assert training
    assert all(name == "" or "motion_modules" in name for name in training)
    assert not [name for name, module in method.eval().named_modules() if module.training]


def test_the_motion_loss_falls_on_one_batch():
    method = small_motion_method()
    batch = image_batch(num_frames=3)
    before = float(method(batch, generator(0))["loss"].detach())

    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(8):
        optimizer.zero_grad()
        method(batch, generator(0))["loss"].backward()
        optimizer.step()

    assert float(method(batch, generator(0))["loss"].detach()) < before


def test_frame_positions_reach_the_motion_modules():
    method = small_motion_method().eval()
    train(method, image_batch(num_frames=3))
    method.eval()
    batch = image_batch(num_frames=3)
    later = {**batch, "frame_positions": batch["frame_positions"] + 1}

    losses = [float(method(each, generator(0))["loss"].detach()) for each in (batch, later)]

    assert losses[0] != losses[1]


def test_without_an_adapter_there_is_nothing_to_train():
    unet = UNet3DConditionModel.from_unet2d(small_unet())

    with pytest.raises(ConfigError, match="set_motion_adapter"):
        MotionMethod(
            TrainedNetworks(unet, small_text_encoder(), small_vae()), DiffusionObjective(scheduler()), TRAINING
        )
