"""The maps that show what the demos make while they make it, fitted to clips of the toy world."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from muybridge.demo import render, world
from muybridge.demo.batches import to_pixels
from muybridge.pipelines import VideoPipeline
from muybridge.vae.codec import frames_per_latent
from muybridge.vae.preview_map import PreviewMap, PreviewSums

FIT_SEED, HELD_OUT_SEED = 11, 12


def fit_preview(pipeline: VideoPipeline, num_clips: int = 40, seed: int = FIT_SEED) -> PreviewMap:
    """The map of a demo's VAE, fitted to clips of training scenes and their latents."""
    sums = PreviewSums()
    for latents, frames in encoded_clips(pipeline, num_clips, seed):
        sums.add(latents, frames, frames_per_latent(pipeline.codec))
    return sums.solve()


@torch.no_grad()
def encoded_clips(pipeline: VideoPipeline, num_clips: int, seed: int) -> Iterator[tuple[Tensor, np.ndarray]]:
    """Clips of the toy world, `uint8 [f, h, w, 3]`, and before each its latents `[c, n, h, w]`."""
    rng = np.random.default_rng(seed)
    codec = pipeline.codec
    for scene in world.sample_scenes(num_clips, rng):
        frames = render.render([scene], np.arange(render.CLIP_FRAMES)[None], render.place([scene], rng))[0]
        video = to_pixels(frames).transpose(0, 1)[None].to(pipeline.encoding_device, pipeline.vae.dtype)
        pieces = video.split(codec.frames_at_once or len(frames), dim=2)
        yield codec.encode(lambda pieces=pieces: iter(pieces), len(frames))[0], frames
