"""What the decoder is trained on once there is a transformer, and what stays as it is."""

from __future__ import annotations

import itertools
from typing import Any, cast

import pytest
import torch
from diffusers import DDIMScheduler
from tests.unit.training.methods.test_denoise_video import (
    batch_of,
    generator,
    small_text_encoder,
    small_transformer,
    small_vae,
    train,
)
from torch import Tensor

from muybridge.errors import ConfigError
from muybridge.training.methods.decoder import Remaking, VideoDecoderMethod
from muybridge.vae.magvit.batches import encode_given, encode_videos

EMPTY = (torch.tensor([[2, 0, 0, 0, 0, 0]]), torch.tensor([[1, 0, 0, 0, 0, 0]]))


@pytest.fixture(autouse=True)
def _same_weights() -> None:
    torch.manual_seed(0)


def method_of(prediction_type: str = "v_prediction", **remaking: Any) -> VideoDecoderMethod:
    settings: dict[str, Any] = {"beta_schedule": "scaled_linear", "rescale_betas_zero_snr": True, "clip_sample": False}
    scheduler = DDIMScheduler(**settings, prediction_type=cast("Any", prediction_type))
    parts = (small_vae(), small_transformer(), small_text_encoder(), scheduler, EMPTY)
    method = VideoDecoderMethod(*parts, Remaking(**remaking))
    with torch.no_grad():  # as made, the last layer is zero and nothing is predicted
        torch.nn.init.normal_(method.transformer.proj_out.weight, std=0.1)
    return method.eval()


def test_only_what_decodes_is_trained():
    method = method_of()
    before = {name: value.clone() for name, value in method.state_dict().items()}

    train(method, batch_of(8), steps=2)

    changed = {name for name, value in method.state_dict().items() if not torch.equal(value, before[name])}
    assert {tuple(name.split(".")[:2]) for name in changed} == {("vae", "decoder"), ("vae", "post_quant_conv")}


@pytest.mark.slow
def test_the_decoder_learns_from_what_the_model_makes():
    method, batch = method_of(), batch_of(8)

    def loss() -> float:
        with torch.no_grad():
            return float(method.eval()(batch, generator(9))["loss"])

    before = loss()
    train(method, batch, steps=60)
    assert loss() < 0.95 * before, (before, loss())


@pytest.mark.parametrize("num_frames", [1, 8, 16])
def test_without_noise_latents_come_back_as_they_were(num_frames: int):
    method, batch = method_of(most_noise=1e-9), batch_of(num_frames)

    latents = encode_videos(method.vae, batch["pixels"])

    # the lowest of the thousand noise levels is not quite none
    assert (method.remake(batch, generator()) - latents).abs().max() < 0.1 * latents.abs().max() + 0.1


def test_steps_are_those_of_the_sampler():
    """Brought back from one level as diffusers' DDIM does it, with guidance."""
    method, batch = method_of(most_noise=1.0, steps=3, guidance=2.0), batch_of(8, count=1)

    made = method.remake(batch, generator(4))

    assert torch.allclose(made, _by_diffusers(method, batch, generator(4)), atol=2e-4)


@torch.no_grad()
def _by_diffusers(method: VideoDecoderMethod, batch: dict[str, Tensor], draws: torch.Generator) -> Tensor:
    latents = encode_videos(method.vae, batch["pixels"])
    start = float(torch.rand(1, generator=draws) * 999)
    levels = [int(start * (1 - step / 3)) for step in range(4)]
    scheduler: Any = method.scheduler
    sample = scheduler.add_noise(latents, torch.randn(latents.shape, generator=draws), torch.tensor(levels[:1]))
    given = encode_given(method.vae, batch["pixels"], batch["unknown"])

    def predict(ids: Tensor, mask: Tensor, level: int) -> Tensor:
        states = method.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return method.transformer(
            sample, torch.tensor([level]), states, encoder_attention_mask=mask, inpaint_latents=given
        ).sample

    for level, following in itertools.pairwise(levels):
        without = predict(*EMPTY, level)
        velocity = without + 2.0 * (predict(batch["input_ids"], batch["attention_mask"], level) - without)
        step: Any = DDIMScheduler.from_config(scheduler.config)
        step.set_timesteps(1)
        # its next level is one stride lower, and below zero there is no noise at all
        step.register_to_config(num_train_timesteps=level - following if following else 1000)
        sample = step.step(velocity, level, sample).prev_sample
    return sample


def test_guidance_counts():
    batch = batch_of(8)
    plain, guided = (method_of(most_noise=1.0, guidance=scale) for scale in (1.0, 6.0))
    guided.load_state_dict(plain.state_dict())

    assert not torch.allclose(plain.remake(batch, generator()), guided.remake(batch, generator()), atol=1e-3)


def test_other_predictions_are_refused():
    with pytest.raises(ConfigError, match="epsilon"):
        method_of("epsilon")


@pytest.mark.parametrize("settings", [{"steps": 0}, {"most_noise": 0.0}, {"most_noise": 1.5}, {"guidance": -1.0}])
def test_settings_out_of_range_are_refused(settings: dict[str, Any]):
    with pytest.raises(ConfigError, match="Remaking needs"):
        Remaking(**settings)
