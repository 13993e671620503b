"""Which settings fit a budget of memory, at what cost; from figures of stages that something else has counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from muybridge.errors import ConfigError

Guiding = Literal["batched", "sequential"]
Offload = Literal["none", "model", "group"]
_BYTES_A_SECOND = 25e9  # what a card's bus moves in practice


@dataclass(frozen=True)
class PlanSettings:
    """What decides over memory.

    Attributes:
        dtype: of all networks, "float32", "bfloat16" or "float16".
        guidance: both branches of guidance in one call, or one after the other.
        tiled_vae: whether the VAE works in exact pieces (see `vae.pieces`).
        offload: parts ("model") or layers ("group") wait in the memory of the host, or nothing does.
    """

    dtype: str
    guidance: Guiding = "batched"
    tiled_vae: bool = False
    offload: Offload = "none"


@dataclass(frozen=True)
class StageNeed:
    """What a stage needs by itself.

    Attributes:
        weight_bytes: of the parts that work in it.
        largest_layer_bytes: of the largest of their layers.
        activation_bytes: most that its tensors take at a time, without weights.
    """

    weight_bytes: int
    largest_layer_bytes: int
    activation_bytes: int


@dataclass(frozen=True)
class PlannedRun:
    """One choice of settings.

    Attributes:
        settings: the choice.
        peaks: bytes at most in each stage, weights that are there included.
        costs: what it costs against the run before it in the plan, in words.
    """

    settings: PlanSettings
    peaks: dict[str, int]
    costs: tuple[str, ...]

    @property
    def peak(self) -> int:
        """Of the whole run."""
        return max(self.peaks.values())


CHOICES: tuple[PlanSettings, ...] = (
    PlanSettings("float32"),
    PlanSettings("bfloat16"),
    PlanSettings("bfloat16", "sequential"),
    PlanSettings("bfloat16", "sequential", True),
    PlanSettings("bfloat16", "sequential", True, "model"),
    PlanSettings("bfloat16", "sequential", True, "group"),
)
"""From what costs nothing to what costs most."""


def choices_in(dtypes: Sequence[str], can_offload: bool = True) -> tuple[PlanSettings, ...]:
    """Every combination in the precisions asked for, from what costs nothing to what costs most.

    Args:
        dtypes: from the most precise on; only the last is combined with what costs speed.
        can_offload: whether there is a host beside the device.
    """
    guidances: tuple[Guiding, ...] = ("batched", "sequential")
    offloads: tuple[Offload, ...] = ("none", "model", "group") if can_offload else ("none",)
    precise = [PlanSettings(dtype) for dtype in dtypes[:-1]]
    ways = [
        PlanSettings(dtypes[-1], guidance, tiled, offload)
        for offload in offloads
        for tiled in (False, True)
        for guidance in guidances
    ]
    return (*precise, *ways)


def plan_runs(
    count: Callable[[PlanSettings], tuple[int, Mapping[str, StageNeed]]],
    num_steps: int,
    choices: Sequence[PlanSettings] = CHOICES,
    enough: int | None = None,
) -> list[PlannedRun]:
    """The peak of every choice, or of those up to the first that takes no more than `enough`.

    Args:
        count: under some settings, the bytes of all weights together, and what each stage needs, by its name.
        num_steps: denoising steps, for the cost of moving weights.
        choices: what to plan.
        enough: bytes that there are.
    """
    runs = []
    for settings in choices:
        everything, needs = count(settings)
        peaks = {name: need.activation_bytes + _resident(need, everything, settings) for name, need in needs.items()}
        runs.append(PlannedRun(settings, peaks, _costs(settings, needs, everything, num_steps)))
        if enough is not None and runs[-1].peak <= enough:
            break
    return runs


def choose_run(runs: Sequence[PlannedRun], budget: int) -> PlannedRun:
    """The first that fits.

    Raises:
        ConfigError: none does; names the smallest.
    """
    for run in runs:
        if run.peak <= budget:
            return run
    smallest = min(runs, key=lambda run: run.peak)
    stage = max(smallest.peaks, key=lambda name: smallest.peaks[name])
    raise ConfigError(
        f"Nothing fits {budget / 1e9:.3g} GB: the least is {smallest.peak / 1e9:.3g} GB, in the stage {stage!r}, with "
        f"{describe(smallest.settings)}. Ask for a smaller size or fewer frames, or allow {smallest.peak / 1e9:.3g} GB."
    )


def describe(settings: PlanSettings) -> str:
    """The settings in words."""
    words = [settings.dtype, f"{settings.guidance} guidance"]
    words += ["a tiled VAE"] if settings.tiled_vae else []
    words += [] if settings.offload == "none" else [f"{settings.offload} offload"]
    return ", ".join(words)


def _resident(need: StageNeed, everything: int, settings: PlanSettings) -> int:
    if settings.offload == "none":
        return everything
    if settings.offload == "model":
        return need.weight_bytes
    return min(need.weight_bytes, 2 * need.largest_layer_bytes)  # the one at work, and the one that is fetched


def _costs(settings: PlanSettings, needs: Mapping[str, StageNeed], everything: int, num_steps: int) -> tuple[str, ...]:
    costs = []
    if settings.dtype != "float32":
        costs.append("rounding of about 1 % in every layer")
    if settings.guidance == "sequential":
        costs.append("two calls a step, slower where one does not fill the device")
    if settings.tiled_vae:
        costs.append("edges of tiles are computed twice when decoding")
    if settings.offload == "model":
        costs.append(f"every part moves once, {_seconds(everything)}")
    if settings.offload == "group":
        branches = 2 if settings.guidance == "sequential" else 1
        moved = everything + needs["denoise"].weight_bytes * (num_steps * branches - 1)
        costs.append(f"weights move in every step, {_seconds(moved)} where that is not hidden")
    return tuple(costs)


def _seconds(count: int) -> str:
    return f"{count / 1e9:.3g} GB in about {count / _BYTES_A_SECOND:.2g} s"
