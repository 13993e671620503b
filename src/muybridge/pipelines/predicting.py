"""What a loaded model predicts, where somebody says otherwise than its folder."""

from __future__ import annotations

from typing import Any

from muybridge.checkpoints.prediction import prediction_of_scheduler
from muybridge.pipelines.make import VideoPipeline
from muybridge.sampling.schedulers import with_settings


def predict_as_asked(pipeline: VideoPipeline, asked: str | None, source: str) -> None:
    """Give a pipeline a scheduler for what its model predicts.

    Args:
        pipeline: with the scheduler of its folder.
        asked: one of `checkpoints.prediction.PREDICTIONS`, or None for what the scheduler says.
        source: the model, for messages.

    Warns:
        UserWarning: the scheduler says something else.
    """
    scheduler: Any = pipeline.scheduler
    prediction = prediction_of_scheduler(scheduler.config, source, asked)
    own = {"prediction_type": "epsilon", "rescale_betas_zero_snr": False, **scheduler.config}
    if any(own[name] != value for name, value in prediction.settings().items()):
        pipeline.register_modules(scheduler=with_settings(scheduler, prediction.settings()))
