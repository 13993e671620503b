"""The training objective of a denoising network: what it is shown, and how what it says is judged."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from torch import Tensor

from muybridge.errors import ConfigError
from muybridge.training.objective.draws import draw_noise, draw_timesteps
from muybridge.training.objective.settings import ObjectiveSettings
from muybridge.training.objective.variance import PosteriorTables

_SNR_LOSS_UP_TO = 249
"""The last timestep at which EasyAnimate's `snr_loss` takes the error of the clean latents."""


@dataclass(frozen=True)
class Drawn:
    """What a network is shown in one step, and what it should say.

    Attributes:
        clean: latents `[b, c, (f,) h, w]`.
        timesteps: int64 `[b]`.
        noisy: the latents at that noise level.
        target: noise or velocity.
    """

    clean: Tensor
    timesteps: Tensor
    noisy: Tensor
    target: Tensor


class DiffusionObjective:
    """Noise levels, noisy latents, regression targets and loss of a denoising network."""

    def __init__(self, scheduler: DDIMScheduler, settings: ObjectiveSettings | None = None) -> None:
        """Noise levels and prediction type are the scheduler's, all else is in `settings`, by default the simplest.

        Raises:
            ConfigError: the scheduler's prediction type is neither "epsilon" nor "v_prediction", or `settings` are
                not for it.
        """
        prediction = scheduler.config["prediction_type"]
        if prediction not in ("epsilon", "v_prediction"):
            raise ConfigError(f"Training knows the prediction types epsilon and v_prediction; given {prediction!r}.")
        self.scheduler = scheduler
        self.settings = settings or ObjectiveSettings()
        self._velocity = prediction == "v_prediction"
        for name in ("learned_range", "snr_loss"):
            if getattr(self.settings, name) and self._velocity:
                raise ConfigError(f"{name} is for networks that predict noise; this one is of the type v_prediction.")
        self._tables = None
        if self.settings.learned_range:
            if scheduler.config["rescale_betas_zero_snr"]:
                raise ConfigError("learned_range needs a last noise level with some signal; this schedule has none.")
            self._tables = PosteriorTables(scheduler.betas)

    def check_channels(self, output: int, latent: int) -> None:
        """Whether a network with so many output channels can be trained so, for latents of `latent` channels.

        Raises:
            ConfigError: the variance is to be learned and the network gives none.
        """
        if self.settings.learned_range and output != 2 * latent:
            raise ConfigError(
                f"learned_range needs a network of {2 * latent} output channels, {latent} of them for the variance; "
                f"this one has {output}. Leave learned_range out."
            )

    def draw(self, latents: Tensor, generator: torch.Generator) -> Drawn:
        """One noise level a batch item, and noise, both drawn on the CPU."""
        last = self.scheduler.config["num_train_timesteps"]
        timesteps = draw_timesteps(self.settings, len(latents), last, generator).to(latents.device)
        return self.show(latents, draw_noise(self.settings, latents.shape, generator).to(latents), timesteps)

    def show(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Drawn:
        """What the network is shown for a given noise and noise level, as in measuring at fixed ones."""
        noisy = (self._tables or self.scheduler).add_noise(latents, noise, timesteps)  # type: ignore[arg-type]
        target = self.scheduler.get_velocity(latents, noise, timesteps) if self._velocity else noise  # type: ignore[arg-type]
        return Drawn(latents, timesteps, noisy, target)

    def loss(self, drawn: Drawn, output: Tensor, weights: Tensor | None = None) -> dict[str, Tensor]:
        """The loss of what a network said to `drawn.noisy`, as `loss`, and its terms where it has several.

        Channels after those of the latents are the variance, which only `learned_range` looks at. With `weights [b]`
        samples do not count alike.

        Raises:
            ConfigError: the variance is to be learned and the network gives none.
        """
        channels = drawn.target.shape[1]
        prediction = output[:, :channels].float()
        error = self._error(drawn, prediction, weights)
        if self._tables is None:
            return {"loss": error}
        self.check_channels(output.shape[1], channels)
        bound = self._tables.variational_bound(
            drawn.clean, drawn.noisy, drawn.timesteps, prediction, output[:, channels:]
        )
        bound = (bound if weights is None else bound * weights).mean()
        return {"loss": error + bound, "mse": error, "vb": bound}

    def _error(self, drawn: Drawn, prediction: Tensor, weights: Tensor | None) -> Tensor:
        settings = self.settings
        if weights is None and not (settings.snr_loss or settings.min_snr or settings.motion_sub_loss):
            return F.mse_loss(prediction, drawn.target)
        difference = prediction - drawn.target
        errors = difference.square().flatten(1).mean(1)
        if settings.motion_sub_loss and self._frames(difference) > 2:
            between_frames = difference.diff(dim=2).square().flatten(1).mean(1)
            errors = (1 - settings.motion_sub_loss) * errors + settings.motion_sub_loss * between_frames
        if settings.snr_loss:
            # An error of the noise is one of the clean latents, times 1 / SNR.
            clean_errors = errors / self.signal_to_noise(drawn.timesteps)
            errors = torch.where(drawn.timesteps > _SNR_LOSS_UP_TO, errors, clean_errors)
        if settings.min_snr is not None:
            errors = errors * self.min_snr_weights(drawn.timesteps, settings.min_snr)
        return (errors if weights is None else errors * weights).mean()

    def _frames(self, difference: Tensor) -> int:
        if difference.ndim != 5:
            raise ConfigError("motion_sub_loss is of differences between frames, and pictures have none; leave it out.")
        return difference.shape[2]

    def signal_to_noise(self, timesteps: Tensor) -> Tensor:
        """Of the variances, `[b]`."""
        alphas = self.scheduler.alphas_cumprod.to(timesteps.device)[timesteps]
        return (alphas.sqrt() / (1 - alphas).sqrt()).square()

    def min_snr_weights(self, timesteps: Tensor, gamma: float) -> Tensor:
        """How much noise levels count, `[b]`: min(SNR, gamma) / SNR for noise, / (SNR + 1) for velocity."""
        ratio = self.signal_to_noise(timesteps)
        if self._velocity:
            return ratio.clamp(max=gamma) / (ratio + 1)
        return (gamma / ratio).clamp(max=1)  # 1 also where there is no signal at all
