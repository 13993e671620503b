"""Decoding and encoding as a stream, and smoothing between chunks."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from muybridge.debug.tensor_memory import TensorMemory
from muybridge.errors import ConfigError, ShapeError
from muybridge.vae.magvit import AutoencoderKLMagvit, decode_frames, encode_frames, smooth_output
from muybridge.vae.magvit.smoothing import smoothed_frames

TINY: dict[str, Any] = {
    "block_out_channels": (8, 8),
    "down_block_types": ("SpatialTemporalDownBlock3D",) * 2,
    "up_block_types": ("SpatialTemporalUpBlock3D",) * 2,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "tile_sample_min_size": 8,
}
V3: dict[str, Any] = {"slice_compression_vae": True, "mini_batch_encoder": 4}
V2: dict[str, Any] = {"mini_batch_encoder": 5}
UNCHUNKED: dict[str, Any] = {"slice_mag_vae": False}
MODES = pytest.mark.parametrize("mode", [V3, V2, UNCHUNKED], ids=["v3", "v2", "unchunked"])
TILINGS = pytest.mark.parametrize("tiling", ["off", "exact", "reference", "reference-launch"])


def make(**settings: Any) -> AutoencoderKLMagvit:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoencoderKLMagvit(**{**TINY, **settings}).eval()


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@MODES
@TILINGS
@pytest.mark.parametrize("count", [1, 5, 6])
def test_streamed_frames_are_the_decoded_ones(mode: dict[str, Any], tiling: str, count: int) -> None:
    vae = make(**mode)
    vae.enable_tiling(tiling)
    latents = noise(2, 4, count, 6, 4)
    pieces = list(decode_frames(vae, latents))
    with torch.no_grad():
        expected = vae.decode(latents, return_dict=False)[0]
    assert torch.equal(torch.cat(pieces, dim=2), expected)
    assert not pieces[0].requires_grad
    alone = list(decode_frames(vae, latents[1]))
    assert [piece.shape[1] for piece in alone] == [piece.shape[2] for piece in pieces]
    assert torch.allclose(torch.cat(alone, dim=1), expected[1], atol=1e-5)


def test_frames_come_as_soon_as_they_are_decoded() -> None:
    vae = make(**V3)
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    vae.decoder.register_forward_hook(count)
    stream = decode_frames(vae, noise(4, 7, 4, 4))
    assert calls == 0
    assert next(stream).shape == (3, 1, 8, 8)
    assert calls == 1
    assert [piece.shape[1] for piece in stream] == [4, 4, 4]
    assert calls == 4


@pytest.mark.parametrize("mode", [V3, V2], ids=["v3", "v2"])
def test_memory_does_not_grow_with_the_number_of_frames(mode: dict[str, Any]) -> None:
    vae = make(**mode)

    def peak(count: int) -> int:
        latents = noise(4, count, 8, 8)
        with TensorMemory() as memory:
            for frames in decode_frames(vae, latents):
                del frames
        return memory.peak_bytes

    assert peak(12) == peak(48) > 0


def test_latents_of_another_shape_are_refused_by_the_stream() -> None:
    with pytest.raises(ShapeError, match="latents must be"):
        next(decode_frames(make(**V3), noise(3, 2, 4, 4)))


@MODES
@TILINGS
@pytest.mark.parametrize("size", [1, 3, 100])
def test_streamed_latents_are_the_encoded_ones(mode: dict[str, Any], tiling: str, size: int) -> None:
    vae = make(**mode)
    vae.enable_tiling(tiling)
    frames = 10 if mode is V2 else 9
    video = noise(1, 3, frames, 12, 8)
    found = torch.cat(list(encode_frames(vae, video.split(size, dim=2), frames)), dim=2)
    with torch.no_grad():
        expected = vae.encode(video, return_dict=False)[0].parameters
    assert torch.equal(found, expected)


def test_pieces_are_asked_for_when_they_are_needed() -> None:
    vae = make(**V3)
    asked = 0

    def pieces() -> Iterator[Tensor]:
        nonlocal asked
        for piece in noise(1, 3, 12, 4, 4).split(2, dim=2):
            asked += 1
            yield piece

    stream = encode_frames(vae, pieces(), 12)
    next(stream)
    assert asked == 2
    assert len(list(stream)) == 2
    assert asked == 6


@pytest.mark.parametrize(("announced", "message"), [(12, "ended after 8"), (4, "has more"), (7, "give 5 or 8")])
def test_a_wrong_number_of_frames_is_noticed(announced: int, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        list(encode_frames(make(**V3), noise(1, 3, 8, 4, 4).split(4, dim=2), announced))


@pytest.mark.parametrize(("mode", "frames", "first", "last"), [(V3, 12, 2, 10), (V3, 9, 2, 7), (V2, 15, 2, 12)])
def test_smoothing_averages_with_a_second_pass(mode: dict[str, Any], frames: int, first: int, last: int) -> None:
    vae = make(**mode)
    video = noise(1, 3, frames, 8, 8).clamp_(-1, 1)
    kept = video.clone()
    for sample in (True, False):
        generator = torch.Generator().manual_seed(4) if sample else None
        found = smooth_output(vae, video, generator, sample)
        with torch.no_grad():
            posterior = vae.encode(video[:, :, first:last], return_dict=False)[0]
            latents = posterior.sample(torch.Generator().manual_seed(4)) if sample else posterior.mode()
            again = vae.decode(latents, return_dict=False)[0]
        expected = video.clone()
        expected[:, :, first:last] = (video[:, :, first:last] + again) / 2
        assert torch.equal(found, expected)
        assert not torch.allclose(found, video, atol=1e-2)
        assert torch.equal(video, kept)


@pytest.mark.parametrize(("mode", "frames"), [(V3, 16), (V3, 9), (V2, 15), (V3, 4), (UNCHUNKED, 9)])
@pytest.mark.parametrize("size", [1, 3, 4, 100])
def test_smoothing_a_stream_is_smoothing_the_whole(mode: dict[str, Any], frames: int, size: int) -> None:
    vae = make(**mode)
    video = noise(1, 3, frames, 8, 8).clamp_(-1, 1)
    expected = smooth_output(vae, video, torch.Generator().manual_seed(4))

    pieces = smoothed_frames(vae, video.split(size, dim=2), frames, torch.Generator().manual_seed(4))

    assert torch.equal(torch.cat(list(pieces), dim=2), expected)


@pytest.mark.parametrize("mode", [V3, V2], ids=["v3", "v2"])
def test_smoothing_holds_few_pieces(mode: dict[str, Any]) -> None:
    vae, held, most = make(**mode), 0, 0

    def let_go() -> None:
        nonlocal held
        held -= 1

    def pieces() -> Iterator[Tensor]:
        nonlocal held, most
        for _ in range(12):
            piece = torch.rand(1, 3, vae.frame_multiple, 4, 4)
            weakref.finalize(piece.untyped_storage(), let_go)
            held += 1
            most = max(most, held)
            yield piece
            del piece

    for _ in smoothed_frames(vae, pieces(), 12 * vae.frame_multiple):
        pass
    assert held == 0
    assert most <= 3


def test_what_smoothing_leaves_alone() -> None:
    for mode, frames in ((V3, 4), (V3, 1), (V2, 5), (UNCHUNKED, 9)):
        video = noise(1, 3, frames, 8, 8)
        found = smooth_output(make(**mode), video)
        assert torch.equal(found, video)
        assert found is not video


def test_a_generator_without_noise_is_refused() -> None:
    with pytest.raises(ConfigError, match="no effect with sample=False"):
        smooth_output(make(**V3), noise(1, 3, 8, 8, 8), torch.Generator(), sample=False)


@MODES
@TILINGS
def test_a_chunk_like_the_one_before_is_encoded_once(mode: dict[str, Any], tiling: str) -> None:
    vae = make(**mode)
    vae.enable_tiling(tiling)
    frames = 13 if mode is UNCHUNKED else 4 * vae.frame_multiple
    video = torch.ones(1, 3, frames, 8, 8)
    video[:, :, :1] = noise(1, 3, 1, 8, 8)
    with torch.no_grad():
        expected = vae.encode(video, return_dict=False)[0].parameters
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    vae.quant_conv.register_forward_hook(count)
    found = torch.cat(list(encode_frames(vae, [video], frames)), dim=2)

    assert torch.equal(found, expected)
    if tiling in ("off", "exact"):
        assert calls == (1 if mode is UNCHUNKED else 2)  # the first, and one for all that are white
