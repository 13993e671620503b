"""Evaluating a model of the toy world, with the renderer and the VAE as yardsticks beside it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from muybridge.demo import evaluation
from muybridge.demo.batches import to_pixels
from muybridge.demo.measure import measure_clip
from muybridge.pipelines import AnimateDiffPipeline, EasyAnimatePipeline, load_pipeline
from muybridge.pipelines.decoding import to_uint8
from muybridge.service.quiet_loading import quiet_loading
from muybridge.vae import decode_images, encode_images
from muybridge.video.atomic import check_folder_above, check_replaceable_file, new_file

Progress = Callable[[int, int], None]
"""Called with (clips done, clips in all)."""


def evaluate_demo_model(
    model: str, count: int, seed: int, sheet: Path | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Accuracy on held-out prompts, on renders (what the measuring itself gets wrong) and on VAE reconstructions.

    Returns:
        `generated`, `renders` and `reconstructions` with a share per attribute, `by_attribute` in detail, and how it
        was run.

    Raises:
        OutputError: the contact sheet cannot be written at `sheet`.
        CheckpointError: no such model.
    """
    if sheet is not None:
        check_folder_above(sheet)
        check_replaceable_file(sheet)
    started = time.perf_counter()
    with quiet_loading():
        pipeline = load_pipeline(model)
    pipeline.set_progress_bar_config(disable=True)
    scenes = evaluation.held_out_scenes(count, seed)

    def generate(prompts: list[str], seeds: list[int]) -> np.ndarray:
        frames = pipeline(prompts, seed=seeds[0], output_type="np")  # the pipeline counts on from there, too
        return np.rint(frames * 255).astype(np.uint8)

    measured, clips = evaluation.evaluate_clips(scenes, generate, seed, progress)
    truth = evaluation.true_clips(scenes, seed)
    report = {
        "model": model,
        "count": count,
        "seed": seed,
        "steps": pipeline.config["default_steps"],
        "guidance": pipeline.config["default_guidance"],
        "generated": evaluation.score(scenes, measured),
        "by_attribute": evaluation.breakdown(scenes, measured),
        "renders": evaluation.score(scenes, [measure_clip(clip) for clip in truth]),
        "reconstructions": evaluation.score(scenes, [measure_clip(_reconstruct(pipeline, clip)) for clip in truth]),
        "seconds": round(time.perf_counter() - started, 1),
    }
    if sheet is not None:
        _write_sheet(clips, sheet)
    return report


def _reconstruct(pipeline: AnimateDiffPipeline | EasyAnimatePipeline, clip: np.ndarray) -> np.ndarray:
    pixels = to_pixels(clip)
    with torch.no_grad():
        if isinstance(pipeline, EasyAnimatePipeline):
            pixels = pipeline.vae(pixels.transpose(0, 1)[None]).sample[0].transpose(0, 1)
        else:
            pixels = decode_images(pipeline.vae, encode_images(pipeline.vae, pixels))
    return to_uint8(pixels.div(2).add(0.5).clamp(0, 1))


def _write_sheet(clips: np.ndarray, path: Path) -> None:
    from PIL import Image

    with new_file(path) as temporary:
        Image.fromarray(evaluation.contact_sheet(clips)).save(temporary, format="PNG")
