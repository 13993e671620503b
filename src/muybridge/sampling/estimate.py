"""What a step takes the finished video for: the noise that the network sees in the latents, taken out at once."""

from __future__ import annotations

import math

from torch import Tensor

from muybridge.sampling.schedulers import Scheduler

_LEAST_SIGNAL = 1e-6
"""Where there is nothing but noise, noise that is predicted says nothing of the video."""


def denoised_estimate(scheduler: Scheduler, timestep: Tensor, model_input: Tensor, prediction: Tensor) -> Tensor:
    """Latents without noise, float32, as the prediction of one step has them; the same formula for every solver.

    Args:
        scheduler: of the noise levels, which says what the network predicts.
        timestep: the noise level.
        model_input: what the network was shown, so after `scale_model_input`: there all solvers agree.
        prediction: what it said.
    """
    levels, config = scheduler.alphas_cumprod, scheduler.config
    level = min(max(round(float(timestep)), 0), len(levels) - 1)
    signal_power = float(levels[level])
    signal, noise = math.sqrt(max(signal_power, _LEAST_SIGNAL)), math.sqrt(1 - signal_power)
    given, predicted = model_input.detach().float(), prediction.detach().float()
    kind = config.get("prediction_type", "epsilon")
    if kind == "sample":
        estimate = predicted
    elif kind == "v_prediction":
        estimate = math.sqrt(signal_power) * given - noise * predicted
    else:
        estimate = (given - noise * predicted) / signal
    if config.get("clip_sample"):
        limit = float(config.get("clip_sample_range", 1.0))
        estimate = estimate.clamp(-limit, limit)
    return estimate
