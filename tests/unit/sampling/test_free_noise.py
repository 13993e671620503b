"""FreeNoise's rescheduled noise."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.pipelines.free_noise_utils import AnimateDiffFreeNoiseMixin

from muybridge.errors import ConfigError, ShapeError
from muybridge.sampling import draw_noise, free_noise, video_generators
from muybridge.types import LatentShape

SHAPE = LatentShape(4, 21, 3, 5)


def test_the_first_window_is_plain_noise() -> None:
    found = free_noise(video_generators(7, 2), SHAPE, window=8, stride=4)

    assert torch.equal(found[:, :, :8], draw_noise(video_generators(7, 2), SHAPE)[:, :, :8])


def test_later_frames_are_a_shuffle_of_those_a_window_before() -> None:
    (video,) = free_noise(video_generators(7, 1), SHAPE, window=8, stride=4)

    for start in range(8, 20, 4):
        sources = {video[:, frame].sum().item() for frame in range(start - 8, start - 4)}
        assert {video[:, frame].sum().item() for frame in range(start, start + 4)} == sources


def test_shuffles_differ_from_repetition() -> None:
    shuffled, repeated = (
        free_noise(video_generators(7, 1), SHAPE, window=8, stride=4, order=order) for order in ("shuffle", "repeat")
    )

    assert torch.equal(repeated[:, :, 8:16], repeated[:, :, :8])
    assert torch.equal(repeated[:, :, 16:], repeated[:, :, :5])
    assert not torch.equal(shuffled, repeated)


def test_a_video_does_not_depend_on_its_batch() -> None:
    together = free_noise(video_generators(7, 3), SHAPE, window=8)

    assert torch.equal(together[2:], free_noise(video_generators(9, 1), SHAPE, window=8))


@pytest.mark.parametrize(("num_frames", "window", "stride"), [(21, 8, 4), (16, 8, 3), (24, 16, 4), (9, 8, 8)])
def test_equals_diffusers(num_frames: int, window: int, stride: int) -> None:
    settings: Any = SimpleNamespace(
        _free_noise_context_length=window,
        _free_noise_context_stride=stride,
        _free_noise_noise_type="shuffle_context",
        vae_scale_factor=8,
    )
    expected = AnimateDiffFreeNoiseMixin._prepare_latents_free_noise(
        settings, 1, 4, num_frames, 16, 24, torch.float32, torch.device("cpu"), torch.Generator().manual_seed(3)
    )

    found = free_noise(video_generators(3, 1), LatentShape(4, num_frames, 2, 3), window, stride)

    assert torch.equal(found, expected)


@pytest.mark.parametrize("window", [0, 22])
def test_windows_that_do_not_fit_are_refused(window: int) -> None:
    with pytest.raises(ShapeError, match=rf"window from 1 to the 21 frames of the video; given {window}"):
        free_noise(video_generators(7, 1), SHAPE, window=window)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"stride": 0}, "from 1 to its window"), ({"stride": 9}, "from 1 to its window"), ({"order": "sort"}, "'sort'")],
)
def test_settings_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        free_noise(video_generators(7, 1), SHAPE, **{"window": 8, **options})
