"""What is to be loaded or planned, located and told from what contradicts itself; nothing of it is read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from muybridge.checkpoints import locate_model
from muybridge.checkpoints.prediction import prediction_type
from muybridge.errors import CheckpointError, ConfigError
from muybridge.pipelines.families import family_of
from muybridge.pipelines.family import Wishes
from muybridge.request import ModelChoice
from muybridge.weights.files import WEIGHT_SUFFIXES


def wishes_of(
    model: str | os.PathLike[str] | ModelChoice, controls: Sequence[str] = (), profile: str | None = None
) -> Wishes:
    """Find a model, and the family that it is of.

    Args:
        model: its name, or with it all that is put into it.
        controls: networks that come with the conditions of a video.
        profile: the numeric profile of the video.

    Raises:
        CheckpointError: no such model, or a family that is not known.
        ConfigError: parts of the choice that do not go together.
    """
    if not isinstance(model, (str, ModelChoice)) and not Path(model).exists():
        locate_model(model)  # which refuses it: a `Path` is on this machine
    choice = model if isinstance(model, ModelChoice) else ModelChoice(model=os.fspath(model))
    if choice.motion_variant is not None and choice.motion_adapter is None:
        raise ConfigError("motion_variant says what a motion adapter is; give motion_adapter too.")
    asked = None if choice.prediction is None else prediction_type(choice.prediction)
    path = Path(choice.model)
    if not path.exists() and path.suffix.lower() in WEIGHT_SUFFIXES:
        raise CheckpointError(f"There is no weight file {path}.")
    if choice.parts_from is not None and not path.is_file():
        raise ConfigError(f"parts_from goes with a single file; {choice.model} is a whole model. Leave it out.")
    place = path if path.is_file() else locate_model(choice.model)
    family = family_of(place, choice.motion_adapter is not None)
    return Wishes(family, choice, place, asked, tuple(controls), profile)
