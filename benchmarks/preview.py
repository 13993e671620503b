"""What previews show and cost: likeness to the finished frames beside the VAE's, and time beside that of a step.

    python benchmarks/preview.py [--fit] [--write]

`--fit` fits the maps of both demos to clips of the toy world anew and stores them beside their VAEs. Likeness is
measured on clips that they were not fitted to. Time is CPU time of this process, since other work may run beside it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from measuring import machine, timed, write_results
from muybridge.checkpoints import locate_model
from muybridge.demo.previews import HELD_OUT_SEED, encoded_clips, fit_preview
from muybridge.pipelines import load_pipeline
from muybridge.pipelines.progress import Progress
from muybridge.request import GenerateRequest
from muybridge.service.engine import Engine, Preview, Report
from muybridge.vae.frames import to_uint8
from muybridge.vae.preview_map import FILE_NAME, PreviewMap

MODELS = ("demo/animatediff", "demo/easyanimate")
CPU = torch.device("cpu")


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Likeness of frames, in dB."""
    return float(10 * np.log10(255**2 / np.square(one.astype(np.float64) - other).mean()))


def likeness(pipeline: Any, preview_map: PreviewMap, num_clips: int) -> dict[str, float]:
    """Mean likeness of previews, and of what the VAE makes of the same latents, to clips that no map has seen."""
    clips = list(encoded_clips(pipeline, num_clips, HELD_OUT_SEED))
    decoded = [to_uint8(torch.cat(list(pipeline.codec.decode(latents)))) for latents, _ in clips]
    return {
        "clips": num_clips,
        "preview_db": statistics.mean(psnr(preview_map.frames(each).numpy(), frames) for each, frames in clips),
        "vae_db": statistics.mean(psnr(own, frames) for own, (_, frames) in zip(decoded, clips, strict=True)),
    }


def cost(pipeline: Any, preview_map: PreviewMap, num_steps: int) -> dict[str, float]:
    """CPU seconds of a step, of a preview's frames, and of their animated WebP."""
    steps, frames, files, sizes = [], [], [], []
    since = [0.0]

    def look(progress: Progress) -> None:
        if progress.report is None:
            since[0] = time.process_time()
            return
        report = progress.report
        steps.append(time.process_time() - since[0])
        taken, made = timed(lambda: preview_map.frames(report.denoised()[0]).numpy(), CPU)
        frames.append(taken.cpu)
        taken, file = timed(Preview(made).webp, CPU)
        files.append(taken.cpu)
        sizes.append(len(file))
        since[0] = time.process_time()

    pipeline("a red circle moving left", seed=1, num_inference_steps=num_steps, on_progress=look)
    step, preview = statistics.median(steps), statistics.median(frames) + statistics.median(files)
    return {
        "step_seconds": step,
        "frames_seconds": statistics.median(frames),
        "webp_seconds": statistics.median(files),
        "webp_bytes": statistics.median(sizes),
        "share_of_a_step": preview / step,
    }


def share_of_denoising(model: str, num_steps: int) -> dict[str, float]:
    """How much of the CPU time of denoising an engine spends on the previews that it offers, all being taken."""
    spent, count = 0.0, 0
    began, ended = 0.0, 0.0

    def look(report: Report) -> None:
        nonlocal spent, count, began, ended
        now = time.process_time()
        if report.phase == "denoise":
            began = began if report.step else now
            ended = now
        if report.preview is not None and (preview := report.preview()) is not None:
            preview.webp()
            spent, count = spent + time.process_time() - now, count + 1

    request = {"prompt": "a red circle moving left", "model": model, "seed": 1, "num_inference_steps": num_steps}
    with tempfile.TemporaryDirectory() as folder:
        Engine("cpu").run(GenerateRequest.from_flat(request), Path(folder) / "video.mp4", report=look)
    return {"steps": num_steps, "previews": count, "share_of_denoising": spent / (ended - began - spent)}


def pipeline_of(model: str) -> Any:
    """A demo without its progress bar."""
    pipeline = load_pipeline(model)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def fit(pipeline: Any, model: str) -> None:
    """Fit the map of a demo and store it beside its VAE."""
    fit_preview(pipeline).save(locate_model(model) / "vae" / FILE_NAME)


def main(say: Callable[[str], None] = print) -> None:
    """Measure both demos."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fit", action="store_true", help="fit the maps anew, and store them")
    parser.add_argument("--clips", type=int, default=16, help="clips that likeness is measured on")
    parser.add_argument("--steps", type=int, default=6, help="steps that time is measured in")
    parser.add_argument("--write", action="store_true", help="write the result among the others")
    given = parser.parse_args()
    torch.set_num_threads(1)
    report: dict[str, Any] = {"machine": machine(CPU)}
    for model in MODELS:
        pipeline = pipeline_of(model)
        if given.fit:
            fit(pipeline, model)
        file = Path(locate_model(model)) / "vae" / FILE_NAME
        preview_map = PreviewMap.load(file)
        report[model] = {
            "map_bytes": file.stat().st_size,
            **likeness(pipeline, preview_map, given.clips),
            **cost(pipeline, preview_map, given.steps),
            **share_of_denoising(model, 4 * given.steps),
        }
        say(f"{model}: {report[model]}")
    if given.write:
        say(str(write_results("preview-cpu", report)))


if __name__ == "__main__":
    main()
