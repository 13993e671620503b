"""From a request to a file."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch

from muybridge.checkpoints.quiet_loading import quiet_loading
from muybridge.errors import ConfigError
from muybridge.pipelines import VideoPipeline
from muybridge.pipelines.load import load_choice
from muybridge.pipelines.placing import Wish
from muybridge.pipelines.planning import PartialShape
from muybridge.request import GenerateRequest, Inputs
from muybridge.request.sizes import fit_size
from muybridge.runtime.peak import peak_memory
from muybridge.runtime.placement import describe
from muybridge.sampling import scheduler_names
from muybridge.service.long_generation import check_redo, continue_to_file, is_long
from muybridge.types import SettingsDict
from muybridge.video import Video, check_writable


@dataclass(frozen=True)
class GenerationResult:
    """What was made.

    Attributes:
        path: the file or folder written.
        settings: the full request, as it is in the file.
        seconds: from the call to the written file, loading included.
        peak_memory_bytes: of the process, or of the GPU where one was used.
        placement: how the model was fitted into memory, in one line; None where nothing was to be fitted.
    """

    path: Path
    settings: SettingsDict
    seconds: float
    peak_memory_bytes: int
    placement: str | None = None


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
    inputs: Inputs | None = None,
    embed_request: bool = True,
    show_progress: bool = True,
    redo: Collection[int] = (),
    redo_following: bool = False,
) -> GenerationResult:
    """Generate one video and write it; what can be checked is checked before any weight is read.

    Progress is shown on a terminal only. `redo` names segments of a long video to make anew, and `redo_following` adds
    those behind them. `inputs` are the files of the request, where they have been opened already.

    Raises:
        MuybridgeError: anything the user can mend; no file is left behind then.
    """
    started = time.perf_counter()
    check_writable(output)
    sampling = request.sampling
    if sampling.scheduler is not None and sampling.scheduler not in scheduler_names():
        raise ConfigError(f"Unknown scheduler {sampling.scheduler!r}. Known: {', '.join(scheduler_names())}.")
    target = pick_device(request.model.device)
    if inputs is None:
        inputs = open_inputs(request)
    wish = _wish(request, target, inputs)
    with quiet_loading():
        pipeline = load_choice(request.model, wish)
    check_redo(request, pipeline, redo, redo_following)
    _warn_of_idle_embeddings(pipeline, request)
    pipeline.set_progress_bar_config(disable=not (show_progress and sys.stderr.isatty()), leave=False)
    if is_long(request, pipeline):
        path, settings = continue_to_file(
            pipeline, request, output, inputs, embed_request, redo=redo, is_following_redone=redo_following
        )
    else:
        _check_idle_segments(request, pipeline)
        video: Video = pipeline.make(request.model_copy(update={"segments": None}), inputs=inputs)
        path, settings = video.save(output, embed_request=embed_request), dict(video.request or {})
    said = None if pipeline.placement is None else describe(pipeline.placement)
    return GenerationResult(path, settings, time.perf_counter() - started, peak_memory(target), said)


def _check_idle_segments(request: GenerateRequest, pipeline: VideoPipeline) -> None:
    if request.segments is not None:
        at_once = request.segments.frames or pipeline.frames_at_once
        raise ConfigError(
            "Settings of segments have no effect: this video is made at once, as it has no more than "
            f"{at_once} frames. Ask for more with --frames, or leave them out."
        )


def _wish(request: GenerateRequest, device: torch.device, inputs: Inputs) -> Wish:
    """Precision and memory that were asked for; on a card, where nobody says, what it does well and what is free."""
    choice, on_cpu = request.model, device.type == "cpu"
    dtype = choice.dtype or ("float32" if on_cpu else "auto")
    memory = choice.memory or (None if on_cpu else "auto")
    if memory is None:
        return Wish(dtype, None, choice.speed, device)
    asked, windows, segments = request.shape, request.sampling.windows, request.segments
    at_once = windows.size if windows is not None else None if segments is None else segments.frames
    size = (asked.height, asked.width)
    if asked.fit is not None and (source := request.size_to_fit(inputs)) is not None:
        size = fit_size(*source, asked.fit)
    shape = PartialShape(at_once or asked.num_frames, *size, is_whole=at_once is not None)
    return Wish(
        dtype,
        memory,
        choice.speed,
        device,
        shape,
        is_default=choice.memory is None,
        controls=tuple(each for condition in request.conditions for each in condition.networks()),
        profile=request.sampling.profile,
    )


def open_inputs(request: GenerateRequest) -> Inputs:
    """Open the files of a request, before a model is loaded; embeddings are known by their digests.

    Raises:
        MuybridgeError: as `GenerateRequest.open`.
    """
    inputs = Inputs()
    request.open(inputs)
    for file in request.model.embeddings:
        if Path(file).is_file():
            inputs.note(file)
    return inputs


def _warn_of_idle_embeddings(pipeline: VideoPipeline, request: GenerateRequest) -> None:
    prompts = request.prompt.values() if isinstance(request.prompt, dict) else [request.prompt or ""]
    texts = [] if request.plain_prompt else [*prompts, request.negative_prompt or ""]
    used = pipeline.embeddings_in(texts) if request.model.embeddings else set()
    if idle := [name for path, name in request.model.embeddings.items() if path not in used]:
        warnings.warn(f"No prompt names the embedding {', '.join(idle)}, so it does nothing.", stacklevel=2)
