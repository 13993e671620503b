"""Optimize a pipeline in one call, and say what that did on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from muybridge.debug.tensor_memory import TensorMemory
from muybridge.runtime.options import Pipeline, choose, networks
from muybridge.types import SettingsDict, SettingsView


@dataclass(frozen=True)
class Measurement:
    """Of one trial run.

    Attributes:
        seconds: of a run after the first, the median of a few.
        first_seconds: of the first, which compiles and warms up.
        weight_bytes: of all networks, as they are stored.
        peak_bytes: most memory at a time. On a GPU what the allocator gave out, weights included; elsewhere weights
            and the tensors of a run together, which leaves out what kernels need inside themselves.
        latents: what came out.
    """

    seconds: float
    first_seconds: float
    weight_bytes: int
    peak_bytes: int
    latents: Tensor


@dataclass(frozen=True)
class OptimizationReport:
    """What was changed, and what it did.

    Attributes:
        changes: what was applied, by name, in order, in words.
        plain: the trial run before.
        optimized: the same after.
        relative_error: root mean square of the difference of the latents, over that of the plain ones.
    """

    changes: dict[str, str]
    plain: Measurement
    optimized: Measurement
    relative_error: float

    @property
    def speedup(self) -> float:
        """How many times faster the trial run became."""
        return self.plain.seconds / self.optimized.seconds

    @property
    def memory_ratio(self) -> float:
        """Peak after, as a share of the peak before."""
        return self.optimized.peak_bytes / self.plain.peak_bytes

    def __str__(self) -> str:
        """A few lines for a person."""
        lines = [f"{name}: {does}" for name, does in self.changes.items()]
        before, after = self.plain, self.optimized
        lines += [
            f"time    {before.seconds:.3g} s -> {after.seconds:.3g} s ({self.speedup:.2f} times as fast; the first run "
            f"took {after.first_seconds:.3g} s)",
            f"weights {_size(before.weight_bytes)} -> {_size(after.weight_bytes)}",
            f"peak    {_size(before.peak_bytes)} -> {_size(after.peak_bytes)} ({self.memory_ratio:.0%})",
            f"error   {self.relative_error:.2g} of the latents (root mean square, relative)",
        ]
        return "\n".join(lines)


def optimize(
    pipeline: Pipeline,
    memory: str | Sequence[str] = (),
    speed: str | Sequence[str] = (),
    trial: SettingsView | None = None,
    repeats: int = 3,
) -> OptimizationReport:
    """Change a pipeline for less memory or more speed, after checking that the choices go together.

    The latents of a short trial video are made before and after, with the same seed, so that the report holds figures
    of this machine and the error against the plain run; decoding is not in them, so "vae_tiling" does not show. The
    changes stay; load the pipeline again to undo them.

    Args:
        pipeline: on the device where it is to run.
        memory: names of `OPTIMIZATIONS`, such as "bfloat16", "model_offload", "int8_weights".
        speed: likewise, such as "compile", "channels_last", "attention:native". Which of the two lists a name stands
            in does not matter.
        trial: arguments of the pipeline's call for the trial; by default an empty prompt, and two steps of what the
            model makes by default. Give the size you are going to use: figures depend on it.
        repeats: runs that are timed, after a first one that is not.

    Raises:
        ConfigError: an unknown name, choices that do not work together or not on this machine; nothing is changed.
    """
    names = [*([memory] if isinstance(memory, str) else memory), *([speed] if isinstance(speed, str) else speed)]
    chosen = choose(names, pipeline)
    settings: SettingsDict = {"prompt": "", "num_inference_steps": 2, "seed": 0, **(trial or {})}
    settings["output_type"] = "latent"
    plain = measure(pipeline, settings, repeats)
    for each in chosen.values():
        each.apply(pipeline)
    optimized = measure(pipeline, settings, repeats)
    difference = optimized.latents.float().cpu() - plain.latents.float().cpu()
    error = difference.square().mean().sqrt() / plain.latents.float().cpu().square().mean().sqrt()
    return OptimizationReport({name: each.does for name, each in chosen.items()}, plain, optimized, float(error))


def measure(pipeline: Pipeline, settings: SettingsView, repeats: int) -> Measurement:
    """Run a trial, once to warm up, then `repeats` times for its time, and once for its memory."""
    first, latents = _timed(pipeline, settings)
    seconds = statistics.median(_timed(pipeline, settings)[0] for _ in range(repeats))
    weights = sum(tensor.untyped_storage().nbytes() for tensor in _weights(pipeline))
    return Measurement(seconds, first, weights, _peak(pipeline, settings, weights), latents)


def _weights(pipeline: Pipeline) -> list[Tensor]:
    found: dict[int, Tensor] = {}
    for network in networks(pipeline):
        for tensor in [*network.parameters(), *network.buffers()]:
            for inner in _inner_tensors(tensor):
                found[inner.untyped_storage()._cdata] = inner
    return list(found.values())


def _inner_tensors(tensor: Tensor) -> list[Tensor]:
    """A quantized weight is a wrapper around plain tensors."""
    names = getattr(tensor, "__tensor_flatten__", None)
    if names is None:
        return [tensor.detach()]
    return [inner for name in names()[0] for inner in _inner_tensors(getattr(tensor, name))]


def _timed(pipeline: Pipeline, settings: SettingsView) -> tuple[float, Tensor]:
    started = time.perf_counter()
    latents = pipeline(**settings)
    if _runs_on_cuda(pipeline):
        torch.cuda.synchronize()
    return time.perf_counter() - started, latents


def _runs_on_cuda(pipeline: Pipeline) -> bool:
    # Under offload the weights wait elsewhere.
    return getattr(pipeline, "_execution_device", pipeline.device).type == "cuda"


def _peak(pipeline: Pipeline, settings: SettingsView, weights: int) -> int:
    if _runs_on_cuda(pipeline):
        torch.cuda.reset_peak_memory_stats()
        pipeline(**settings)
        return torch.cuda.max_memory_allocated()
    # Compiled code cannot be watched: what is counted is what it was made from.
    with torch.compiler.set_stance("force_eager"), TensorMemory() as counted:
        pipeline(**settings)
    return weights + counted.peak_bytes


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
