"""What a request takes, before it is accepted."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from muybridge.errors import ConfigError
from muybridge.pipelines.placing import bytes_allowed, choices_for
from muybridge.pipelines.planning import PartialShape, plan_wishes
from muybridge.pipelines.wishes import wishes_of
from muybridge.request import GenerateRequest, Inputs
from muybridge.runtime.plan import PlannedRun, choose_run
from muybridge.service.asked import controls_of, shape_of, wish_of
from muybridge.service.checking import check_request


@dataclass(frozen=True)
class Cost:
    """What a request takes.

    Attributes:
        peak_bytes: of tensors at most, under the settings that would be chosen for it.
        budget_bytes: that there are; None where that is not known.
        fits: whether it can be carried out.
        least: where it cannot, the sentence that says what would.
    """

    peak_bytes: int
    budget_bytes: int | None
    fits: bool
    least: str | None = None

    def require(self) -> None:
        """Raises ConfigError for a request that cannot fit, with the least that would."""
        if not self.fits:
            raise ConfigError(self.least or "This request does not fit into memory.")


_SMALL = 16 * 1024 * 1024
"""Pixels of all frames up to which a plan takes a second; of a giant it takes hours."""
_STEP_PIXELS, _STEP_FRAMES = 64, 16
"""What every model can make multiples of."""


def cost_of(request: GenerateRequest, device: torch.device, inputs: Inputs) -> Cost:
    """Plan a request; reads what describes a model, and no weight.

    Without a word about memory, it is measured against all that the device has: on a card what is warm there makes
    room, and a CPU has the memory of the machine, and is planned like a card, which takes at least as much.

    Raises:
        MuybridgeError: as `check_request` and `plan_video`, and of a device that does not say how much memory it has.
    """
    wish, asked = wish_of(request, device, inputs), request.model.memory
    wishes = wishes_of(request.model, controls_of(request), request.sampling.profile)
    multiple = 16
    if wishes.family.planning.facts is not None:
        facts = wishes.family.planning.facts(wishes)
        check_request(request, inputs, facts)
        multiple = facts.usual.multiple
    budget = bytes_allowed("max" if asked in (None, "auto") else asked, device)
    guided, ways = request.sampling.guidance_scale != 1.0, "cuda" if wish.memory is None else device.type
    choices, shape = choices_for(wish, device), shape_of(request, inputs, multiple)
    found = Cost(0, budget, fits=True)
    for each in (*smaller_shapes(shape), shape):
        with warnings.catch_warnings(action="ignore"):  # making the video gives them
            runs = plan_wishes(wishes, each, guided=guided, device=ways, choices=choices, enough=budget).runs
        found = _cost(runs, budget)
        if not found.fits:
            return found if each is shape else replace(found, least=f"{found.least} That is for {_in_words(each)}.")
    return found


def _cost(runs: Sequence[PlannedRun], budget: int | None) -> Cost:
    if budget is None:
        return Cost(runs[0].peak, None, fits=True)
    try:
        return Cost(choose_run(runs, budget).peak, budget, fits=True)
    except ConfigError as error:
        return Cost(min(run.peak for run in runs), budget, fits=False, least=str(error))


def smaller_shapes(shape: PartialShape) -> list[PartialShape]:
    """Of a giant, from small to large: what does not fit at half its size does not fit, and is known soon."""
    found: list[PartialShape] = []
    while (less := _less(shape)) != shape:
        found.append(less)
        shape = less
    return found[::-1]


def _less(shape: PartialShape) -> PartialShape:
    """About half of a giant, or all of what is none."""
    frames, height, width = shape.num_frames or 1, shape.height or 512, shape.width or 512
    if frames * height * width <= _SMALL:
        return shape
    if frames > 4 * _STEP_FRAMES:
        return replace(shape, num_frames=_halved(frames, _STEP_FRAMES))
    height, width = (each and _halved(each, _STEP_PIXELS) for each in (shape.height, shape.width))
    return replace(shape, height=height, width=width)


def _halved(count: int, step: int) -> int:
    return max(step, count // 2 // step * step) if count > step else count


def _in_words(shape: PartialShape) -> str:
    frames = "" if shape.num_frames is None else f"{shape.num_frames} frames of "
    return f"{frames}{shape.width or 'the usual width'} x {shape.height or 'the usual height'}, and more was asked for"
