"""What the benchmarks measure with: clocks, memory, counted operations, and a description of the machine."""

from __future__ import annotations

import json
import os
import platform
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from muybridge.debug.tensor_memory import TensorMemory
from muybridge.files.atomic import new_file

RESULTS = Path(__file__).resolve().parent / "results"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Times:
    """Seconds of one call: on the clock, and of this process on all CPU cores together."""

    wall: float
    cpu: float


@torch.no_grad()
def timed(run: Callable[[], Any], device: torch.device) -> tuple[Times, Any]:
    """One call, waited for, and what it returned."""
    _wait(device)
    wall, cpu = time.perf_counter(), time.process_time()
    result = run()
    _wait(device)
    return Times(time.perf_counter() - wall, time.process_time() - cpu), result


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def take_turns(
    calls: Mapping[str, Callable[[], Tensor]], repeats: int, device: torch.device
) -> tuple[dict[str, list[Times]], dict[str, Tensor]]:
    """Call each in turn, `repeats` times after a round that warms up; times and last results by name.

    Turns, so that what else happens on the machine meets them all alike.
    """
    times: dict[str, list[Times]] = {name: [] for name in calls}
    results: dict[str, Tensor] = {}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            taken, results[name] = timed(call, device)
            if turn > 0:
                times[name].append(taken)
    return times, results


@torch.no_grad()
def activation_peak(run: Callable[[], Any], device: torch.device) -> int:
    """Most bytes that the tensors made by a call took at a time; those from before (weights, inputs) do not count.

    On CUDA the allocator says it, with what kernels need inside themselves. Elsewhere, on the meta device too, tensors
    are counted.
    """
    if device.type != "cuda":
        with TensorMemory() as memory:
            run()
        return memory.peak_bytes
    _wait(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    _wait(device)
    return torch.cuda.max_memory_allocated(device) - before


@dataclass(frozen=True)
class Counts:
    """Of one call on meta tensors.

    Attributes:
        flops: floating point operations of matrix products, convolutions and attention; a multiplication and an
            addition are two. Norms and other work on single numbers do not count.
        peak_bytes: as `activation_peak`.
    """

    flops: int
    peak_bytes: int


@torch.no_grad()
def count(run: Callable[[], Any]) -> Counts:
    """Operations and memory of a call on meta tensors, in one pass."""
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # what `TensorMemory` makes of attention
    with TensorMemory() as memory, FlopCounterMode(display=False, custom_mapping={fused: _attention_flops}) as counter:
        run()
    return Counts(counter.get_total_flops(), memory.peak_bytes)


def _attention_flops(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


@torch.no_grad()
def matmul_rate(device: torch.device, dtype: torch.dtype, repeats: int = 20) -> float:
    """Floating point operations a second of a large square matrix product, the fastest that a network could go."""
    size = 8192 if device.type == "cuda" else 512
    left, right = (torch.rand(size, size, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(left)

    def run() -> None:
        for _ in range(repeats):
            torch.mm(left, right, out=out)

    timed(run, device)
    return repeats * 2 * size**3 / timed(run, device)[0].wall


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Networks and tensors made in the block have this precision."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@torch.no_grad()
def randomise_(module: nn.Module, seed: int = 0) -> None:
    """Overwrite weights with noise of the usual size, those too that a new network has at zero.

    Zeros would flatter: they take less power, and a card that is less hot is faster.
    """
    generators: dict[torch.device, torch.Generator] = {}
    for name, weight in module.named_parameters():
        if weight.is_meta:
            continue
        if weight.device not in generators:
            generators[weight.device] = torch.Generator(weight.device).manual_seed(seed)
        set_random_(name, weight, generators[weight.device])


def set_random_(name: str, weight: Tensor, generator: torch.Generator) -> None:
    """Overwrite one weight with noise of the usual size for its name and shape."""
    bound = weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.1
    weight.uniform_(-bound, bound, generator=generator)
    if weight.ndim == 1 and name.endswith("weight"):
        weight.add_(1.0)


def machine(device: torch.device) -> dict[str, Any]:
    """What a figure depends on: processor or card, threads, versions; the card's name only where one is used."""
    described: dict[str, Any] = {
        "cpu": _processor(),
        "cpu_cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
    }
    if device.type == "cuda":
        described["card"] = torch.cuda.get_device_name(device)
        described["card_memory_bytes"] = torch.cuda.get_device_properties(device).total_memory
    return described


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1) if found else platform.processor() or platform.machine()


def write_results(name: str, report: Mapping[str, Any], folder: Path = RESULTS) -> Path:
    """Write `<name>.json` among the results, in place of an older one."""
    path = folder / f"{name}.json"
    with new_file(path) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n")
    return path
