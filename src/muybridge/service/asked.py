"""What a request asks of a machine: its files, its device, its precision and memory."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from muybridge.errors import ConfigError
from muybridge.pipelines import VideoPipeline
from muybridge.pipelines.placing import Wish
from muybridge.pipelines.planning import PartialShape
from muybridge.request import GenerateRequest, Inputs
from muybridge.request.sizes import fit_size


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


def wish_of(request: GenerateRequest, device: torch.device, inputs: Inputs) -> Wish:
    """Precision and memory that were asked for; on a card, where nobody says, what it does well and what is free."""
    choice, on_cpu = request.model, device.type == "cpu"
    dtype = choice.dtype or ("float32" if on_cpu else "auto")
    memory = choice.memory or (None if on_cpu else "auto")
    if memory is None:
        return Wish(dtype, None, choice.speed, device)
    return Wish(
        dtype,
        memory,
        choice.speed,
        device,
        shape_of(request, inputs),
        is_default=choice.memory is None,
        controls=controls_of(request),
        profile=request.sampling.profile,
    )


def shape_of(request: GenerateRequest, inputs: Inputs, multiple: int = 16) -> PartialShape:
    """What is made at once of a request, as far as it says; `multiple` is what sides that follow are multiples of."""
    asked, windows, segments = request.shape, request.sampling.windows, request.segments
    at_once = windows.size if windows is not None else None if segments is None else segments.frames
    size = (asked.height, asked.width)
    if asked.fit is not None and (source := request.size_to_fit(inputs)) is not None:
        size = fit_size(*source, asked.fit, multiple)
    return PartialShape(at_once or asked.num_frames, *size, is_whole=at_once is not None)


def controls_of(request: GenerateRequest) -> tuple[str, ...]:
    """Networks that its conditions bring."""
    return tuple(each for condition in request.conditions for each in condition.networks())


def check_idle_segments(request: GenerateRequest, pipeline: VideoPipeline) -> None:
    """Raises ConfigError for settings of segments where the video is made at once."""
    if request.segments is not None:
        at_once = request.segments.frames or pipeline.frames_at_once
        raise ConfigError(
            "Settings of segments have no effect: this video is made at once, as it has no more than "
            f"{at_once} frames. Ask for more with --frames, or leave them out."
        )


def warn_of_idle_embeddings(pipeline: VideoPipeline, request: GenerateRequest) -> None:
    """Warn of embeddings that no prompt names."""
    prompts = request.prompt.values() if isinstance(request.prompt, dict) else [request.prompt or ""]
    texts = [] if request.plain_prompt else [*prompts, request.negative_prompt or ""]
    used = pipeline.embeddings_in(texts) if request.model.embeddings else set()
    if idle := [name for path, name in request.model.embeddings.items() if path not in used]:
        warnings.warn(f"No prompt names the embedding {', '.join(idle)}, so it does nothing.", stacklevel=2)
