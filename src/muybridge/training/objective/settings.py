"""The parts of a training objective, as a run file names them."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from muybridge.training.settings import Settings


class ObjectiveSettings(Settings):
    """Of what a training objective is made. As it is by default: even noise levels, plain noise, mean squared error.

    What the network predicts, noise or velocity, is the scheduler's to say. EasyAnimate V3 was trained with
    `timesteps="logit-normal"` and `learned_range=True`, AnimateDiff with the defaults.
    """

    timesteps: Literal["uniform", "shifted", "logit-normal"] = "uniform"
    """How noise levels are drawn, one a clip; logit-normal is EasyAnimate's, which draws the middle ones most often."""
    timestep_shift: float | None = Field(default=None, gt=0)
    """Of `shifted`, 3 if not given: s > 1 draws high noise more often, as u becomes s u / (1 + (s - 1) u)."""
    noise_offset: float = Field(default=0.0, ge=0)
    """Share of a further draw that is one number for a channel, the same in all frames; teaches brightness."""
    shared_noise: float = Field(default=0.0, ge=0, lt=1)
    """How much of the noise of a frame comes from the frame before."""
    noise_sharing: Literal["preserving", "mixing"] = "preserving"
    """How it does; preserving keeps the variance at 1, which mixing, as EasyAnimate was trained, loses."""
    min_snr: float | None = Field(default=None, gt=0)
    """Gamma of min-SNR weights (Hang et al., 2023), usually 5; by default noise levels count alike."""
    snr_loss: bool = False
    """EasyAnimate's flag: below the noise level of timestep 250, the error counts in the clean latents."""
    motion_sub_loss: float = Field(default=0.0, ge=0, lt=1)
    """Share of the loss that is of differences between frames, for videos of more than 2 latent frames."""
    learned_range: bool = False
    """Also train the variance, for networks that give twice the channels (PixArt, EasyAnimate V3)."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.timestep_shift is not None and self.timesteps != "shifted":
            raise ValueError(
                f"timestep_shift is of timesteps: shifted; given timesteps: {self.timesteps}. Leave one of them out"
            )
        if "noise_sharing" in self.model_fields_set and not self.shared_noise:
            raise ValueError("noise_sharing says how shared_noise is shared, which is 0; give it, such as 0.5")
        if self.snr_loss and (self.min_snr is not None or self.motion_sub_loss):
            raise ValueError("snr_loss weighs noise levels by itself; leave out min_snr and motion_sub_loss, or it")
        return self

    @classmethod
    def shifted(cls, timestep_shift: float) -> Self:
        """The default objective with noise levels shifted; 1 does not shift them."""
        return cls(timesteps="shifted", timestep_shift=timestep_shift)

    @property
    def shift(self) -> float:
        """Of noise levels that are drawn evenly; 1 for none."""
        if self.timesteps != "shifted":
            return 1.0
        return 3.0 if self.timestep_shift is None else self.timestep_shift
