"""Which settings let a model run on the device that there is, chosen before a weight is read, and applied after."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from muybridge.errors import CheckpointError, ConfigError
from muybridge.files.byte_counts import parse_bytes
from muybridge.pipelines.family import Wishes
from muybridge.pipelines.planning import PartialShape, plan_wishes
from muybridge.runtime.options import choose, look_up
from muybridge.runtime.placement import Placement
from muybridge.runtime.plan import PlanSettings, choices_in, choose_run
from muybridge.types import VideoShape
from muybridge.vae.pieces import set_exact_pieces

DTYPES = ("float32", "bfloat16", "float16")
_OWN_NEEDS = 600 * 10**6
"""Bytes of a card that are no tensors': what its driver and libraries take, and kernels inside themselves."""
_OFFLOADS = {"model": ("model_offload",), "group": ("group_offload",)}


@dataclass(frozen=True)
class Wish:
    """What a caller of `load_pipeline` says of precision and memory.

    Attributes:
        dtype: a precision or its name, or "auto".
        memory: bytes, or text such as "12GB", "max" or "auto"; None plans nothing.
        speed: names of optimizations (`runtime.options.OPTIMIZATIONS`).
        device: where to run; by default, with `memory`, the accelerator that there is, and else the CPU.
        is_default: whether `memory` is what is taken where nobody says; then a model that cannot be planned without
            its weights is loaded whole.
        shape: of the videos to make, or frames, height and width of which None is what the model makes by default.
        controls: networks that their conditions bring, to be planned with the model.
        profile: the numeric profile of these videos; by default the model's.
    """

    dtype: torch.dtype | str = torch.float32
    memory: int | str | None = None
    speed: str | Sequence[str] = ()
    device: str | torch.device | None = None
    shape: VideoShape | PartialShape | None = None
    is_default: bool = False
    controls: Sequence[str] = ()
    profile: str | None = None


@dataclass(frozen=True)
class Place:
    """What was decided before loading.

    Attributes:
        dtype: to load in.
        device: to move to; None leaves the pipeline on the CPU.
        placement: what the pipeline remembers; None where nothing was asked for but a precision.
    """

    dtype: torch.dtype
    device: torch.device | None
    placement: Placement | None

    @property
    def parts_device(self) -> torch.device | None:
        """Where each part may go as soon as it is read; None where it has to wait on the host."""
        offloads = self.placement is not None and self.placement.offload in _OFFLOADS
        return None if offloads or self.device is None or self.device.type == "cpu" else self.device


def find_place(wishes: Wishes, wish: Wish) -> Place:
    """Decide how to load a model; reads what describes it, and no weight.

    Args:
        wishes: what is to be loaded.
        wish: what was asked for.

    Raises:
        ConfigError: a precision, budget or device that is not known or not there, or a budget that nothing fits: names
            the least that would.
        CheckpointError: as of `plan_video`.
    """
    device = _device(wish)
    dtypes = _dtypes(wish.dtype, device, wish.memory)
    speed = (wish.speed,) if isinstance(wish.speed, str) else tuple(wish.speed)
    if precise := [name for name, each in look_up(speed).items() if each.group == "precision"]:
        raise ConfigError(f"The precision is said with torch_dtype (--dtype), not with speed; leave {precise[0]} out.")
    budget = None if wish.memory is None else bytes_allowed(wish.memory, device)
    if budget is not None:
        offloads = _can_offload(speed, device)
        try:
            placement = replace(fit(wishes, budget, dtypes, wish.shape, device.type, offloads), speed=speed)
        except CheckpointError:
            if not wish.is_default:
                raise
            placement = Placement(dtypes[0], speed=speed)  # loading says what is wrong, or gets what is missing
    elif wish.memory is not None or speed or wish.dtype == "auto":
        placement = Placement(dtypes[0], speed=speed)
    else:
        placement = None
    stays = wish.memory is None and wish.device is None
    dtype = dtypes[0] if placement is None else placement.dtype
    return Place(getattr(torch, dtype), None if stays else device, placement)


def fit(
    wishes: Wishes,
    budget: int,
    dtypes: Sequence[str],
    shape: VideoShape | PartialShape | None = None,
    device: str = "cuda",
    can_offload: bool = True,
) -> Placement:
    """The cheapest settings that fit a budget, in one of some precisions, from the one preferred on.

    `can_offload` is False where parts cannot wait on the host.

    Raises:
        ConfigError: none does; names the least that would.
        MuybridgeError: as of `plan_video`.
    """
    choices = choices_in(dtypes, can_offload=can_offload and device != "cpu")
    plan = plan_wishes(wishes, shape, device=device, choices=choices, enough=budget)
    run = choose_run(plan.runs, budget)
    chosen, made = run.settings, plan.shape
    size = (made.num_frames, made.height, made.width)
    return Placement(chosen.dtype, chosen.guidance, chosen.tiled_vae, chosen.offload, peak_bytes=run.peak, shape=size)


def choices_for(wish: Wish, device: torch.device) -> tuple[PlanSettings, ...]:
    """The settings that a wish leaves to choose among, the preferred ones first; without a word about memory, one.

    Raises:
        ConfigError: a precision that is not known, or optimizations that memory decides over.
    """
    dtypes = _dtypes(wish.dtype, device, wish.memory)
    if wish.memory is None:
        return (PlanSettings(dtypes[0]),)
    speed = (wish.speed,) if isinstance(wish.speed, str) else tuple(wish.speed)
    return choices_in(dtypes, can_offload=_can_offload(speed, device))


def _can_offload(speed: Sequence[str], device: torch.device) -> bool:
    """Whether parts may wait on the host beside these optimizations.

    Raises:
        ConfigError: one of them is offloading, over which the memory decides.
    """
    named = look_up(speed)
    if own := [name for name, each in named.items() if each.group == "offload"]:
        raise ConfigError(f"memory decides what waits on the host; leave {own[0]} out, or memory.")
    return device.type != "cpu" and not any(what == "offload" for each in named.values() for what, _ in each.not_with)


def put(pipeline: Any, place: Place) -> None:
    """Do to a loaded pipeline what was decided, and remember it as its `placement`.

    Raises:
        ConfigError: an optimization that is unknown, or does not work here or with the others.
    """
    placement = place.placement
    pipeline.placement = placement
    if place.device is not None and place.device.index is not None:
        torch.accelerator.set_device_index(place.device.index)  # offloading goes to the current one
    offload = () if placement is None else _OFFLOADS.get(placement.offload, ())
    if place.device is not None and not offload:
        pipeline.to(place.device)
    if placement is None:
        return
    if placement.tiled_vae:
        set_exact_pieces(pipeline.vae)
    for each in choose((*placement.speed, *offload), pipeline).values():
        each.apply(pipeline)


def bytes_allowed(memory: int | str, device: torch.device) -> int | None:
    """The budget that was asked for, in bytes; None where there is nothing to fit: "auto" on a CPU.

    Raises:
        ConfigError: no such budget.
    """
    if isinstance(memory, bool) or not isinstance(memory, (int, str)):
        raise ConfigError(f'memory is a number of bytes, or text as in "12GB", "auto" or "max"; given {memory!r}.')
    if memory in ("auto", "max"):
        if device.type == "cpu":
            return None if memory == "auto" else _memory_of_host()
        free, everything = _memory_of_card(device)
        # Looking at a card takes what its driver needs, so what is then free is free of that.
        return free * 19 // 20 if memory == "auto" else everything - _OWN_NEEDS
    budget = parse_bytes(memory) if isinstance(memory, str) else memory
    if budget < 1:
        raise ConfigError(f"memory must be at least one byte; given {memory!r}.")
    return budget


def _device(wish: Wish) -> torch.device:
    there = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if wish.device is None:
        return there or torch.device("cpu")
    try:
        device = torch.device(wish.device)
    except RuntimeError as error:
        raise ConfigError(f"There is no device {wish.device!r}; as in cpu, cuda or cuda:1.") from error
    if device.type != "cpu" and (there is None or there.type != device.type):
        raise ConfigError(f"The device {wish.device!r} is not here; there is {there or 'the CPU alone'}.")
    return device


def _dtypes(asked: torch.dtype | str, device: torch.device, memory: int | str | None) -> tuple[str, ...]:
    """The precisions that may be chosen among, the preferred one first."""
    if asked == "auto":
        if device.type != "cpu":
            return ("bfloat16" if _multiplies_bfloat16(device) else "float16",)
        return ("float32",) if memory in (None, "auto") else ("float32", "bfloat16")
    name = str(asked).removeprefix("torch.")
    if name not in DTYPES:
        raise ConfigError(f"torch_dtype must be auto, {', '.join(DTYPES)}; given {name}.")
    return (name,)


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type != "mps"


def _memory_of_card(device: torch.device) -> tuple[int, int]:
    if device.type == "mps":
        everything = torch.mps.recommended_max_memory()
        return everything - torch.mps.driver_allocated_memory(), everything
    module = getattr(torch, device.type)
    if not hasattr(module, "mem_get_info"):
        raise ConfigError(f'{device.type} does not say how much memory it has; give a number, as in memory="12GB".')
    return module.mem_get_info(device)


def _memory_of_host() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError) as error:
        raise ConfigError('How much memory this machine has is not known; give a number, as in "12GB".') from error
