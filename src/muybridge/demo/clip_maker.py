"""A pipeline as the evaluation on the toy world uses it: captions in, clips of the world's own size out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from muybridge.demo import render
from muybridge.demo.batches import to_pixels
from muybridge.pipelines import VideoPipeline
from muybridge.request.request import Sampling
from muybridge.vae.frames import to_uint8

Frames = NDArray[np.uint8]
_SAMPLING = ("num_inference_steps", "guidance_scale", "scheduler")


class ClipMaker:
    """Makes clips of 64x64 pixels, with the model's steps, guidance and scheduler where nothing else is wanted."""

    def __init__(self, pipeline: VideoPipeline, sampling: Sampling | None = None) -> None:
        """Use `pipeline`, and hide its progress bar; of `sampling` steps, guidance and scheduler count."""
        self.pipeline = pipeline
        sampling = sampling or Sampling()
        self.sampling = Sampling(
            num_inference_steps=sampling.num_inference_steps,
            guidance_scale=sampling.guidance_scale,
            scheduler=sampling.scheduler,
        )
        pipeline.set_progress_bar_config(disable=True)

    def from_prompts(self, prompts: list[str], seeds: list[int]) -> Frames:
        """Whole clips of consecutive seeds, `uint8 [n, 16, 64, 64, 3]`."""
        # The pipeline counts on from the first seed, too.
        return self._make(prompts, seed=seeds[0], num_frames=render.CLIP_FRAMES)

    def from_keyframes(
        self, prompt: str, seed: int, keyframes: Mapping[int, Frames] | None, num_frames: int = render.CLIP_FRAMES
    ) -> Frames:
        """One clip, `uint8 [num_frames, 64, 64, 3]`, with pictures `uint8 [h, w, 3]` pinned to frames of it."""
        given = {} if keyframes is None else {"keyframes": dict(keyframes)}
        return self._make([prompt], seed=seed, num_frames=num_frames, **given)[0]

    def require_keyframes(self, frames: tuple[int, ...]) -> None:
        """Find out whether the model takes pictures at `frames`, at the price of one step.

        Raises:
            ConfigError: it does not.
        """
        self.pipeline.can.require({"keyframes"}, "keyframes")
        black = np.zeros((render.FRAME_SIZE, render.FRAME_SIZE, 3), np.uint8)
        # What a model takes depends on its weights, so the one that knows is asked.
        self._call(
            ["still"],
            seed=0,
            num_frames=render.CLIP_FRAMES,
            keyframes=dict.fromkeys(frames, black),
            num_inference_steps=1,
            output_type="latent",
        )

    def reconstruct(self, clip: Frames) -> Frames:
        """A clip `uint8 [f, h, w, 3]` through the VAE and back: nothing that the model makes is closer to it."""
        vae: Any = self.pipeline.vae
        pixels = to_pixels(clip).to(vae.device, vae.dtype)
        with torch.no_grad():
            codec = self.pipeline.codec
            count = codec.frames_at_once or len(pixels)
            video = pixels.transpose(0, 1)[None]
            latents = codec.encode(lambda: iter(video.split(count, dim=2)), len(pixels))
            return to_uint8(torch.cat(list(codec.decode(latents[0]))))

    def _make(self, prompts: list[str], **arguments: Any) -> Frames:
        frames = self._call(prompts, output_type="np", **arguments)
        return np.rint(frames * 255).astype(np.uint8)

    def _call(self, prompts: list[str], **arguments: Any) -> Any:
        size = render.FRAME_SIZE
        for name in _SAMPLING:
            arguments.setdefault(name, getattr(self.sampling, name))
        return self.pipeline(prompts, height=size, width=size, **arguments)
