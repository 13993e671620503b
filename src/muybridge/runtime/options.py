"""The optimizations there are, what each does to a pipeline, and which do not go together."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

import torch
from diffusers import ModelMixin
from diffusers.models.attention_dispatch import AttentionBackendName
from torch import nn

from muybridge.errors import ConfigError
from muybridge.runtime.quantization import has_large_layers, quantize

Goal = Literal["memory", "speed"]
_ATTENTION = "attention:"


class TiledVAE(Protocol):
    """What is needed of a VAE."""

    def enable_tiling(self) -> None:
        """Work in tiles."""


class Pipeline(Protocol):
    """What is needed of a pipeline: a diffusers pipeline that knows its denoising network."""

    @property
    def backbone(self) -> nn.Module:
        """The denoising network."""
        ...

    @property
    def vae(self) -> TiledVAE:
        """Of the model."""
        ...

    @property
    def components(self) -> Mapping[str, object]:
        """All parts by name."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it is."""
        ...

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        """Generate."""
        ...

    def enable_model_cpu_offload(self, *, device: torch.device) -> None:
        """Parts wait in the memory of the host."""

    def enable_group_offload(self, onload_device: torch.device, *, offload_type: str, use_stream: bool) -> None:
        """Parts of parts do."""


@dataclass(frozen=True)
class Optimization:
    """One thing that can be done.

    Attributes:
        goal: whether it is there for memory or for speed.
        does: what changes, for the report.
        order: they are applied from small to large: precision, weights, layout, attention, compilation, offload.
        apply: does it.
        group: of two of one group only one can be chosen.
        not_with: names, or groups, that it does not work with, and why.
        needs: raises what is missing on this machine, as a sentence; or None.
        exact: whether results should be those of the plain run up to rounding in its precision.
    """

    goal: Goal
    does: str
    order: int
    apply: Callable[[Pipeline], None]
    group: str | None = None
    not_with: tuple[tuple[str, str], ...] = ()
    needs: Callable[[Pipeline], str | None] | None = None
    exact: bool = True


def networks(pipeline: Pipeline) -> list[nn.Module]:
    """The parts that are networks, each once; a motion adapter is inside its backbone."""
    inside = {id(module) for module in pipeline.backbone.modules()}
    parts = [part for part in pipeline.components.values() if isinstance(part, nn.Module)]
    return [part for part in parts if part is pipeline.backbone or id(part) not in inside]


def _backbone(pipeline: Pipeline) -> ModelMixin:
    return cast("ModelMixin", pipeline.backbone)  # as all backbones are, with what diffusers offers of them


def _cast(dtype: torch.dtype) -> Callable[[Pipeline], None]:
    def apply(pipeline: Pipeline) -> None:
        for network in networks(pipeline):
            nn.Module.to(network, dtype)
            # Layers that overflow in float16, as T5's last projections do.
            kept = (getattr(network, "_keep_in_fp32_modules", None) or ()) if dtype is torch.float16 else ()
            for name, module in network.named_modules():
                if name.rpartition(".")[2] in kept:
                    nn.Module.to(module, torch.float32)

    return apply


def _needs_half_precision(pipeline: Pipeline) -> str | None:
    if pipeline.device.type == "cpu":
        return "float16 is slower than float32 on a CPU and overflows sooner; choose bfloat16"
    return None


def _needs_accelerator(_pipeline: Pipeline) -> str | None:
    return None if _accelerator() is not None else "there is no accelerator here to offload from"


def _accelerator() -> torch.device | None:
    """The one in use, with its number: without one, diffusers takes the first."""
    there = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return None if there is None else torch.device(there.type, torch.accelerator.current_device_index())


def _needs_fp8(pipeline: Pipeline) -> str | None:
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 9):
        return "float8 products need a GPU of compute capability 8.9 or newer; choose fp8_storage or int8_weights"
    return _needs_torchao(pipeline)


def _needs_torchao(pipeline: Pipeline) -> str | None:
    if importlib.util.find_spec("torchao") is None:
        return "it needs torchao: pip install 'muybridge[quantize]'"
    if not has_large_layers(pipeline.backbone):
        return "the backbone has no linear layer large enough to gain by it"
    return None


def _needs_float32(pipeline: Pipeline) -> str | None:
    if pipeline.device.type == "cpu" and _backbone(pipeline).dtype != torch.float32:
        return "dynamic int8 on a CPU starts from float32 weights"
    return _needs_torchao(pipeline)


def _store_in_fp8(pipeline: Pipeline) -> None:
    backbone = _backbone(pipeline)
    backbone.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=backbone.dtype)


def _offload_models(pipeline: Pipeline) -> None:
    pipeline.enable_model_cpu_offload(device=cast("torch.device", _accelerator()))


def _offload_groups(pipeline: Pipeline) -> None:
    device = cast("torch.device", _accelerator())
    pipeline.enable_group_offload(device, offload_type="leaf_level", use_stream=device.type == "cuda")


def _channels_last(pipeline: Pipeline) -> None:
    for network in networks(pipeline):
        if any(isinstance(module, nn.Conv2d) for module in network.modules()):
            cast("Any", network).to(memory_format=torch.channels_last)


def _compile(pipeline: Pipeline) -> None:
    _backbone(pipeline).compile_repeated_blocks(fullgraph=True)


def _checkpoint(pipeline: Pipeline) -> None:
    _backbone(pipeline).enable_gradient_checkpointing()


def _attention(backend: str) -> Optimization:
    known = [each.value for each in AttentionBackendName]
    if backend not in known:
        raise ConfigError(f"There is no attention backend {backend!r}. Known: {', '.join(known)}.")

    def apply(pipeline: Pipeline) -> None:
        try:
            _backbone(pipeline).set_attention_backend(backend)
        except (ValueError, RuntimeError, ImportError) as error:
            raise ConfigError(f"The attention backend {backend!r} cannot be used here: {error}") from error

    return Optimization("speed", f"attention computed by {backend!r}", 4, apply, group="attention")


def _tile_vae(pipeline: Pipeline) -> None:
    pipeline.vae.enable_tiling()


_HOOKS = "the hooks that move weights break the compiled graph; compile needs the weights in place"

OPTIMIZATIONS: dict[str, Optimization] = {
    "bfloat16": Optimization(
        "memory", "all networks in bfloat16", 0, _cast(torch.bfloat16), group="precision", exact=False
    ),
    "float16": Optimization(
        "memory",
        "all networks in float16",
        0,
        _cast(torch.float16),
        group="precision",
        needs=_needs_half_precision,
        exact=False,
    ),
    "int8_weights": Optimization(
        "memory",
        "weights of the backbone's linear layers as int8",
        1,
        lambda pipeline: quantize(pipeline.backbone, "int8_weights"),
        group="weights",
        needs=_needs_torchao,
        exact=False,
    ),
    "fp8_weights": Optimization(
        "memory",
        "weights of the backbone's linear layers as float8",
        1,
        lambda pipeline: quantize(pipeline.backbone, "fp8_weights"),
        group="weights",
        needs=_needs_fp8,
        exact=False,
    ),
    "fp8_storage": Optimization(
        "memory",
        "weights of the backbone stored as float8 and cast layer by layer",
        1,
        _store_in_fp8,
        group="weights",
        not_with=(("compile", "casting hooks change the weights between calls"),),
        exact=False,
    ),
    "int8_dynamic": Optimization(
        "speed",
        "linear layers of the backbone multiply int8 by int8, activations scaled token by token",
        1,
        lambda pipeline: quantize(pipeline.backbone, "int8_dynamic"),
        group="weights",
        needs=_needs_float32,
        exact=False,
    ),
    "vae_tiling": Optimization("memory", "the VAE works in tiles", 2, _tile_vae, exact=False),
    "gradient_checkpointing": Optimization(
        "memory", "blocks are computed again in the backward pass (training only)", 2, _checkpoint
    ),
    "channels_last": Optimization("speed", "convolution weights channels-last in memory", 3, _channels_last),
    "compile": Optimization(
        "speed",
        "repeated blocks of the backbone compiled",
        5,
        _compile,
        not_with=(("offload", _HOOKS), ("gradient_checkpointing", "its recomputation is not captured as one graph")),
    ),
    "model_offload": Optimization(
        "memory",
        "parts wait in the memory of the host until their stage",
        6,
        _offload_models,
        group="offload",
        needs=_needs_accelerator,
    ),
    "group_offload": Optimization(
        "memory",
        "layers wait in the memory of the host until their turn",
        6,
        _offload_groups,
        group="offload",
        not_with=(("weights", "moving quantized or cast weights layer by layer loses their scales"),),
        needs=_needs_accelerator,
    ),
}
"""By name. `attention:NAME` chooses an attention backend of diffusers besides."""


def choose(names: Sequence[str], pipeline: Pipeline) -> dict[str, Optimization]:
    """Look names up, in the order in which they are applied.

    Raises:
        ConfigError: an unknown name, two that exclude each other, or one that this machine or this pipeline cannot do;
            nothing has been changed then.
    """
    chosen = look_up(names)
    if any(each.group == "weights" for each in chosen.values()) and _has_lora(pipeline.backbone):
        raise ConfigError("Weights under a LoRA cannot be quantized; fuse it with pipe.fuse_lora(), or unload it.")
    for name, each in chosen.items():
        if each.needs is not None and (missing := each.needs(pipeline)) is not None:
            raise ConfigError(f"{name} cannot be used: {missing}.")
    if {"bfloat16", "int8_dynamic"} <= chosen.keys() and pipeline.device.type == "cpu":
        raise ConfigError(
            "int8_dynamic does not work together with bfloat16 on a CPU: it starts from float32 weights there. Leave "
            "one of them out."
        )
    return dict(sorted(chosen.items(), key=lambda item: item[1].order))


def look_up(names: Sequence[str]) -> dict[str, Optimization]:
    """What there is by these names, in their order; whether a pipeline can do it, `choose` says.

    Raises:
        ConfigError: an unknown name, one that is given twice, or two that exclude each other.
    """
    chosen: dict[str, Optimization] = {}
    for name in names:
        if name in chosen:
            raise ConfigError(f"The optimization {name!r} is given twice.")
        chosen[name] = _look_up(name)
    for name, each in chosen.items():
        for other, reason in _refusals(name, each, chosen):
            raise ConfigError(f"{name} does not work together with {other}: {reason}. Leave one of them out.")
    return chosen


def _look_up(name: str) -> Optimization:
    if name.startswith(_ATTENTION):
        return _attention(name.removeprefix(_ATTENTION))
    if name not in OPTIMIZATIONS:
        raise ConfigError(f"Unknown optimization {name!r}. Known: {', '.join(OPTIMIZATIONS)}, {_ATTENTION}BACKEND.")
    return OPTIMIZATIONS[name]


def _refusals(name: str, each: Optimization, chosen: dict[str, Optimization]) -> list[tuple[str, str]]:
    found = []
    for other, its in chosen.items():
        if other == name:
            continue
        if each.group is not None and its.group == each.group:
            found.append((other, f"both decide over {each.group}"))
        found += [(other, reason) for what, reason in each.not_with if what in (other, its.group)]
    return found


def _has_lora(network: nn.Module) -> bool:
    return any(hasattr(module, "lora_A") for module in network.modules())
