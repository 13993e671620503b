"""What loading a pipeline takes of the host's memory: each in a fresh process, with the largest part as the measure.

    python benchmarks/loading.py CASE FOLDER

FOLDER is one that `full_size.py --build` wrote; that script's `--load` runs all cases and is what one calls.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from measuring import DTYPES
from muybridge import load_pipeline
from muybridge.runtime.options import networks
from published_layouts import EASYANIMATE, MOTION_FILE, SINGLE_FILE, STABLE_DIFFUSION


@dataclass(frozen=True)
class Case:
    """One layout.

    Attributes:
        model: name of the file or folder.
        size: of the video of one step.
        beside: other files, by the argument of `load_pipeline` that names them.
    """

    model: str
    size: Mapping[str, int]
    beside: Mapping[str, str]


_WITH_MOTION = {"motion_adapter": MOTION_FILE}
_SMALL = {"num_frames": 4, "height": 64, "width": 64}
CASES = {
    "easyanimate": Case(EASYANIMATE, {"num_frames": 8, "height": 128, "width": 128}, {}),
    "animatediff-folder": Case(STABLE_DIFFUSION, _SMALL, _WITH_MOTION),
    "animatediff-file": Case(SINGLE_FILE, _SMALL, {**_WITH_MOTION, "parts_from": STABLE_DIFFUSION}),
}


def measure_loading(name: str, folder: Path, dtype: str) -> dict[str, Any]:
    """Load, and make one step, in this process, whose peak counts from now on."""
    case = CASES[name]
    beside = {argument: folder / found for argument, found in case.beside.items()}
    before, started = peak_bytes(), time.perf_counter()
    load: Any = load_pipeline
    pipeline = load(folder / case.model, torch_dtype=DTYPES[dtype], **beside)
    seconds, peak = time.perf_counter() - started, peak_bytes()
    parts, seen = {}, set()
    for network in networks(pipeline):
        found = {weight for weight in (*network.parameters(), *network.buffers()) if id(weight) not in seen}
        parts[type(network).__name__] = sum(weight.nbytes for weight in found)
        seen |= set(map(id, found))
    largest, whole = max(parts.values()), sum(parts.values())
    started = time.perf_counter()
    latents = pipeline("a red circle", **case.size, num_inference_steps=1, output_type="latent", seed=0)
    return {
        "dtype": dtype,
        "part_bytes": parts,
        "before_bytes": before,
        "peak_bytes": peak,
        "load_seconds": seconds,
        # Beside the weights that are there in the end, as a share of the largest part; 1 is none.
        "ratio": 1 + max(0, peak - before - whole) / largest,
        "step": "x".join(str(extent) for extent in case.size.values()),
        "step_seconds": time.perf_counter() - started,
        "step_peak_bytes": peak_bytes(),
        "finite": bool(torch.isfinite(latents).all()),
    }


def peak_bytes() -> int:
    """Most memory that this process had at a time, mapped files included."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def in_fresh_process(name: str, folder: Path, dtype: str) -> dict[str, Any]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, name, str(folder), "--dtype", dtype]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure one case and print it as a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=list(CASES))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", choices=list(DTYPES), default="bfloat16")
    arguments = parser.parse_args()
    print(json.dumps(measure_loading(arguments.case, arguments.folder, arguments.dtype)))


if __name__ == "__main__":
    main()
