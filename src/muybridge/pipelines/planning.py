"""How much memory a video will take, before anything is loaded: every stage is run without numbers, and counted."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from muybridge.checkpoints import locate_model
from muybridge.debug.count_once import CountOnce
from muybridge.debug.tensor_memory import TensorMemory
from muybridge.pipelines.families import family_of_folder, unsupported
from muybridge.pipelines.skeleton import skeleton_parts
from muybridge.pipelines.stages import Stage
from muybridge.runtime.plan import CHOICES, PlannedRun, PlanSettings, StageNeed, plan_runs
from muybridge.types import VideoShape


@dataclass(frozen=True)
class VideoPlan:
    """What was planned.

    Attributes:
        family: name of it.
        shape: of the video.
        runs: from what costs nothing to what costs most.
    """

    family: str
    shape: VideoShape
    runs: list[PlannedRun]


def plan_video(
    model: str | os.PathLike[str],
    shape: VideoShape | None = None,
    num_steps: int = 25,
    guided: bool = True,
    device: str = "cuda",
    choices: tuple[PlanSettings, ...] = CHOICES,
) -> VideoPlan:
    """Predict the peak of every stage under different settings; no weight is loaded, or needs to be there.

    Tensors are counted as in `TensorMemory`: what kernels need inside themselves, and what a process takes before it
    has made a tensor (on a GPU about 0.5 GB), come on top. Decoding is of the "clean" profile, piece by piece. A
    SparseCtrl in the folder counts with its weights, not with what it needs when there are keyframes or sketches.

    Args:
        model: a shipped model, a folder, or a hub id.
        shape: of the video; by default of one that a call names none for.
        num_steps: denoising steps; they matter for the cost of offloading only.
        guided: whether there is guidance, which has two branches.
        device: where it is to run, "cpu" or any other, such as "cuda": kernels on a CPU need less between layers. It
            does not have to be here.
        choices: settings to plan for.

    Raises:
        CheckpointError: no such model, a family that is not known, or settings that describe no network.
        ShapeError: a size or number of frames that the model cannot make.
    """
    folder = locate_model(model)
    found = family_of_folder(folder)
    if not found.recognised.makes_videos:
        raise unsupported(folder, found.recognised.class_name)
    planning = found.family.planning
    video = planning.shape(folder) if shape is None else shape
    makers = planning.makers(folder)

    on_cpu = device == "cpu"
    # Fake tensors of a CPU take the ways of a CPU through the networks; meta tensors those of other devices.
    with FakeTensorMode() if on_cpu else nullcontext(), torch.device("cpu" if on_cpu else "meta"):

        @cache
        def stages_in(dtype: str) -> tuple[int, Mapping[str, Stage]]:
            parts = skeleton_parts(folder, makers, getattr(torch, dtype), "cpu" if on_cpu else "meta")
            return sum(_weight_bytes(part) for part in parts.values()), planning.stages(parts, video, guided)

        @cache
        def need(name: str, dtype: str, *deciding: tuple[str, Any]) -> StageNeed:
            return _need(stages_in(dtype)[1][name], PlanSettings(dtype, **dict(deciding)))

        def count(settings: PlanSettings) -> tuple[int, Mapping[str, StageNeed]]:
            everything, stages = stages_in(settings.dtype)
            return everything, {
                name: need(name, settings.dtype, *((each, getattr(settings, each)) for each in stage.decided_by))
                for name, stage in stages.items()
            }

        return VideoPlan(found.family.name, video, plan_runs(count, num_steps, choices))


def _need(stage: Stage, settings: PlanSettings) -> StageNeed:
    with torch.no_grad(), TensorMemory() as memory, CountOnce(stage.parts, memory):
        stage.run(settings)
    layers = [_weight_bytes(module) for part in stage.parts for module in part.modules() if not list(module.children())]
    return StageNeed(sum(map(_weight_bytes, stage.parts)), max(layers), memory.peak_bytes)


def _weight_bytes(part: nn.Module) -> int:
    tensors = {id(tensor): tensor for tensor in [*part.parameters(), *part.buffers()]}
    return sum(tensor.nbytes for tensor in tensors.values())
