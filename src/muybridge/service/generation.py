"""From a request to a file."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from muybridge.checkpoints.quiet_loading import quiet_loading
from muybridge.errors import ConfigError
from muybridge.pipelines import EasyAnimatePipeline, load_pipeline
from muybridge.sampling import scheduler_names
from muybridge.service.arguments import animatediff_arguments, easyanimate_arguments, open_inputs
from muybridge.service.long_generation import check_redo, continue_to_file, is_long
from muybridge.service.recording import input_digests, recorded_settings
from muybridge.service.requests import GenerateRequest
from muybridge.video import Video, check_writable


@dataclass(frozen=True)
class GenerationResult:
    """What was made.

    Attributes:
        path: the file or folder written.
        settings: the full request, as it is in the file.
        seconds: from the call to the written file, loading included.
        peak_memory_bytes: of the process, or of the GPU where one was used.
    """

    path: Path
    settings: dict[str, Any]
    seconds: float
    peak_memory_bytes: int


def pick_device(name: str | None) -> torch.device:
    """The device asked for, or the best there is.

    Raises:
        ConfigError: no such device here; lists those there are.
    """
    available = ["cpu"]
    if torch.cuda.is_available():
        available = ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count())), *available]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if name is None:
        return torch.device(available[0])
    if name not in available:
        raise ConfigError(f"There is no device {name!r} here. Available: {', '.join(available)}.")
    return torch.device(name)


def generate_file(
    request: GenerateRequest,
    output: Path,
    device: str | None = None,
    embed_request: bool = True,
    show_progress: bool = True,
    redo: Collection[int] = (),
    redo_following: bool = False,
) -> GenerationResult:
    """Generate one video and write it; what can be checked is checked before any weight is read.

    Progress is shown on a terminal only. `redo` names segments of a long video to make anew, and `redo_following` adds
    those behind them.

    Raises:
        MuybridgeError: anything the user can mend; no file is left behind then.
    """
    started = time.perf_counter()
    check_writable(output)
    if request.scheduler is not None and request.scheduler not in scheduler_names():
        raise ConfigError(f"Unknown scheduler {request.scheduler!r}. Known: {', '.join(scheduler_names())}.")
    target = pick_device(device)
    inputs = open_inputs(request)
    digests = input_digests(request)  # now: the files may be others by the time the video is made
    with quiet_loading():
        pipeline = load_pipeline(
            request.model,
            motion_adapter=request.motion_adapter,
            parts_from=request.parts_from,
            motion_variant=request.motion_variant,
            vae=request.vae,
            prediction=request.prediction,
        )
        for path, weight in (request.lora or {}).items():
            pipeline.load_lora_weights(path, weight=weight)
    check_redo(request, pipeline, redo, redo_following)
    pipeline.to(target)
    if isinstance(pipeline, EasyAnimatePipeline):
        arguments = easyanimate_arguments(request, pipeline, inputs)
    else:
        arguments = animatediff_arguments(request, pipeline, inputs)
    pipeline.set_progress_bar_config(disable=not (show_progress and sys.stderr.isatty()), leave=False)
    if isinstance(pipeline, EasyAnimatePipeline) and is_long(request, pipeline):
        path, settings = continue_to_file(
            pipeline, request, arguments, output, embed_request, redo, redo_following, digests=digests
        )
    else:
        video: Video = pipeline(**arguments)
        settings = recorded_settings(request, video.request or {}, digests)
        path = replace(video, request=settings).save(output, embed_request=embed_request)
    return GenerationResult(path, settings, time.perf_counter() - started, _peak_memory(target))


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
