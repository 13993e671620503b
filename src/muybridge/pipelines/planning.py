"""How much memory a video will take, before anything is loaded: every stage is run without numbers, and counted."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from muybridge.debug.count_once import CountOnce, Seen
from muybridge.debug.tensor_memory import TensorMemory
from muybridge.errors import ConfigError
from muybridge.pipelines.family import Wishes
from muybridge.pipelines.stages import Stage
from muybridge.pipelines.wishes import wishes_of
from muybridge.request import ModelChoice
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


@dataclass(frozen=True)
class PartialShape:
    """Extent of a video of which not everything is asked for; None is what the model makes by default.

    Attributes:
        num_frames: asked for.
        height: likewise, in pixels.
        width: likewise.
        is_whole: whether all frames are to be made at once also by models that make longer videos in segments.
    """

    num_frames: int | None = None
    height: int | None = None
    width: int | None = None
    is_whole: bool = False

    def filled(self, usual: VideoShape, is_continued: bool) -> VideoShape:
        """What is made at once by a model that makes `usual` by default, and longer videos in segments or not."""
        frames = self.num_frames or usual.num_frames
        if is_continued and not self.is_whole:
            frames = min(frames, usual.num_frames)
        return VideoShape(frames, self.height or usual.height, self.width or usual.width)


def plan_video(
    model: str | os.PathLike[str] | ModelChoice,
    shape: VideoShape | PartialShape | None = None,
    num_steps: int = 25,
    guided: bool = True,
    device: str = "cuda",
    choices: tuple[PlanSettings, ...] = CHOICES,
    *,
    enough: int | None = None,
    profile: str | None = None,
) -> VideoPlan:
    """Predict the peak of every stage under different settings; no weight is loaded, or needs to be there.

    Tensors are counted as in `TensorMemory`: what kernels need inside themselves, and what a process takes before it
    has made a tensor (on a GPU about 0.5 GB), come on top. SparseCtrls, ControlNets and IP-Adapters count with their
    weights, not with what they need while they work. Files of LoRAs are read; of single files names and shapes are.

    Args:
        model: a shipped model, a folder, or a hub id; or with all that is put into it, and so also an image model, as
            a folder or a single file, with a motion adapter.
        shape: of the video; by default what the model makes by default.
        num_steps: denoising steps; they matter for the cost of offloading only.
        guided: whether there is guidance, which has two branches.
        device: where it is to run, "cpu" or any other, such as "cuda": kernels on a CPU need less between layers. It
            does not have to be here. Single files, and models with LoRAs, are planned as for a card.
        choices: settings to plan for.
        enough: bytes; settings behind the first that takes no more are not planned.
        profile: the numeric one, of families that have several; by default the model's.

    Raises:
        ConfigError: a profile that is not known, or of a family that has one only.
        CheckpointError: no such model, a family that is not known, or settings that describe no network.
        ShapeError: a size or number of frames that the model cannot make.
    """
    return plan_wishes(wishes_of(model, profile=profile), shape, num_steps, guided, device, choices, enough=enough)


def plan_wishes(
    wishes: Wishes,
    shape: VideoShape | PartialShape | None = None,
    num_steps: int = 25,
    guided: bool = True,
    device: str = "cuda",
    choices: tuple[PlanSettings, ...] = CHOICES,
    *,
    enough: int | None = None,
) -> VideoPlan:
    """As `plan_video`, of a model that has been found, with the networks that conditions bring."""
    family = wishes.family
    skeleton = family.planning.skeleton(wishes)
    attach_loras = _attaching(wishes)
    wanted = shape or skeleton.shape
    if isinstance(wanted, PartialShape):
        wanted = wanted.filled(skeleton.shape, skeleton.is_continued)

    chosen = wishes.profile or skeleton.profile
    if wishes.profile is not None and skeleton.profile is None:
        raise ConfigError(f"{family.name} makes videos in one numeric profile; leave profile={chosen!r} out.")
    profiled = {} if chosen is None else {"profile": chosen}

    on_cpu = device == "cpu" and not skeleton.is_file and attach_loras is None
    # Fake tensors of a CPU take the ways of a CPU through the networks; meta tensors those of other devices.
    with FakeTensorMode() if on_cpu else nullcontext(), torch.device("cpu" if on_cpu else "meta"):

        @cache
        def stages_in(dtype: str) -> tuple[int, Mapping[str, Stage], Seen]:
            parts = skeleton.make(getattr(torch, dtype), "cpu" if on_cpu else "meta")
            stages = family.planning.stages(parts, wanted, guided, **profiled)
            if attach_loras is not None:
                attach_loras(parts)
            return _weight_bytes(nn.ModuleList(parts.values())), stages, Seen()

        @cache
        def need(name: str, dtype: str, *deciding: tuple[str, Any]) -> StageNeed:
            _, stages, seen = stages_in(dtype)
            return _need(stages[name], PlanSettings(dtype, **dict(deciding)), seen)

        def count(settings: PlanSettings) -> tuple[int, Mapping[str, StageNeed]]:
            everything, stages, _ = stages_in(settings.dtype)
            return everything, {
                name: need(name, settings.dtype, *((each, getattr(settings, each)) for each in stage.decided_by))
                for name, stage in stages.items()
            }

        return VideoPlan(family.name, wanted, plan_runs(count, num_steps, choices, enough))


def _attaching(wishes: Wishes) -> Callable[[Mapping[str, nn.Module]], None] | None:
    """What puts the LoRAs that were asked for into networks without numbers; None where there are none."""
    if not wishes.choice.loras:
        return None
    from muybridge.pipelines.lora_outlines import attach_outlines, read_loras  # which imports peft, for a second

    loras = read_loras(wishes.choice.loras)
    return lambda parts: attach_outlines(loras, wishes.family.lora.root, parts)


def _need(stage: Stage, settings: PlanSettings, seen: Seen) -> StageNeed:
    with torch.no_grad(), TensorMemory() as memory, CountOnce(stage.parts, memory, seen):
        stage.run(settings)
    layers = [_weight_bytes(module) for part in stage.parts for module in part.modules() if not list(module.children())]
    return StageNeed(sum(map(_weight_bytes, stage.parts)), max(layers), memory.peak_bytes)


def _weight_bytes(part: nn.Module) -> int:
    tensors = {id(tensor): tensor for tensor in [*part.parameters(), *part.buffers()]}
    return sum(tensor.nbytes for tensor in tensors.values())
