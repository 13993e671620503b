"""What a request takes, before it is accepted."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from muybridge.errors import ConfigError
from muybridge.pipelines.placing import bytes_allowed, choices_for
from muybridge.pipelines.planning import plan_wishes
from muybridge.pipelines.wishes import wishes_of
from muybridge.request import GenerateRequest, Inputs
from muybridge.runtime.plan import choose_run
from muybridge.service.asked import controls_of, shape_of, wish_of


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


def cost_of(request: GenerateRequest, device: torch.device, inputs: Inputs) -> Cost:
    """Plan a request; reads what describes a model, and no weight.

    Without a word about memory, it is measured against all that the device has: on a card what is warm there makes
    room, and a CPU has the memory of the machine.

    Raises:
        MuybridgeError: as `plan_video`, and of a device that does not say how much memory it has.
    """
    wish = wish_of(request, device, inputs)
    wishes = wishes_of(request.model, controls_of(request), request.sampling.profile)
    asked = request.model.memory
    budget = bytes_allowed("max" if asked in (None, "auto") else asked, device)
    plan = plan_wishes(
        wishes,
        shape_of(request, inputs),
        guided=request.sampling.guidance_scale != 1.0,
        device=device.type,
        choices=choices_for(wish, device),
        enough=budget,
    )
    if budget is None:
        return Cost(plan.runs[0].peak, None, fits=True)
    try:
        return Cost(choose_run(plan.runs, budget).peak, budget, fits=True)
    except ConfigError as error:
        return Cost(min(run.peak for run in plan.runs), budget, fits=False, least=str(error))
