"""What stages have in common that train a denoising network, or something beside one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, ValidationInfo, field_validator

from muybridge.training.objective.settings import ObjectiveSettings
from muybridge.training.stages.stage import Stage

if TYPE_CHECKING:
    from diffusers import DDIMScheduler

    from muybridge.training.objective.diffusion import DiffusionObjective


class DenoisingStage(Stage):
    """A stage with a denoising objective."""

    objective: ObjectiveSettings | None = None
    """All that can be said of it; in place of `timestep_shift`."""
    timestep_shift: float = Field(default=3.0, ge=1)
    """Above 1 high noise is drawn more often: the short way to say nothing else of the objective."""
    caption_dropout: float = Field(default=0.1, ge=0, lt=1)

    @field_validator("timestep_shift")
    @classmethod
    def _one_objective(cls, timestep_shift: float, info: ValidationInfo) -> float:
        if info.data.get("objective") is not None:
            raise ValueError(
                "timestep_shift and objective both say how noise levels are drawn; leave timestep_shift out, and say "
                "objective: {timesteps: shifted, timestep_shift: 3.0}"
            )
        return timestep_shift

    def make_objective(self, scheduler: DDIMScheduler) -> DiffusionObjective:
        """The objective for a model with these noise levels.

        Raises:
            ConfigError: settings that are not for what the model predicts.
        """
        from muybridge.training.objective.diffusion import DiffusionObjective

        return DiffusionObjective(scheduler, self.objective or ObjectiveSettings.shifted(self.timestep_shift))
