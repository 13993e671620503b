"""What an image model predicts, and whether it starts from pure noise: said beside its weights, or by the user."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from muybridge.errors import CheckpointError, ConfigError
from muybridge.types import SettingsDict, SettingsView

PREDICTIONS: dict[str, tuple[str, ...]] = {
    "epsilon": ("epsilon", "eps", "noise"),
    "v_prediction": ("v", "v_prediction", "v-prediction", "v_pred", "v-pred", "vpred", "velocity"),
    "sample": ("sample", "x0", "x_0"),
}
"""What a network may predict, in diffusers' words, and how people write it: the noise in the latents, its velocity, or
the latents without noise."""
VELOCITY_MARK, ZERO_SNR_MARK = "v_pred", "ztsnr"
"""Tensors without meaning, whose names in a single file say that its model predicts velocity and starts from pure
noise."""
_OTHER_NOISE_LEVELS = ("edm_mean", "edm_std", "edm_vpred.sigma_max")
_HEADER_TYPE = "modelspec.prediction_type"
_HEADER_VELOCITY = ("ss_v_parameterization", VELOCITY_MARK)
_HEADER_ZERO_SNR = ("ss_zero_terminal_snr", "modelspec.zero_terminal_snr", "zero_terminal_snr", ZERO_SNR_MARK)


@dataclass(frozen=True)
class Prediction:
    """What a model was trained to give.

    Attributes:
        type: one of `PREDICTIONS`.
        zero_snr: whether the last of its noise levels is noise alone, without a trace of the picture.
        said_by: what says so.
    """

    type: str = "epsilon"
    zero_snr: bool = False
    said_by: str = "nothing, so as most models"

    def settings(self) -> SettingsDict:
        """Settings of a scheduler."""
        return {"prediction_type": self.type, "rescale_betas_zero_snr": self.zero_snr}

    def overridden(self, asked: str | None, source: str) -> Prediction:
        """The same, or what the user says instead, where that is another.

        Args:
            asked: one of the spellings in `PREDICTIONS`, or None.
            source: the model, for messages.

        Raises:
            ConfigError: an unknown spelling.

        Warns:
            UserWarning: the model says something else.
        """
        kind = self.type if asked is None else prediction_type(asked)
        if kind == self.type:
            return self
        if self.said_by != Prediction.said_by:
            warnings.warn(
                f"{source} says that it predicts {self.type} ({self.said_by}), and is run as predicting {kind}.",
                stacklevel=2,
            )
        # Starting from noise alone is for what is more than noise to predict.
        return replace(self, type=kind, zero_snr=self.zero_snr and kind != "epsilon", said_by="what was asked for")


def prediction_type(text: str) -> str:
    """What a user means, in diffusers' words.

    Raises:
        ConfigError: an unknown spelling; lists those there are.
    """
    for kind, spellings in PREDICTIONS.items():
        if text.strip().lower() in spellings:
            return kind
    known = "; ".join(
        f"{kind} (or {', '.join(s for s in spellings if s != kind)})" for kind, spellings in PREDICTIONS.items()
    )
    raise ConfigError(f"Unknown prediction {text!r}. Known: {known}.")


def prediction_of_file(
    state: Mapping[str, Tensor], metadata: Mapping[str, str], source: str, asked: str | None = None
) -> Prediction:
    """What a single file says of its model: by marks among its keys, or in the header of a safetensors file.

    Marks count before the header. What trainers write is understood: `modelspec.prediction_type`,
    `ss_v_parameterization`, `ss_zero_terminal_snr`.

    Args:
        state: all keys of the file.
        metadata: of its header.
        source: its name, for messages.
        asked: what the user says instead.

    Raises:
        CheckpointError: noise levels of another kind, or a prediction that is not known here and nothing is `asked`.
        ConfigError: `asked` is unknown.

    Warns:
        UserWarning: what is said contradicts itself, or `asked`.
    """
    if marks := [key for key in _OTHER_NOISE_LEVELS if key in state]:
        raise CheckpointError(
            f"{source} was trained on the noise levels of EDM ({marks[0]} is among its keys), which no motion module "
            "was trained on; not supported. Use a model that predicts epsilon or velocity."
        )
    zero_snr = ZERO_SNR_MARK in state or any(_is_set(metadata.get(name)) for name in _HEADER_ZERO_SNR)
    in_header = _of_header(metadata, source, asked is None)
    found = Prediction(zero_snr=zero_snr) if in_header is None else replace(in_header, zero_snr=zero_snr)
    if VELOCITY_MARK in state:
        if in_header is not None and in_header.type != "v_prediction" and asked is None:
            warnings.warn(
                f"{source} says two things: its key {VELOCITY_MARK} that it predicts velocity, its {in_header.said_by} "
                f"that it predicts {in_header.type}. The key is believed; say it with prediction, or --prediction.",
                stacklevel=2,
            )
        found = Prediction("v_prediction", zero_snr, f"key {VELOCITY_MARK}")
    return _possible(found.overridden(asked, source), source)


def without_marks(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a single file alone."""
    return {key: value for key, value in state.items() if key not in (VELOCITY_MARK, ZERO_SNR_MARK)}


def prediction_of_scheduler(config: SettingsView, source: str, asked: str | None = None) -> Prediction:
    """What the scheduler in the folder of a model says.

    Raises:
        ConfigError: `asked` is unknown.

    Warns:
        UserWarning: it contradicts itself, or `asked`.
    """
    found = Prediction(
        config.get("prediction_type", "epsilon"), bool(config.get("rescale_betas_zero_snr")), "its scheduler's config"
    )
    return _possible(found.overridden(asked, source), source)


def _of_header(metadata: Mapping[str, str], source: str, is_needed: bool) -> Prediction | None:
    if text := metadata.get(_HEADER_TYPE):
        try:
            return Prediction(prediction_type(text), said_by=f"header entry {_HEADER_TYPE}")
        except ConfigError as error:
            if not is_needed:
                return None
            raise CheckpointError(
                f"{source} says in its header that it predicts {text!r}, which is not known here. Say what it predicts "
                f"with prediction, or --prediction: {', '.join(PREDICTIONS)}."
            ) from error
    for name in _HEADER_VELOCITY:
        if (text := metadata.get(name)) is not None:
            return Prediction("v_prediction" if _is_set(text) else "epsilon", said_by=f"header entry {name}")
    return None


def _is_set(text: str | None) -> bool:
    return text is not None and text.strip().lower() in ("true", "1", "yes", "")  # a mark has no value


def _possible(found: Prediction, source: str) -> Prediction:
    if not (found.zero_snr and found.type == "epsilon"):
        return found
    # From noise alone, the noise in it says nothing of the picture: dividing by a signal of zero.
    warnings.warn(
        f"{source} is said to start from pure noise and to predict that noise, which cannot both be. It is run as "
        "predicting epsilon from the usual noise levels; if it predicts velocity, say so with prediction, or "
        "--prediction v.",
        stacklevel=2,
    )
    return replace(found, zero_snr=False)
