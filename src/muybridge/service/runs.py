"""Run files: whole recipes of training as YAML, checked before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from muybridge.errors import ConfigError
from muybridge.service.requests import describe_validation


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StageSettings(_Strict):
    """What every stage has: the trainer's settings, the size of a batch, and how many processes share the work."""

    steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    """Samples a process and step."""
    processes: int = Field(default=1, ge=1)
    seed: int = Field(default=0, ge=0)
    learning_rate: float = Field(default=2e-3, gt=0)
    other_learning_rate: float = Field(default=1.4e-3, gt=0)
    warmup_steps: int = Field(default=100, ge=0)
    decay_from: float = Field(default=0.5, ge=0, le=1)
    ema_decay: float = Field(default=0.998, ge=0, lt=1)
    checkpoint_seconds: float = Field(default=120.0, gt=0)
    log_every: int = Field(default=20, ge=1)
    mixed_precision: Literal["bf16", "no"] = "bf16"


class VAEStage(StageSettings):
    """Train the image VAE on stills."""

    method: Literal["vae"]


class TextStage(StageSettings):
    """Train the text encoder against pictures, as CLIP is."""

    method: Literal["text"]


class ImageStage(StageSettings):
    """Train the U-Net and the text encoder on stills."""

    method: Literal["image"]
    timestep_shift: float = Field(default=2.0, ge=1)
    caption_dropout: float = Field(default=0.1, ge=0, lt=1)


class MotionSettings(_Strict):
    """The motion modules to train: a registered kind and its settings."""

    kind: str = "temporal"
    config: dict[str, Any] = Field(default_factory=dict)


class MotionStage(StageSettings):
    """Train motion modules on clips; everything else is frozen."""

    method: Literal["motion"]
    num_frames: int = Field(default=8, ge=1, le=16)
    timestep_shift: float = Field(default=3.0, ge=1)
    caption_dropout: float = Field(default=0.1, ge=0, lt=1)
    motion: MotionSettings = MotionSettings()


Stage = Annotated[VAEStage | TextStage | ImageStage | MotionStage, Field(discriminator="method")]


class TrainingRun(_Strict):
    """A run file: stages trained one after the other, and the defaults of the model they make."""

    name: str = Field(pattern=r"^[\w-]+$")
    data: Literal["demo-world"]
    stages: list[Stage] = Field(min_length=1)
    default_steps: int = Field(default=20, ge=1)
    default_guidance: float = Field(default=4.0, ge=0)


def load_run(path: Path, overrides: list[str] | None = None) -> TrainingRun:
    """Read and check a run file.

    Args:
        path: the YAML file.
        overrides: `a.b=value`, applied in order; a stage is named by its method (`motion.steps=10`).

    Raises:
        ConfigError: no such file, not YAML, an override that names nothing, or settings that do not exist.
    """
    if not path.is_file():
        raise ConfigError(f"There is no run file {path}.")
    try:
        values = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path} is not a YAML file ({' '.join(str(error).split())[:200]}).") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold settings, as 'name: value' lines.")
    for override in overrides or []:
        _apply_override(values, override)
    try:
        return TrainingRun(**values)
    except ValidationError as error:
        raise ConfigError(f"{path}: {describe_validation(error)}") from error


def _apply_override(values: dict[str, Any], override: str) -> None:
    name, separator, text = override.partition("=")
    if not separator:
        raise ConfigError(f"--set takes NAME=VALUE; given {override!r}.")
    *path, last = name.split(".")
    target: Any = values
    stages = {stage.get("method"): stage for stage in values.get("stages", []) if isinstance(stage, dict)}
    if path and path[0] in stages:
        target, path = stages[path[0]], path[1:]
    for part in path:
        target = target.setdefault(part, {}) if isinstance(target, dict) else None
    if not isinstance(target, dict):
        raise ConfigError(f"--set {override!r} names nothing in the run file. Stages: {', '.join(map(str, stages))}.")
    target[last] = yaml.safe_load(text)
