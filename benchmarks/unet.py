"""Our U-Net beside diffusers' `UNetMotionModel`: the same random weights, one process, taking turns.

    python benchmarks/unet.py [--json] [--device cuda] [--latents 16x64x64]

Ratios are ours divided by theirs, medians over the repeats; below 1 is better. The error is the largest difference
of the outputs over the largest output.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import UNetMotionModel
from torch import Tensor

from muybridge.backbones.unet import from_unet_motion_model

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Figures = dict[str, float]


def random_motion_unet(device: torch.device) -> UNetMotionModel:
    """Stable Diffusion 1.5 with AnimateDiff v2's motion modules, 1.3 billion random weights in float32."""
    with torch.device("meta"):
        model = UNetMotionModel(
            cross_attention_dim=768, num_attention_heads=8, motion_max_seq_length=32, use_motion_mid_block=True
        )
    model.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    for name, value in model.state_dict().items():
        if name.endswith("pos_embed.pe"):
            table = position_table(value.shape[1], value.shape[2])
            value.copy_(table)
            continue
        bound = value[0].numel() ** -0.5 if value.ndim > 1 else 0.1
        value.uniform_(-bound, bound, generator=generator)
        if value.ndim == 1 and name.endswith("weight"):
            value.add_(1.0)
    return model.eval()


def position_table(length: int, width: int) -> Tensor:
    """The sinusoids that diffusers keeps as a buffer, `[1, length, width]`."""
    angles = torch.arange(length)[:, None] * torch.exp(torch.arange(0, width, 2) * (-9.210340371976184 / width))
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)[None]


def measure(run: Callable[[], Tensor], device: torch.device) -> tuple[Figures, Tensor]:
    """Wall seconds, CPU seconds and peak memory above the start of one call, and its output."""
    before = reset_peak(device)
    wall, cpu = time.perf_counter(), time.process_time()
    output = run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    figures = {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "peak_bytes": read_peak(device) - before,
    }
    return figures, output


def reset_peak(device: torch.device) -> float:
    """Forget the peak so far; returns what is in use now (bytes)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return float("nan")
    return status_bytes("VmRSS")


def read_peak(device: torch.device) -> float:
    """Peak memory since `reset_peak` (bytes)."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else status_bytes("VmHWM")


def status_bytes(field: str) -> float:
    """A line of Linux' /proc/self/status, in bytes."""
    found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return float(found.group(1)) * 1024 if found else float("nan")


def compare(
    reference: UNetMotionModel, shape: tuple[int, ...], dtype: torch.dtype, repeats: int, device: torch.device
) -> Figures:
    """Ratios ours / theirs at one precision."""
    torch.nn.Module.to(reference, dtype)
    ours = from_unet_motion_model(reference)
    batch, _, num_frames = shape[:3]
    generator = torch.Generator().manual_seed(1)
    sample = torch.randn(shape, generator=generator).to(device, dtype)
    text = torch.randn(batch, 77, 768, generator=generator).to(device, dtype)
    repeated = text.repeat_interleave(num_frames, dim=0)
    timestep = torch.tensor(500, device=device)
    calls: dict[str, Callable[[], Tensor]] = {
        "theirs": lambda: reference(sample, timestep, repeated).sample,
        "ours": lambda: ours(sample, timestep, text).sample,
    }
    runs: dict[str, list[Figures]] = {"theirs": [], "ours": []}
    outputs: dict[str, Tensor] = {}
    with torch.no_grad():
        for repeat in range(repeats + 1):
            for name, call in calls.items():
                figures, outputs[name] = measure(call, device)
                if repeat > 0:  # the first round warms up
                    runs[name].append(figures)
    medians = {n: {k: statistics.median(run[k] for run in all_) for k in all_[0]} for n, all_ in runs.items()}
    expected = outputs["theirs"].float()
    return {
        "cpu_time_ratio": medians["ours"]["cpu_s"] / medians["theirs"]["cpu_s"],
        "wall_ratio": medians["ours"]["wall_s"] / medians["theirs"]["wall_s"],
        "peak_memory_ratio": medians["ours"]["peak_bytes"] / medians["theirs"]["peak_bytes"],
        "max_relative_error": float((outputs["ours"].float() - expected).abs().max() / expected.abs().max()),
        "theirs_wall_s": medians["theirs"]["wall_s"],
        "ours_wall_s": medians["ours"]["wall_s"],
        "theirs_cpu_s": medians["theirs"]["cpu_s"],
        "ours_cpu_s": medians["ours"]["cpu_s"],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Our U-Net beside diffusers'.")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--latents", default="8x32x32", help="frames x height x width")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, help="CPU threads; torch's default if not given")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], choices=list(DTYPES))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    extent = tuple(int(n) for n in options.latents.split("x"))
    reference = random_motion_unet(device)
    results = {
        name: compare(reference, (options.batch, 4, *extent), DTYPES[name], options.repeats, device)
        for name in options.dtypes
    }
    worst = {
        key: max(figures[key] for figures in results.values())
        for key in ("cpu_time_ratio", "wall_ratio", "peak_memory_ratio", "max_relative_error")
    }
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu"
    report = {**worst, "device": name, "threads": torch.get_num_threads(), "latents": options.latents, **results}
    if options.json:
        sys.stdout.write(json.dumps(report) + "\n")
        return
    for key, value in report.items():
        sys.stdout.write(f"{key}: {value}\n")


if __name__ == "__main__":
    main()
