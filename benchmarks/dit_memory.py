"""Activation peaks of EasyAnimate V3's transformer at full size, counted on the meta device; no weights, no GPU.

    python benchmarks/dit_memory.py [--size 384x672x144 --size 960x960x144] [--branches 1]

One branch of guidance in bfloat16, the long skips kept on the device. Weights are not counted; they are 3.08 GB more.
"""

from __future__ import annotations

import argparse
import json

import torch

from muybridge.backbones.dit import Transformer3DModel
from muybridge.debug.tensor_memory import TensorMemory
from muybridge.motion import MotionAdapter, hybrid_preset
from muybridge.motion.contract import ModuleSpec

SIZES = ("384x672x144", "576x1008x144", "960x960x144")
SPATIAL, TEMPORAL, TEXT_TOKENS = 8, 4, 120


def full_size_model() -> Transformer3DModel:
    """EasyAnimate V3 on the meta device, bfloat16."""
    with torch.device("meta"):
        model = Transformer3DModel()
        specs = {}
        for index, (name, site) in enumerate(model.motion_sites().items()):
            preset = hybrid_preset("easyanimate_v3_odd" if index % 2 else "easyanimate_v3_even")
            specs[name] = vars(ModuleSpec("hybrid", site.width, preset.to_dict()))
        model.set_motion_adapter(MotionAdapter(specs, numerics="easyanimate"))
    torch.nn.Module.to(model, torch.bfloat16)
    return model.eval()


def peak_bytes(model: Transformer3DModel, height: int, width: int, num_frames: int, branches: int) -> int:
    """Largest sum of live tensors that one forward pass makes."""
    with torch.device("meta"):
        shape = (num_frames // TEMPORAL, height // SPATIAL, width // SPATIAL)
        latents = torch.empty(branches, 4, *shape, dtype=torch.bfloat16)
        given = torch.empty(branches, 8, *shape, dtype=torch.bfloat16)
        text = torch.empty(branches, TEXT_TOKENS, 4096, dtype=torch.bfloat16)
        timestep = torch.empty((), dtype=torch.float32)
        with torch.no_grad(), TensorMemory() as memory:
            model(latents, timestep, text, inpaint_latents=given)
    return memory.peak_bytes


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description="Activation peaks on the meta device.")
    parser.add_argument("--size", action="append", help="HEIGHTxWIDTHxFRAMES; may be repeated")
    parser.add_argument("--branches", type=int, default=1, help="2 is batched guidance")
    arguments = parser.parse_args()
    model = full_size_model()
    peaks = {}
    for size in arguments.size or SIZES:
        height, width, num_frames = map(int, size.split("x"))
        peaks[size] = round(peak_bytes(model, height, width, num_frames, arguments.branches) / 1e9, 3)
    print(json.dumps({"what": "activation peak of one forward pass in GB", "branches": arguments.branches, **peaks}))


if __name__ == "__main__":
    main()
