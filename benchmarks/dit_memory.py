"""Activation peaks of EasyAnimate V3's transformer at full size, counted on the meta device; no weights, no GPU.

    python benchmarks/dit_memory.py [--size 384x672x144 --size 960x960x144] [--branches 1]

One branch of guidance in bfloat16, the long skips kept on the device. Weights are not counted; they are 3.08 GB more.
"""

from __future__ import annotations

import argparse
import json

import torch

import networks
from measuring import activation_peak, default_dtype
from muybridge.backbones.dit import Transformer3DModel

SIZES = ("384x672x144", "576x1008x144", "960x960x144")


def peak_bytes(model: Transformer3DModel, height: int, width: int, num_frames: int, branches: int) -> int:
    """Largest sum of live tensors that one forward pass makes."""
    vae = networks.on_meta(networks.video_vae, networks.EASYANIMATE_V3)
    shape = (vae.num_latent_frames(num_frames), height // vae.spatial_factor, width // vae.spatial_factor)
    with torch.device("meta"), default_dtype(torch.bfloat16):
        latents, given = torch.empty(branches, 4, *shape), torch.empty(branches, 8, *shape)
        text = torch.empty(branches, networks.EASYANIMATE_V3.text_tokens, 4096)
        timestep = torch.empty((), dtype=torch.float32)
    return activation_peak(lambda: model(latents, timestep, text, inpaint_latents=given), latents.device)


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description="Activation peaks on the meta device.")
    parser.add_argument("--size", action="append", help="HEIGHTxWIDTHxFRAMES; may be repeated")
    parser.add_argument("--branches", type=int, default=1, help="2 is batched guidance")
    arguments = parser.parse_args()
    with default_dtype(torch.bfloat16):
        model = networks.on_meta(networks.easyanimate_transformer, networks.EASYANIMATE_V3)
    peaks = {}
    for size in arguments.size or SIZES:
        height, width, num_frames = map(int, size.split("x"))
        peaks[size] = round(peak_bytes(model, height, width, num_frames, arguments.branches) / 1e9, 3)
    print(json.dumps({"what": "activation peak of one forward pass in GB", "branches": arguments.branches, **peaks}))


if __name__ == "__main__":
    main()
