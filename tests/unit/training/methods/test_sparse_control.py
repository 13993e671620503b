"""What training a SparseCtrl optimises, what it is shown, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from PIL import Image
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.conditioning.sparse import keyframe_condition, sketch_condition
from muybridge.errors import ConfigError
from muybridge.motion import MotionAdapter, TemporalConfig
from muybridge.pipelines.animatediff.family import TRAINING
from muybridge.training.methods.adapters import MotionMethod
from muybridge.training.methods.sparse_control import (
    KnownFrames,
    SparseControlMethod,
    condition_of,
    make_keyframe_control,
    sketches_of,
)
from muybridge.training.objective.diffusion import DiffusionObjective
from muybridge.training.schedules import ScheduleSettings
from muybridge.training.trainer import Trainer, TrainerConfig
from muybridge.vae import encode_images

CONFIG = TemporalConfig(num_heads=4, trained_frames=8, attentions_per_block=1)


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


def small_text_encoder() -> CLIPTextModel:
    settings: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    tokens: dict[str, Any] = {"vocab_size": 12, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    return CLIPTextModel(CLIPTextConfig(num_attention_heads=2, max_position_embeddings=6, **settings, **tokens))


def small_unet(widths: tuple[int, int] = (32, 64)) -> UNet3DConditionModel:
    image = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=widths,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=4,
    )
    unet = UNet3DConditionModel.from_unet2d(image)
    adapter = MotionAdapter.for_sites(unet.motion_sites().values(), config=CONFIG)
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    unet.set_motion_adapter(adapter)
    return unet


def small_method() -> SparseControlMethod:
    unet = small_unet()
    objective = DiffusionObjective(DDIMScheduler(prediction_type="v_prediction", clip_sample=False))
    control = make_keyframe_control(unet, CONFIG)
    return SparseControlMethod(unet, control, small_vae(), small_text_encoder(), objective, TRAINING)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch_of(num_frames: int = 4) -> dict[str, Tensor]:
    known = torch.zeros(2, num_frames, dtype=torch.bool)
    known[0, 0] = known[1, 0] = known[1, -1] = True
    return {
        "pixels": torch.rand(2, num_frames, 3, 16, 16, generator=generator()) * 2 - 1,
        "input_ids": torch.randint(2, 12, (2, 6), generator=generator()),
        "frame_positions": torch.arange(num_frames).float() * 2,
        "known": known,
    }


def same_batch(index: int) -> dict[str, Tensor]:  # noqa: ARG001  # a source of batches is asked for one by number
    return batch_of()


def train(
    method: SparseControlMethod,
    batch: dict[str, Tensor],
    steps: int,
    seed_of: Callable[[int], int] = lambda step: step,
) -> list[float]:
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=1e-3)
    method.train()
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        loss = method(batch, generator(seed_of(step)))["loss"]
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def test_a_new_one_changes_nothing():
    method, batch = small_method().eval(), batch_of()
    plain = MotionMethod(method, method.objective, method.how).eval()

    with torch.no_grad():
        losses = [float(each(batch, generator())["loss"]) for each in (method, plain)]

    assert losses[0] == losses[1]


def test_the_condition_is_the_one_of_generation():
    vae = small_vae().eval()
    frames = np.random.default_rng(0).integers(0, 256, (1, 5, 16, 16, 3), np.uint8)
    known = torch.zeros(1, 5, dtype=torch.bool)
    known[0, [1, 4]] = True
    pixels = torch.from_numpy(frames).movedim(-1, -3).float() / 127.5 - 1

    with torch.no_grad():
        latents = encode_images(vae, pixels.flatten(0, 1)).unflatten(0, (1, 5)).transpose(1, 2)
        pictures = {frame: Image.fromarray(frames[0, frame]) for frame in (1, 4)}
        expected = keyframe_condition(pictures, 5, 16, 16, lambda given: encode_images(vae, given))

    assert torch.allclose(condition_of(latents, known), expected, atol=1e-5)


def test_only_the_control_is_trained():
    method = small_method()
    before = {name: value.clone() for name, value in method.state_dict().items()}

    train(method, batch_of(), steps=3)

    moved = {name for name, value in method.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[0] for name in moved} == {"control"}
    assert any("motion_modules" in name for name in moved)
    assert method.control.training
    assert not any(
        module.training for part in (method.backbone, method.vae, method.text_encoder) for module in part.modules()
    )


def test_gradients_reach_every_layer():
    """First the convolutions that begin at zero, then what is before them, then what is inside the motion modules."""
    method, batch = small_method(), batch_of()
    # Biases before a norm, and those of keys, have none at all.
    trained = {n for n, p in method.control.named_parameters() if p.requires_grad and not n.endswith("bias")}
    inner = {name for name in trained if "motion_modules" in name and "proj_out" not in name}

    reached = []
    for _ in range(3):
        train(method, batch, steps=1)
        reached.append(_reached(method) & trained)

    assert reached[0]
    assert all(name.startswith(("controlnet_down_blocks", "controlnet_mid_block")) for name in reached[0])
    assert reached[1] == trained - inner
    assert reached[2] == trained


def _reached(method: SparseControlMethod) -> set[str]:
    found = method.control.named_parameters()
    return {name for name, p in found if p.grad is not None and bool(p.grad.abs().max() > 0)}


def test_the_loss_falls_on_one_batch():
    method = small_method()

    losses = train(method, batch_of(), steps=30, seed_of=lambda _: 3)

    assert losses[-1] < 0.8 * losses[0]


def test_a_trained_one_looks_at_what_is_known():
    method, batch = small_method(), batch_of()
    train(method, batch, steps=4)
    method.eval()
    others = {**batch, "known": batch["known"].flip(1)}

    with torch.no_grad():
        losses = [float(method(each, generator())["loss"]) for each in (batch, others)]

    assert losses[0] != losses[1]


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(tmp_path):
    config = TrainerConfig(steps=3, schedule=ScheduleSettings(warmup_steps=0), log_every=1, mixed_precision="no")

    def fit(folder: str, stop_at: int | None = None) -> dict[str, Tensor]:
        torch.manual_seed(0)
        method = small_method()
        trainer = Trainer(method, same_batch, config, tmp_path / folder)

        def progress(step: int, _: int, __: dict[str, float]) -> None:
            if step == stop_at:
                raise KeyboardInterrupt

        trainer.fit(progress)
        return method.control.state_dict()

    whole = fit("whole")
    with pytest.raises(KeyboardInterrupt):
        fit("halves", stop_at=1)
    halves = fit("halves")

    assert all(torch.equal(whole[name], halves[name]) for name in whole)


def test_motion_modules_can_be_left_out_of_the_deepest_levels():
    unet = small_unet()

    control = make_keyframe_control(unet, CONFIG, motion_levels=1)

    assert control.motion_adapter is not None
    assert list(control.motion_adapter.sites) == ["down_blocks.0.motion_modules.0"]
    for levels in (0, 3):
        with pytest.raises(ConfigError, match=f"has 2 levels.*given motion_levels {levels}"):
            make_keyframe_control(unet, CONFIG, motion_levels=levels)


def test_a_control_that_does_not_fit_is_refused():
    method = small_method()
    rest = (method.vae, method.text_encoder, method.objective, method.how)

    with pytest.raises(ConfigError, match=r"\[32, 64\].*\[64, 64\]"):
        SparseControlMethod(small_unet((64, 64)), method.control, *rest)


def sketching_method() -> SparseControlMethod:
    unet = small_unet()
    objective = DiffusionObjective(DDIMScheduler(prediction_type="v_prediction", clip_sample=False))
    control = make_keyframe_control(unet, CONFIG, kind="scribble", spatial_factor=2)
    return SparseControlMethod(unet, control, small_vae(), small_text_encoder(), objective, TRAINING)


def test_one_for_sketches_learns_from_drawings_of_the_frames():
    method, batch = sketching_method(), batch_of()
    assert method.control.kind == "scribble"

    drawn = {**batch, "sketches": sketches_of(batch["pixels"])}
    with torch.no_grad():
        assert float(method(drawn, generator())["loss"]) == float(method(batch, generator())["loss"])
    losses = train(method, batch, 5, seed_of=lambda _: 1)

    assert losses[-1] < losses[0]
    with torch.no_grad():
        black = {**batch, "sketches": torch.zeros_like(batch["pixels"])}
        assert float(method(black, generator())["loss"]) != float(method(drawn, generator())["loss"])


def test_sketches_are_shown_as_in_generation():
    frames = np.random.default_rng(0).integers(0, 256, (1, 5, 16, 16, 3), np.uint8)
    known = torch.zeros(1, 5, dtype=torch.bool)
    known[0, [1, 4]] = True
    sketches = torch.from_numpy(frames).movedim(-1, -3).float().div(255).transpose(1, 2)

    pictures = {index: Image.fromarray(frames[0, index]) for index in (1, 4)}
    assert torch.equal(condition_of(sketches, known), sketch_condition(pictures, 5, 16, 16))


def test_sketches_have_lines_where_brightness_changes():
    pixels = torch.full((2, 3, 12, 12), -0.5)
    pixels[0, :, :, 6:] = 0.7

    lines = sketches_of(pixels)

    assert lines.shape == pixels.shape
    assert float(lines[0, :, :, 5:7].min()) == 1
    assert float(lines[0, :, :, :4].max()) == 0
    assert float(lines[1].max()) == 0, "there is nothing to draw"
    assert torch.equal(sketches_of(pixels[None])[0], lines)


def test_known_frames_are_drawn_by_the_number_of_the_batch():
    batches = KnownFrames(lambda _: batch_of(8), seed=1)

    drawn = [batches(index)["known"] for index in range(100)]

    rows = [tuple(row.nonzero()[:, 0].tolist()) for known in drawn for row in known]
    assert 0.32 < sum(row == (0,) for row in rows) / len(rows) < 0.58
    assert 0.13 < sum(row == (0, 7) for row in rows) / len(rows) < 0.3
    assert {len(row) for row in rows} == {1, 2, 3, 4}
    assert torch.equal(batches(7)["known"], drawn[7])
    assert KnownFrames(lambda _: batch_of(1), seed=1)(0)["known"].all()
