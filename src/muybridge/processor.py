"""What the processor multiplies fast, found out once, and torch's private operators that make use of it.

Nothing else reaches for those operators. Where one of them is absent, or the processor does not know a number format,
the same result comes from torch's public functions, slower.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

_HALVES = (torch.bfloat16, torch.float16)
_PLAIN = (Tensor, nn.Parameter)  # not quantised or sharded
_X86 = ("x86_64", "amd64", "AMD64")


@cache
def multiplies(dtype: torch.dtype) -> bool:
    """Whether the processor has instructions that multiply numbers of this kind.

    float32 and float64 always. bfloat16 takes AVX-512 with its bfloat16 part, or AMX, or the like on arm64; float16
    takes more than that. Without them torch multiplies halves as well, at a fifth of the speed of float32 or less.
    """
    if dtype not in _HALVES:
        return True
    is_known = _onednn("_is_mkldnn_bf16_supported" if dtype is torch.bfloat16 else "_is_mkldnn_fp16_supported")
    if is_known is None or not torch.backends.mkldnn.is_available() or not is_known():
        return False
    if dtype is torch.float16 or not _is_x86():
        return True
    # oneDNN also knows bfloat16 on processors that have AVX-512 alone, where it is slower than float32.
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(check() for name in checks if (check := getattr(torch.cpu, name, None)) is not None)


def fast_half(device: torch.device) -> torch.dtype | None:
    """The 16-bit format in which training is faster than in float32 on a device, bfloat16, or None where none is."""
    if device.type == "cuda":
        is_native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        is_native = device.type == "cpu" and multiplies(torch.bfloat16)
    return torch.bfloat16 if is_native else None


def is_slow(x: Tensor) -> bool:
    """Whether `x` lies on a processor that does not multiply numbers of its kind, so that float32 is faster.

    Not while a graph is compiled, where the compiler decides, nor under autocast, which would undo the change.
    """
    return (
        x.dtype in _HALVES
        and x.device.type == "cpu"
        and not multiplies(x.dtype)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def can_fuse_linear(tokens: Tensor, weight: Tensor) -> bool:
    """Whether `fused_linear` takes these; it is for inference, and knows no gradients and no autocast."""
    is_plain = type(weight) in (*_PLAIN, FakeTensor)  # a fake one stands for a plain one
    return is_plain and _is_inference(tokens, weight) and multiplies(tokens.dtype) and _has("_linear_pointwise")


def fused_linear(tokens: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
    """`tokens [..., in] @ weight [out, in].T + bias`, then "gelu" (exact) or "none", in one pass of oneDNN."""
    # The last argument is the algorithm of GELU, which must be named where there is none too.
    return torch.ops.mkldnn._linear_pointwise(tokens, weight, bias, activation, [], "none")


def convolve3d(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, ...], padding: tuple[int, ...]
) -> Tensor:
    """`torch.nn.functional.conv3d`, in the way that is fast for small inputs too, and right for those of few frames.

    torch itself turns to oneDNN for large inputs only; for small ones its own takes four to twelve times as long.
    """
    if _has_wrong_gradient(x, weight, padding):
        x, padding = F.pad(x, (0, 0, 0, 0, padding[0], padding[0])), (0, *padding[1:])
    if is_slow(x):
        return in_float32(partial(convolve3d, stride=stride, padding=padding), x, weight, bias)
    if x.dtype is torch.float32 and type(weight) in _PLAIN and _is_inference(x, weight):
        return torch.ops.aten.mkldnn_convolution(x.contiguous(), weight, bias, padding, stride, (1, 1, 1), 1)
    return F.conv3d(x, weight, bias, stride, padding)


def _has_wrong_gradient(x: Tensor, weight: Tensor, padding: tuple[int, ...]) -> bool:
    """Whether time must be padded before a convolution and not by it.

    In bfloat16 on a CPU, torch 2.13 gets the gradient for the weight wrong where a convolution itself pads frames that
    are fewer than the weight has, but more than one: as large as the right one and unrelated to part of it, or NaN, for
    it is of memory that nothing was written to. Under autocast the input is not yet bfloat16.
    """
    is_bfloat16 = x.dtype is torch.bfloat16 or torch.is_autocast_enabled("cpu")
    is_short = padding[0] > 0 and 1 < x.shape[2] < weight.shape[2]
    return is_short and is_bfloat16 and x.device.type == "cpu" and torch.is_grad_enabled()


def fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    **options: bool,
) -> Tensor:
    """`torch.nn.functional.scaled_dot_product_attention` as one kernel, without a matrix of scores in memory.

    Of several such kernels it is the one whose results and gradients have shapes on the meta device.
    """
    kernel = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
    if kernel is None:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal=is_causal, scale=scale, **options
        )
    return kernel(query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]


def in_float32(compute: Callable[..., Tensor], x: Tensor, *weights: Tensor | None) -> Tensor:
    """`compute(x, *weights)` in float32, rounded to the format of `x` at the end."""
    wide = (None if weight is None else weight.float() for weight in weights)
    return compute(x.float(), *wide).to(x.dtype)


def _is_inference(x: Tensor, weight: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype is weight.dtype
        and x.dtype in (torch.float32, torch.bfloat16)
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and torch.backends.mkldnn.is_available()
        and _is_x86()  # on others nothing was measured, and torch's own choice stands
    )


@cache
def _is_x86() -> bool:
    return platform.machine() in _X86


@cache
def _has(name: str) -> bool:
    return _onednn(name) is not None


def _onednn(name: str) -> Callable[..., object] | None:
    return getattr(torch.ops.mkldnn, name, None)
