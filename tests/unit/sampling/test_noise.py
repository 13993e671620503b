"""The noise that videos start from."""

from __future__ import annotations

import torch

from muybridge.sampling import draw_noise, video_generators
from muybridge.types import LatentShape

SHAPE = LatentShape(channels=4, num_latent_frames=3, height=5, width=6)


def test_noise_is_float32_on_the_cpu_and_normal() -> None:
    noise = draw_noise(video_generators(0, 2), LatentShape(4, 16, 32, 32))

    assert noise.shape == (2, 4, 16, 32, 32)
    assert noise.dtype == torch.float32
    assert noise.device.type == "cpu"
    assert abs(float(noise.mean())) < 0.01
    assert abs(float(noise.std()) - 1) < 0.01


def test_same_seed_same_noise_whatever_torchs_own_state() -> None:
    torch.manual_seed(1)
    first = draw_noise(video_generators(7, 1), SHAPE)
    state = torch.random.get_rng_state()
    torch.manual_seed(2)

    assert torch.equal(draw_noise(video_generators(7, 1), SHAPE), first)
    torch.manual_seed(1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not torch.equal(draw_noise(video_generators(8, 1), SHAPE), first)


def test_noise_of_a_video_does_not_depend_on_the_batch() -> None:
    batch = draw_noise(video_generators(7, 3), SHAPE)

    for index in range(3):
        assert torch.equal(batch[index], draw_noise(video_generators(7 + index, 1), SHAPE)[0])


def test_generators_go_on() -> None:
    generators = video_generators(7, 2)

    assert not torch.equal(draw_noise(generators, SHAPE), draw_noise(generators, SHAPE))
