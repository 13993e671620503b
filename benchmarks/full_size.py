"""Both families at the sizes they were published at, with random weights: seconds, share of the floor, memory.

    python benchmarks/full_size.py [--device meta | cuda] [--case easyanimate-v3:384x672x144] [--json] [--write]
    python benchmarks/full_size.py --tiny
    python benchmarks/full_size.py --build DIR [--family easyanimate]
    python benchmarks/full_size.py --load DIR [--write]

Making a video has three stages: text (a prompt and a negative one), denoise (one step, with guidance) and decode (the
whole video, as a stream). Each is measured with nothing but its own network on the device, as offloading has it.

`--device meta` needs no card and allocates no weights: it counts operations, weights and the memory of activations.
`--device cuda` measures; the floor is the time that the counted operations would take at the rate of a large matrix
product on the same card. `--tiny` runs all of it with tiny networks, on a CPU too.

`--build` writes both families as they are published, with random weights, about 30 GB; `--load` then loads each of them
in a process of its own in bfloat16, says what that took of the host's memory, and makes one step of a small video.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

import loading
import networks
import published_layouts
from measuring import (
    DTYPES,
    activation_peak,
    count,
    default_dtype,
    machine,
    matmul_rate,
    randomise_,
    timed,
    write_results,
)
from muybridge.sampling import Guidance
from muybridge.vae import decode_images
from muybridge.vae.magvit import Tiling, decode_frames
from networks import Settings

Call = Callable[[], Any]
GUIDANCE = {"guidance_in_turn": False, "guidance_at_once": True}
TILINGS = {"untiled": Tiling.OFF, "exact_tiles": Tiling.EXACT, "reference_tiles": Tiling.REFERENCE}
IMAGES_AT_ONCE = 8
PUBLISHED = (
    "easyanimate-v3:384x672x144",
    "easyanimate-v3:576x1008x144",
    "easyanimate-v3:960x960x144",
    "animatediff-v2:512x512x16",
)
TINY = ("easyanimate-v3:48x64x24", "animatediff-v2:64x64x4")


@dataclass(frozen=True)
class Size:
    """Of a video, in pixels."""

    height: int
    width: int
    num_frames: int


@dataclass(frozen=True)
class Stage:
    """A part of making a video, and the one network that it needs.

    Attributes:
        build: makes the network on the default device.
        prepare: network and way -> a call, with inputs on the default device.
        ways: to do the same; the first has the fewest operations.
        short: the same as `prepare` for a shorter video of the same peak; None where every video has its own.
    """

    build: Callable[[], nn.Module]
    prepare: Callable[[Any, str], Call]
    ways: tuple[str, ...]
    short: Callable[[Any, str], Call] | None = None


def easyanimate_stages(size: Size, settings: Settings) -> dict[str, Stage]:
    """EasyAnimate V3: text to video with the transformer for pictures, that is with mask and masked video."""
    vae = networks.on_meta(networks.video_vae, settings)
    frames = vae.num_latent_frames(size.num_frames)
    extent = (frames, size.height // vae.spatial_factor, size.width // vae.spatial_factor)
    chunk = vae.shape.latents_per_chunk

    def denoise(transformer: Any, way: str) -> Call:
        config = transformer.transformer_config
        shared = {"inpaint_latents": torch.rand(1, config.in_channels - config.latent_channels, *extent)}

        def branch() -> dict[str, Tensor]:
            states = torch.rand(1, settings.text_tokens, config.caption_channels)
            return {"encoder_hidden_states": states, "encoder_attention_mask": torch.ones(states.shape[:2]), **shared}

        return _step(transformer, config.latent_channels, extent, (branch(), branch()), way)

    def decode(network: Any, way: str, num_latents: int = frames) -> Call:
        tile_size = settings.exact_tile_size if TILINGS[way] is Tiling.EXACT else None
        latents = torch.rand(network.shape.latent_channels, num_latents, *extent[1:])

        def run() -> None:
            network.enable_tiling(TILINGS[way], tile_size)
            _use_up(decode_frames(network, latents))

        return run

    return {
        "text": _text_stage(networks.t5, settings),
        "denoise": Stage(lambda: networks.easyanimate_transformer(settings), denoise, tuple(GUIDANCE)),
        "decode": Stage(
            lambda: networks.video_vae(settings),
            decode,
            tuple(TILINGS),
            # Three chunks: the middle one sees neighbours on both sides, and no chunk sees more.
            lambda network, way: decode(network, way, min(frames, 3 * chunk)),
        ),
    }


def animatediff_stages(size: Size, settings: Settings) -> dict[str, Stage]:
    """Stable Diffusion 1.5 with AnimateDiff's motion modules, version 2."""
    vae = networks.on_meta(networks.image_vae, settings)
    factor = 2 ** (len(vae.config["block_out_channels"]) - 1)
    extent = (size.num_frames, size.height // factor, size.width // factor)

    def denoise(unet: Any, way: str) -> Call:
        def branch() -> dict[str, Tensor]:
            return {"encoder_hidden_states": torch.rand(1, settings.text_tokens, unet.config["cross_attention_dim"])}

        return _step(unet, unet.config["in_channels"], extent, (branch(), branch()), way)

    def decode(network: Any, _way: str) -> Call:
        latents = torch.rand(size.num_frames, network.config["latent_channels"], *extent[1:])
        return lambda: _use_up(decode_images(network, piece) for piece in latents.split(IMAGES_AT_ONCE))

    return {
        "text": _text_stage(networks.clip, settings),
        "denoise": Stage(lambda: networks.animatediff_unet(settings), denoise, tuple(GUIDANCE)),
        "decode": Stage(lambda: networks.image_vae(settings), decode, (f"{IMAGES_AT_ONCE}_frames_at_a_time",)),
    }


FAMILIES: dict[str, tuple[Callable[[Size, Settings], dict[str, Stage]], Settings, Settings]] = {
    "easyanimate-v3": (easyanimate_stages, networks.EASYANIMATE_V3, networks.EASYANIMATE_TINY),
    "animatediff-v2": (animatediff_stages, networks.ANIMATEDIFF_V2, networks.ANIMATEDIFF_TINY),
}


def _text_stage(build: Callable[[Settings], nn.Module], settings: Settings) -> Stage:
    def prepare(encoder: Any, _way: str) -> Call:
        tokens = torch.ones(2, settings.text_tokens, dtype=torch.long)
        return lambda: encoder(input_ids=tokens).last_hidden_state

    return Stage(lambda: build(settings), prepare, ("two_prompts",))


def _step(
    network: Any, channels: int, extent: tuple[int, ...], branches: tuple[dict[str, Tensor], ...], way: str
) -> Call:
    """A step of the loop without the solver, whose share is nothing."""
    latents, timestep = torch.rand(1, channels, *extent, dtype=torch.float32), torch.tensor(500)

    def predict(noisy: Tensor, step: Tensor, **conditions: Tensor) -> Tensor:
        return network(noisy.to(network.dtype), step, **conditions).sample[:, :channels].float()

    guidance = Guidance(predict, branches[0], branches[1], scale=7.0, batched=GUIDANCE[way])
    return lambda: guidance(latents, timestep)


def _use_up(frames: Iterable[Tensor]) -> None:
    for _ in frames:
        pass


def measure_case(name: str, tiny: bool, device: torch.device, dtype: torch.dtype, repeats: int) -> dict[str, Any]:
    """All stages of one case, `family:HEIGHTxWIDTHxFRAMES`.

    Raises:
        ShapeError: a size that the family cannot make.
    """
    family, _, extent = name.partition(":")
    make_stages, published, small = FAMILIES[family]
    size = Size(*(int(count) for count in extent.split("x")))
    rate = None if device.type == "meta" else matmul_rate(device, dtype)
    stages = make_stages(size, small if tiny else published)
    return {
        "matmul_flops_per_s": rate,
        **{part: measure_stage(stage, device, dtype, rate, repeats) for part, stage in stages.items()},
    }


def measure_stage(
    stage: Stage, device: torch.device, dtype: torch.dtype, rate: float | None, repeats: int
) -> dict[str, Any]:
    """Weights and operations of a stage, and memory and (on a real device) time of each way to do it."""
    with default_dtype(dtype), torch.device("meta"):
        network = stage.build()
        first = stage.prepare(network, stage.ways[0])
    counts = count(first)
    weights = list(network.parameters())
    record: dict[str, Any] = {
        "parameters": sum(weight.numel() for weight in weights),
        "weight_bytes": sum(weight.nbytes for weight in weights),
        "flops": counts.flops,
    }
    if device.type != "meta":
        with default_dtype(dtype), device:
            network = stage.build()
        randomise_(network)
    for way in stage.ways:
        if device.type == "meta" and way == stage.ways[0]:
            figures: dict[str, Any] = {"activation_peak_bytes": counts.peak_bytes}
        else:
            figures = _measure_way(stage, network, way, device, repeats)
        if "activation_peak_bytes" in figures:
            figures["peak_bytes"] = record["weight_bytes"] + figures["activation_peak_bytes"]
        if rate is not None and "seconds" in figures:
            figures["share_of_floor"] = counts.flops / rate / figures["seconds"]
        record[way] = figures
    return record


def _measure_way(stage: Stage, network: nn.Module, way: str, device: torch.device, repeats: int) -> dict[str, Any]:
    with default_dtype(cast("torch.dtype", network.dtype)), device:
        run = stage.prepare(network, way)
        # Counting tensors is slow; the allocator of a card is not.
        shorter = run if device.type == "cuda" or stage.short is None else stage.short(network, way)
    if device.type == "meta":
        return {"activation_peak_bytes": activation_peak(shorter, device)}
    try:
        peak = activation_peak(shorter, device)  # warms up too
        seconds = [timed(run, device)[0].wall for _ in range(repeats)]
    except torch.OutOfMemoryError:
        return {"out_of_memory": True}
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return {"activation_peak_bytes": peak, "seconds": statistics.median(seconds)}


def load_all(folder: Path, dtype: str) -> dict[str, Any]:
    """What loading takes, for every layout that is in the folder."""
    there = [name for name, case in loading.CASES.items() if (folder / case.model).exists()]
    return {name: loading.in_fresh_process(name, folder, dtype) for name in there}


def print_loading(cases: dict[str, Any]) -> None:
    """A line for each layout."""
    for name, figures in cases.items():
        whole, largest = sum(figures["part_bytes"].values()), max(figures["part_bytes"].values())
        print(
            f"{name}: {whole / 1e9:.3g} GB of weights, the largest part {largest / 1e9:.3g} GB; loaded in "
            f"{figures['load_seconds']:.1f} s with {(figures['peak_bytes'] - figures['before_bytes']) / 1e9:.3g} GB at "
            f"most, {figures['ratio']:.2f} of the largest part beside the others; a step of {figures['step']} took "
            f"{figures['step_seconds']:.1f} s"
        )


def print_table(report: dict[str, Any]) -> None:
    """A line for each way of each stage."""
    for name, case in report["cases"].items():
        print(name)
        for stage in ("text", "denoise", "decode"):
            record = case[stage]
            print(f"  {stage}: {record['weight_bytes'] / 1e9:.3g} GB of weights, {record['flops'] / 1e12:.4g} TFLOP")
            for way, figures in record.items():
                if isinstance(figures, dict):
                    print(f"    {way}: {_summary(figures)}")


def _summary(figures: dict[str, Any]) -> str:
    if "out_of_memory" in figures:
        return "does not fit on this device"
    text = f"activations {figures['activation_peak_bytes'] / 1e9:.3g} GB, peak {figures['peak_bytes'] / 1e9:.3g} GB"
    if "seconds" in figures:
        text += f", {figures['seconds']:.3f} s, {figures['share_of_floor']:.0%} of the floor's rate"
    return text


def _report_loading(arguments: argparse.Namespace) -> None:
    cases = load_all(arguments.load, arguments.dtype or "bfloat16")
    about = {"machine": machine(torch.device("cpu")), "note": arguments.note, "tiny": arguments.tiny}
    report = {"benchmark": "full_size --load", **about, "cases": cases}
    if arguments.write:
        sys.stderr.write(f"{write_results('full_size-load', report)}\n")
    if arguments.json:
        print(json.dumps(report))
    else:
        print_loading(cases)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Both families at their published sizes, with random weights.")
    parser.add_argument("--device", choices=["meta", "cpu", "cuda"], help="meta by default; with --tiny the CPU")
    parser.add_argument("--tiny", action="store_true", help="tiny networks and videos")
    parser.add_argument("--case", action="append", help="FAMILY:HEIGHTxWIDTHxFRAMES; may be repeated")
    parser.add_argument("--dtype", choices=list(DTYPES), help="bfloat16 by default; float32 on a CPU")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/full_size-DEVICE.json too")
    parser.add_argument("--build", metavar="DIR", type=Path, help="write both families as they are published")
    parser.add_argument("--family", choices=list(published_layouts.FULL_SIZE_BYTES), help="the only one to build")
    parser.add_argument("--load", metavar="DIR", type=Path, help="measure loading what --build wrote")
    parser.add_argument("--note", default="", help="what else there is to say about the machine; kept in the results")
    arguments = parser.parse_args(argv)
    if arguments.build is not None:
        for family in [arguments.family] if arguments.family else published_layouts.FULL_SIZE_BYTES:
            published_layouts.build(arguments.build, family, arguments.tiny)
        return
    if arguments.load is not None:
        _report_loading(arguments)
        return
    cases = arguments.case or (TINY if arguments.tiny else PUBLISHED)
    for name in cases:
        if name.partition(":")[0] not in FAMILIES or len(name.partition(":")[2].split("x")) != 3:
            parser.error(f"--case must be FAMILY:HEIGHTxWIDTHxFRAMES with one of {', '.join(FAMILIES)}; given {name}")
    device = torch.device(arguments.device or ("cpu" if arguments.tiny else "meta"))
    dtype = arguments.dtype or ("float32" if device.type == "cpu" else "bfloat16")
    report = {
        "benchmark": "full_size",
        "device": device.type,
        "tiny": arguments.tiny,
        "dtype": dtype,
        "machine": machine(device),
        "note": arguments.note,
        "cases": {name: measure_case(name, arguments.tiny, device, DTYPES[dtype], arguments.repeats) for name in cases},
    }
    if arguments.write:
        kind = f"{device.type}-tiny" if arguments.tiny else device.type
        sys.stderr.write(f"{write_results(f'full_size-{kind}', report)}\n")
    if arguments.json:
        print(json.dumps(report))
    else:
        print_table(report)


if __name__ == "__main__":
    main()
