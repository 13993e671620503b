"""Latents to frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from muybridge.errors import NonFiniteError
from muybridge.vae.frames import decode_frames, to_uint8


def latents(num_frames: int = 5) -> Tensor:
    return torch.randn(4, num_frames, 8, 8, generator=torch.Generator().manual_seed(0))


def test_frames_are_pictures_of_the_vae(pipeline: Any) -> None:
    frames = torch.cat(list(decode_frames(pipeline.vae, latents())))

    with torch.no_grad():
        scaled = latents().transpose(0, 1) / pipeline.vae.config["scaling_factor"]
        expected = (pipeline.vae.decode(scaled).sample / 2 + 0.5).clamp(0, 1)
    assert frames.shape == (5, 3, 16, 16)
    assert frames.dtype == torch.float32
    assert torch.allclose(frames, expected, atol=1e-5)


@pytest.mark.parametrize(("chunk", "sizes"), [(1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (8, [5])])
def test_in_pieces_or_in_one_go(pipeline: Any, chunk: int, sizes: list[int]) -> None:
    pieces = list(decode_frames(pipeline.vae, latents(), chunk))
    whole = torch.cat(list(decode_frames(pipeline.vae, latents(), 5)))

    assert [len(piece) for piece in pieces] == sizes
    assert torch.allclose(torch.cat(pieces), whole, atol=1e-5)


def test_pieces_come_one_by_one(pipeline: Any) -> None:
    bad_end = latents()
    bad_end[:, -1] = torch.nan
    stream = decode_frames(pipeline.vae, bad_end, chunk=2)

    assert len(next(stream)) == 2
    assert len(next(stream)) == 2
    with pytest.raises(NonFiniteError):
        next(stream)


def test_latents_are_left_alone(pipeline: Any) -> None:
    given = latents()

    list(decode_frames(pipeline.vae, given))

    assert torch.equal(given, latents())


def test_a_vae_that_gives_nan_is_an_error(make_pipeline: Any) -> None:
    vae = make_pipeline().vae
    with torch.no_grad():
        vae.decoder.conv_out.weight[0, 0, 0, 0] = torch.nan

    with pytest.raises(NonFiniteError, match=r"The VAE gave NaN or infinite pixels in torch.float32\."):
        list(decode_frames(vae, latents()))


def test_to_uint8_rounds_and_puts_colours_last() -> None:
    values = torch.tensor([0.0, 1.0, 0.5, 0.4 / 255, 0.6 / 255, 254.6 / 255]).view(1, 1, 1, 6)
    frames = torch.cat([values, values.flip(-1), values * 0], dim=1)

    found = to_uint8(frames)

    assert found.dtype == np.uint8
    assert found.shape == (1, 1, 6, 3)
    assert found[0, 0, :, 0].tolist() == [0, 255, 128, 0, 1, 255]
    assert found[0, 0, :, 1].tolist() == [255, 1, 0, 128, 255, 0]
