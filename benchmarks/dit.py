"""One block of EasyAnimate V3 beside a textbook's: the same weights, one process, taking turns.

    python benchmarks/dit.py [--json] [--write] [--device cuda] [--tokens 36x24x42]

An even block has two attentions along the frames, an odd one a second one over the whole video. Ratios are ours divided
by the textbook's, below 1 is better: of time, medians over the turns (CPU seconds on a CPU, where other work may run
beside it), and of the most memory that tensors of a pass take. The error is the largest difference of the outputs over
the largest output. Memory at 384x672x144 is counted on the meta device.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from measuring import DTYPES, activation_peak, machine, randomise_, take_turns, write_results
from muybridge.backbones.dit import Transformer3DModel
from muybridge.backbones.dit.block import Conditions, TransformerBlock
from muybridge.backbones.dit.config import TransformerConfig
from muybridge.motion import ModuleSpec, MotionContext, build_motion_module, hybrid_preset
from textbook_dit import TextbookBlock

TEXT_TOKENS = 120
FULL_SIZE = (36, 24, 42)  # tokens of 384x672x144
DEFAULT_TOKENS = {"cpu": "4x24x24", "cuda": "36x24x42"}
BLOCKS = {"even": "easyanimate_v3_even", "odd": "easyanimate_v3_odd"}


@dataclass(frozen=True)
class Inputs:
    """What both blocks get: `features [b, f, h, w, c]`, the rest as `Conditions` has it."""

    features: Tensor
    modulation: Tensor
    text: Tensor
    text_bias: Tensor

    @classmethod
    def random(cls, batch: int, extent: tuple[int, ...], width: int, like: Tensor) -> Inputs:
        """Of the dtype and on the device of `like`; of the text, a quarter is padding."""
        generator = None if like.is_meta else torch.Generator(like.device).manual_seed(1)

        def noise(*shape: int) -> Tensor:
            return like.new_empty(shape).normal_(generator=generator)

        bias = like.new_zeros(batch, TEXT_TOKENS)
        bias[:, 3 * TEXT_TOKENS // 4 :] = -10_000.0
        return cls(noise(batch, *extent, width), noise(batch, 6, width), noise(batch, TEXT_TOKENS, width), bias)


def published_config() -> TransformerConfig:
    """EasyAnimate V3's: 16 heads of 72 channels."""
    with torch.device("meta"):
        return Transformer3DModel(num_layers=1).transformer_config


def block_pair(
    kind: str, config: TransformerConfig, device: torch.device | str, dtype: torch.dtype = torch.float32
) -> tuple[TransformerBlock, TextbookBlock]:
    """An even or odd block of ours and the textbook's, with the same random weights."""
    preset = hybrid_preset(BLOCKS[kind]).with_changes(num_heads=config.num_attention_heads)
    with torch.device(device):
        ours = TransformerBlock(config)
        ours.attn_temporal = build_motion_module(ModuleSpec("hybrid", config.width, preset.to_dict()))
        reaches = hybrid_preset(BLOCKS[kind]).reaches
        textbook = TextbookBlock(config.width, config.num_attention_heads, reaches, config.norm_eps)
    randomise_(ours)
    textbook.load_state_dict(ours.state_dict(), strict=True)
    return ours.to(dtype).eval(), textbook.to(dtype).eval()


def call_ours(block: TransformerBlock, inputs: Inputs, skip: Tensor | None = None) -> Tensor:
    """One pass of our block, `[b, f, h, w, c]`; without gradients `skip` is used up."""
    positions = torch.arange(inputs.features.shape[1], device=inputs.features.device, dtype=torch.float32)
    conditions = Conditions(inputs.modulation, inputs.text, inputs.text_bias, MotionContext(positions))
    return block(inputs.features, conditions, skip)


def call_textbook(block: TextbookBlock, inputs: Inputs, skip: Tensor | None = None) -> Tensor:
    """One pass of the textbook's block, `[b, f, h, w, c]`."""
    _, frames, height, width, _ = shape = inputs.features.shape
    tokens = inputs.features.flatten(1, 3)
    rest = None if skip is None else skip.flatten(1, 3)
    extent = (frames, height, width)
    return block(tokens, extent, inputs.modulation, inputs.text, inputs.text_bias, rest).view(shape)


def relative_error(result: Tensor, expected: Tensor) -> float:
    """Largest difference over largest value."""
    wanted = expected.float()
    return float((result.float() - wanted).abs().max() / wanted.abs().max())


def compare(
    kind: str, batch: int, extent: tuple[int, ...], dtype: torch.dtype, repeats: int, device: torch.device
) -> dict[str, float]:
    """Ratios ours / textbook of one kind of block at one precision."""
    config = published_config()
    ours, textbook = block_pair(kind, config, device, dtype)
    inputs = Inputs.random(batch, extent, config.width, torch.empty(0, device=device, dtype=dtype))
    calls: dict[str, Callable[[], Tensor]] = {
        "textbook": lambda: call_textbook(textbook, inputs),
        "ours": lambda: call_ours(ours, inputs),
    }
    times, results = take_turns(calls, repeats, device)
    error = relative_error(results["ours"], results["textbook"])
    results.clear()
    peaks = {name: activation_peak(call, device) for name, call in calls.items()}
    seconds = {
        name: statistics.median(each.wall if device.type == "cuda" else each.cpu for each in taken)
        for name, taken in times.items()
    }
    return {
        "time_ratio": seconds["ours"] / seconds["textbook"],
        "peak_memory_ratio": peaks["ours"] / peaks["textbook"],
        "max_relative_error": error,
        "textbook_s": seconds["textbook"],
        "ours_s": seconds["ours"],
        "textbook_peak_bytes": peaks["textbook"],
        "ours_peak_bytes": peaks["ours"],
    }


def full_size_peaks(kind: str) -> dict[str, float]:
    """Memory of one branch of 384x672x144 in bfloat16, counted on the meta device."""
    config = published_config()
    ours, textbook = block_pair(kind, config, "meta", torch.bfloat16)
    inputs = Inputs.random(1, FULL_SIZE, config.width, torch.empty(0, device="meta", dtype=torch.bfloat16))
    meta = torch.device("meta")
    theirs = activation_peak(lambda: call_textbook(textbook, inputs), meta)
    own = activation_peak(lambda: call_ours(ours, inputs), meta)
    return {"peak_memory_ratio": own / theirs, "textbook_peak_bytes": theirs, "ours_peak_bytes": own}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """The whole report; the worst figures come first."""
    device = torch.device(arguments.device)
    tokens = arguments.tokens or DEFAULT_TOKENS[device.type]
    extent = tuple(int(count) for count in tokens.split("x"))
    results = {
        dtype: {
            kind: compare(kind, arguments.batch, extent, DTYPES[dtype], arguments.repeats, device) for kind in BLOCKS
        }
        for dtype in arguments.dtypes
    }
    full_size = {kind: full_size_peaks(kind) for kind in BLOCKS}
    every = [figures for kinds in results.values() for figures in kinds.values()]
    worst = {key: max(figures[key] for figures in every) for key in ("time_ratio", "peak_memory_ratio")}
    return {
        "benchmark": "dit",
        **worst,
        "full_size_peak_memory_ratio": max(figures["peak_memory_ratio"] for figures in full_size.values()),
        "device": arguments.device,
        "clock": "wall" if device.type == "cuda" else "cpu seconds",
        "tokens": tokens,
        "batch": arguments.batch,
        "repeats": arguments.repeats,
        "machine": machine(device),
        "note": arguments.note,
        **results,
        "384x672x144 bfloat16 meta": full_size,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="One block of EasyAnimate V3 beside a textbook's.")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/dit-DEVICE.json too")
    parser.add_argument("--note", default="", help="what else there is to say about the machine; kept in the results")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--tokens", help="frames x rows x columns; on a CPU 4x24x24, on a GPU those of 384x672x144")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], choices=list(DTYPES))
    arguments = parser.parse_args(argv)
    report = measure(arguments)
    if arguments.write:
        sys.stderr.write(f"{write_results(f'dit-{arguments.device}', report)}\n")
    if arguments.json:
        sys.stdout.write(json.dumps(report) + "\n")
        return
    for key, value in report.items():
        sys.stdout.write(f"{key}: {value}\n")


if __name__ == "__main__":
    main()
