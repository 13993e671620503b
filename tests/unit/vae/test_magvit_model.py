"""The video VAE: shapes, precision, training, and the tools of the ecosystem."""

from __future__ import annotations

import copy
import gc
from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from diffusers.hooks import apply_group_offloading
from torch import Tensor

from muybridge.errors import ShapeError
from muybridge.vae import AutoencoderKLMagvit
from muybridge.vae.magvit.layers import SpaceTimeAttention, double_frames, double_frames_after_first

TINY: dict[str, Any] = {
    "block_out_channels": (8, 16),
    "down_block_types": ("SpatialTemporalDownBlock3D",) * 2,
    "up_block_types": ("SpatialTemporalUpBlock3D",) * 2,
    "layers_per_block": 1,
    "norm_num_groups": 4,
}
V3: dict[str, Any] = {"slice_compression_vae": True, "mini_batch_encoder": 4}
V2: dict[str, Any] = {"mini_batch_encoder": 5}
BOTH = pytest.mark.parametrize("mode", [V3, V2], ids=["v3", "v2"])


def make(**settings: Any) -> AutoencoderKLMagvit:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoencoderKLMagvit(**{**TINY, **settings}).eval()


def video(frames: int, height: int = 8, width: int = 12, batch: int = 2) -> Tensor:
    return torch.rand(batch, 3, frames, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def latents_of(vae: AutoencoderKLMagvit, pixels: Tensor) -> Any:
    posterior: Any = vae.encode(pixels)
    return posterior.latent_dist


def pixels_of(vae: AutoencoderKLMagvit, latents: Tensor) -> Tensor:
    decoded: Any = vae.decode(latents)
    return decoded.sample


def difference(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected).abs().max() / expected.abs().max())


@torch.no_grad()
@pytest.mark.parametrize(
    ("mode", "frames", "latents"),
    [(V3, 1, 1), (V3, 4, 2), (V3, 8, 4), (V3, 9, 5), (V2, 1, 1), (V2, 5, 3), (V2, 10, 6), (V2, 8, 5)],
)
def test_all_frames_come_back(mode: dict[str, Any], frames: int, latents: int) -> None:
    vae = make(**mode)
    posterior = latents_of(vae, video(frames))
    assert posterior.parameters.shape == (2, 8, latents, 4, 6)
    assert pixels_of(vae, posterior.mode()).shape == (2, 3, frames, 8, 12)


@torch.no_grad()
def test_chunks_of_the_encoder_do_not_see_each_other_and_those_of_the_decoder_do() -> None:
    vae = make(**V3)
    one = video(8)
    other = one.clone()
    other[:, :, 4:] *= -1
    first, second = latents_of(vae, one).mode(), latents_of(vae, other).mode()
    assert torch.equal(first[:, :, :2], second[:, :, :2])
    assert difference(first[:, :, 2:], second[:, :, 2:]) > 0.1
    assert difference(pixels_of(vae, first)[:, :, :4], pixels_of(vae, second)[:, :, :4]) > 1e-4


@torch.no_grad()
def test_the_causal_mode_sees_nothing_later() -> None:
    vae = make(slice_mag_vae=False)
    convolution = vae.encoder.conv_in
    one = video(6)
    other = one.clone()
    other[:, :, 4:] *= -1
    first, second = convolution(one), convolution(other)
    assert torch.equal(first[:, :, :4], second[:, :, :4])
    assert not torch.equal(first[:, :, 4], second[:, :, 4])
    # The frame before the first is the first.
    assert torch.allclose(convolution(one[:, :, :1]), convolution(one[:, :, :1].expand(-1, -1, 3, -1, -1))[:, :, 2:])


@pytest.mark.parametrize("grad", [True, False])
def test_time_is_doubled_as_torch_does(grad: bool) -> None:
    x = video(5)
    for part, doubled in ((x, double_frames), (x[:, :, :1], double_frames)):
        expected = torch.nn.functional.interpolate(part, scale_factor=(2, 1, 1), mode="trilinear")
        with torch.set_grad_enabled(grad):
            assert torch.allclose(doubled(part), expected, atol=1e-6)
    with torch.set_grad_enabled(grad):
        single = double_frames_after_first(x)
        assert torch.equal(single[:, :, 0], x[:, :, 0])
        assert torch.equal(single[:, :, 1:], double_frames(x[:, :, 1:]))
        assert torch.equal(double_frames_after_first(x[:, :, :1]), x[:, :, :1])


def test_the_posterior_is_sampled_with_the_generator_given() -> None:
    vae = make(**V3)
    with torch.no_grad():
        bias = vae.get_parameter("quant_conv.bias")
        bias[4:] = 1.0
        posterior = latents_of(vae, video(4))
        drawn = [posterior.sample(torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)]
        noise = torch.randn(drawn[0].shape, generator=torch.Generator().manual_seed(5))
        assert torch.equal(drawn[0], drawn[1])
        assert not torch.equal(drawn[0], drawn[2])
        mean, log_variance = posterior.parameters.chunk(2, dim=1)
        assert torch.allclose(drawn[0], mean + noise * (0.5 * log_variance).exp(), atol=1e-5)
        bias[4:] = torch.tensor([100.0, 100.0, -100.0, -100.0])
        assert latents_of(vae, video(4)).logvar.amax(dim=(0, 2, 3, 4)).tolist() == [20.0, 20.0, -30.0, -30.0]


@torch.no_grad()
def test_tuples_and_the_whole_way() -> None:
    vae = make(**V3)
    pixels = video(4)
    mean = vae.encode(pixels, return_dict=False)[0].mode()
    whole: Any = vae(pixels)
    assert torch.equal(whole.sample, vae.decode(mean, return_dict=False)[0])
    sampled = [
        vae(pixels, sample_posterior=True, return_dict=False, generator=torch.Generator().manual_seed(seed))[0]
        for seed in (3, 3, 4)
    ]
    assert torch.equal(sampled[0], sampled[1])
    assert not torch.equal(sampled[0], sampled[2])


@BOTH
@torch.no_grad()
def test_the_input_is_left_alone_and_gradients_change_no_numbers(mode: dict[str, Any]) -> None:
    vae = make(**mode)
    pixels = video(5)
    kept = pixels.clone()
    mean = latents_of(vae, pixels).mode()
    kept_mean = mean.clone()
    found = pixels_of(vae, mean)
    assert torch.equal(pixels, kept)
    assert torch.equal(mean, kept_mean)
    with torch.enable_grad():
        expected = pixels_of(vae, latents_of(vae, pixels).mode())
    assert difference(found, expected.detach()) <= 1e-5


@BOTH
@torch.no_grad()
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_half_precision(mode: dict[str, Any], dtype: torch.dtype, tolerance: float) -> None:
    vae = make(**mode)
    mean = latents_of(vae, video(vae.frame_multiple)).mode()
    expected = pixels_of(vae, mean)
    half = copy.deepcopy(vae)
    half = half.half() if dtype == torch.float16 else half.bfloat16()
    found_mean = latents_of(half, video(vae.frame_multiple).to(dtype)).mode()
    found = pixels_of(half, mean.to(dtype))
    assert found_mean.dtype == found.dtype == dtype
    assert difference(found_mean, mean) <= tolerance
    assert difference(found, expected) <= tolerance


@BOTH
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_gradients_reach_every_parameter_and_checkpointing_gives_the_same(
    mode: dict[str, Any], layout: torch.memory_format
) -> None:
    vae = make(**mode).train()
    pixels = video(2 * vae.frame_multiple, batch=1).to(memory_format=layout).requires_grad_()

    def gradients() -> dict[str, Tensor]:
        vae.zero_grad(set_to_none=True)
        pixels.grad = None
        output: Any = vae(pixels, sample_posterior=True, generator=torch.Generator().manual_seed(0))
        output.sample.square().mean().backward()
        assert pixels.grad is not None
        missing = [name for name, parameter in vae.named_parameters() if parameter.grad is None]
        assert missing == []
        found = {name: p.grad.clone() for name, p in vae.named_parameters() if p.grad is not None}
        return {**found, "pixels": pixels.grad.clone()}

    plain = gradients()
    # Keys add the same to all scores, so the bias of the keys has no effect: its gradient is rounding.
    assert [name for name, g in plain.items() if not bool(g.any()) and "to_k.bias" not in name] == []
    vae.enable_gradient_checkpointing()
    recomputed = gradients()
    scale = max(float(g.abs().max()) for g in plain.values())
    assert max(float((recomputed[k] - plain[k]).abs().max()) for k in plain) <= 1e-6 * scale


def test_checkpointing_keeps_less_for_the_backward_pass() -> None:
    vae = make(**V3).train()

    def saved() -> int:
        sizes = []

        def pack(tensor: Tensor) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output: Any = vae(video(4, batch=1))
        del output
        gc.collect()
        return sum(sizes)

    plain = saved()
    vae.enable_gradient_checkpointing()
    assert saved() < 0.6 * plain


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 4, 8, 12), r"\[b, 3, frames, height, width\]"),
        ((1, 4, 4, 8, 12), r"\[b, 3, frames, height, width\]"),
        ((1, 3, 4, 8, 13), "nearest is 12x8"),
        ((1, 3, 4, 1, 12), "nearest is 12x2"),
        ((1, 3, 0, 8, 12), r"\[b, 3, frames, height, width\]"),
        ((1, 3, 6, 8, 12), "give 5 or 8"),
        ((1, 3, 7, 8, 12), "give 5 or 8"),
        ((1, 3, 2, 8, 12), "give 1 or 4"),
    ],
)
def test_pixels_of_other_shapes_are_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        make(**V3).encode(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(4, 2, 4, 6), (1, 3, 2, 4, 6), (1, 4, 0, 4, 6)])
def test_latents_of_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="latents must be"):
        make(**V3).decode(torch.zeros(shape))


@pytest.mark.parametrize(
    "options", [{"offload_type": "leaf_level"}, {"offload_type": "block_level", "num_blocks_per_group": 1}]
)
@pytest.mark.parametrize("tiling", ["off", "exact"])
@torch.no_grad()
def test_group_offloading_to_disk(options: dict[str, Any], tiling: str, tmp_path: Any) -> None:
    vae = make(**V3)
    expected = pixels_of(vae, latents_of(vae, video(4)).mode())
    vae.enable_tiling(tiling)
    # Between its calls a layer has no weights at all, so one that is used without being called shows.
    cpu = torch.device("cpu")
    apply_group_offloading(vae, onload_device=cpu, offload_device=cpu, offload_to_disk_path=str(tmp_path), **options)
    for _ in range(2):
        assert difference(pixels_of(vae, latents_of(vae, video(4)).mode()), expected) <= 1e-5
    assert list(tmp_path.iterdir())


@pytest.mark.parametrize("tiling", ["off", "exact"])
@torch.no_grad()
def test_sequential_offloading(tiling: str) -> None:
    vae = make(**V2)
    expected = pixels_of(vae, latents_of(vae, video(5)).mode())
    vae.enable_tiling(tiling)
    cpu_offload(vae, torch.device("cpu"))
    assert {parameter.device.type for parameter in vae.parameters()} == {"meta"}
    assert difference(pixels_of(vae, latents_of(vae, video(5)).mode()), expected) <= 1e-5


@torch.no_grad()
def test_an_attention_backend_reaches_both_attentions() -> None:
    vae = make(**V3)
    attentions = [module for module in vae.modules() if isinstance(module, SpaceTimeAttention)]
    assert len(attentions) == 2
    expected = latents_of(vae, video(4)).mode()
    vae.set_attention_backend("native")
    assert all(attention.processor._attention_backend == "native" for attention in attentions)
    assert torch.equal(latents_of(vae, video(4)).mode(), expected)
