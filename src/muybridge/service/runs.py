"""Run files: whole recipes of training as YAML, checked before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from muybridge.errors import ConfigError
from muybridge.files.validation import YAML_ERRORS, describe_validation, yaml_problem

DebugTool = Literal["anomaly", "attention", "gradients", "memory", "probe", "profile"]


def _yaml_no(value: object) -> object:
    return "no" if value is False else value  # what YAML makes of the word no


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class StageSettings(_Strict):
    """What every stage has: the trainer's settings, the size of a batch, and how many processes share the work."""

    needs: ClassVar[tuple[str, ...]] = ()
    """Methods of the stages it builds on."""
    parts: ClassVar[tuple[str, ...]]
    """Parts of the pipeline it hands out."""

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
    max_gradient_norm: float = Field(default=1.0, gt=0)
    checkpoint_seconds: float = Field(default=120.0, gt=0)
    log_every: int = Field(default=20, ge=1)
    mixed_precision: Annotated[Literal["auto", "bf16", "no"], BeforeValidator(_yaml_no)] = "auto"
    """auto is bf16 where that is faster than float32, and no elsewhere; the run records which of the two it became."""
    # What only looks on is no part of the recipe, so it is not recorded with it.
    debug: tuple[DebugTool, ...] = Field(default=(), exclude=True)
    """Tools that watch the training; their reports go to the folder `debug` of the stage."""
    debug_steps: int = Field(default=10, ge=1, exclude=True)
    """How many steps they look at, from where the run starts or goes on; the anomaly guard looks at all."""


class VAEStage(StageSettings):
    """Train the image VAE on stills."""

    parts: ClassVar[tuple[str, ...]] = ("vae",)

    method: Literal["vae"]


class TextStage(StageSettings):
    """Train the text encoder against pictures, as CLIP is."""

    parts: ClassVar[tuple[str, ...]] = ("text_encoder",)

    method: Literal["text"]


class ImageStage(StageSettings):
    """Train the U-Net and the text encoder on stills."""

    needs: ClassVar[tuple[str, ...]] = ("vae", "text")
    parts: ClassVar[tuple[str, ...]] = ("unet", "text_encoder")

    method: Literal["image"]
    timestep_shift: float = Field(default=2.0, ge=1)
    caption_dropout: float = Field(default=0.1, ge=0, lt=1)


class MotionSettings(_Strict):
    """The motion modules to train: a registered kind and its settings."""

    kind: str = "temporal"
    config: dict[str, Any] = Field(default_factory=dict)


class MotionStage(StageSettings):
    """Train motion modules on clips; everything else is frozen."""

    needs: ClassVar[tuple[str, ...]] = ("vae", "image")
    parts: ClassVar[tuple[str, ...]] = ("motion_adapter",)

    method: Literal["motion"]
    num_frames: int = Field(default=8, ge=1, le=16)
    whole_clip_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the batches with all 16 frames of fewer clips."""
    timestep_shift: float = Field(default=3.0, ge=1)
    caption_dropout: float = Field(default=0.1, ge=0, lt=1)
    motion: MotionSettings = MotionSettings()


class MotionAdapterStage(StageSettings):
    """Train motion modules of any kind on a model that exists, whose own are taken out; all else of it is frozen."""

    parts: ClassVar[tuple[str, ...]] = ("motion_adapter",)

    method: Literal["motion-adapter"]
    base: str = "demo/animatediff"
    """The model: a shipped one, a folder, or a hub id, with a U-Net or a transformer."""
    num_frames: int | None = Field(default=None, ge=1, le=16)
    """Frames of a clip at a time, for a U-Net; 8 if not given. A transformer sees whole clips."""
    whole_clip_share: float | None = Field(default=None, ge=0, le=1)
    """Share of the batches with all 16 frames of fewer clips, for a U-Net; a quarter if not given."""
    timestep_shift: float = Field(default=3.0, ge=1)
    caption_dropout: float = Field(default=0.1, ge=0, lt=1)
    motion: MotionSettings = MotionSettings()


class SparseControlStage(StageSettings):
    """Train a SparseCtrl for keyframes beside a model that exists, which stays as it is with its motion modules."""

    parts: ClassVar[tuple[str, ...]] = ("keyframe_control",)

    method: Literal["sparse-control"]
    base: str = "demo/animatediff"
    """The model: a shipped one, a folder, or a hub id, with a U-Net."""
    num_frames: int = Field(default=8, ge=1, le=16)
    whole_clip_share: float = Field(default=0.25, ge=0, le=1)
    """Share of the batches with all 16 frames of fewer clips."""
    timestep_shift: float = Field(default=3.0, ge=1)
    caption_dropout: float = Field(default=0.1, ge=0, lt=1)
    motion: dict[str, Any] = Field(default_factory=dict)
    """Settings of its own motion modules, of the kind `temporal`; one attention each unless they say otherwise."""
    motion_levels: int | None = Field(default=None, ge=1)
    """Levels of the down path with motion modules, from the finest on; all if not given."""


class LoraStage(StageSettings):
    """Train a LoRA for a model that exists, which stays as it is."""

    parts: ClassVar[tuple[str, ...]] = ("lora",)

    method: Literal["lora"]
    base: str = "demo/animatediff"
    """The model: a shipped one, a folder, or a hub id, with a U-Net or a transformer."""
    taught: str | None = None
    """What all clips show and no caption says: a motion or a colour of the toy world; by default clips are of all
    kinds, and captions say what they show."""
    layers: str = "spatial"
    """Which layers learn: motion, spatial, linear, or a regular expression; see `training.lora.LORA_LAYERS`."""
    rank: int = Field(default=16, ge=1)
    alpha: float | None = Field(default=None, gt=0)
    """The change is scaled by alpha / rank; by default half the rank."""
    dialect: Literal["diffusers", "kohya"] = "diffusers"
    """Names in the file, and so the programs that read it besides this one."""
    num_frames: int | None = Field(default=None, ge=1, le=16)
    """Frames of a clip at a time, for a U-Net; 8 if not given. A transformer sees whole clips."""
    timestep_shift: float = Field(default=3.0, ge=1)
    caption_dropout: float = Field(default=0.1, ge=0, lt=1)


class VideoVAEStage(StageSettings):
    """Train the video VAE, which begins as the image VAE, on clips and stills."""

    needs: ClassVar[tuple[str, ...]] = ("vae",)
    parts: ClassVar[tuple[str, ...]] = ("vae",)

    method: Literal["video-vae"]


class VideoTextStage(StageSettings):
    """Train a T5 text encoder against pictures, as CLIP is; the size of a batch counts four pictures each."""

    parts: ClassVar[tuple[str, ...]] = ("text_encoder",)

    method: Literal["video-text"]


class VideoStage(StageSettings):
    """Train the video transformer, its motion modules and the text encoder, on stills and clips.

    The size of a batch counts clips; a batch of stills has four times as many.
    """

    needs: ClassVar[tuple[str, ...]] = ("video-vae", "video-text")
    parts: ClassVar[tuple[str, ...]] = ("transformer", "text_encoder")

    method: Literal["video"]
    first_still_share: float = Field(default=0.85, ge=0, le=1)
    """Share of batches with stills at the beginning; from there it changes evenly."""
    last_still_share: float = Field(default=0.25, ge=0, le=1)
    timestep_shift: float = Field(default=2.0, gt=0)
    """Above 1 high noise is drawn more often, below 1 low noise."""
    caption_dropout: float = Field(default=0.1, ge=0, lt=1)
    oversample: dict[str, Annotated[int, Field(strict=True)]] = Field(default_factory=dict)
    """Shapes, colours and motions that come more often than others, and how many times as often."""


class VideoRefineStage(VideoStage):
    """Go on from the video stage with a rate, a share of stills and noise levels of its own."""

    needs: ClassVar[tuple[str, ...]] = ("video-vae", "video")

    method: Literal["video-refine"]  # type: ignore[assignment]


class VideoDecoderStage(StageSettings):
    """Train the decoder of the video VAE on latents as the video transformer makes them; all else is frozen.

    The size of a batch counts clips; a batch of stills has four times as many.
    """

    needs: ClassVar[tuple[str, ...]] = ("video-vae", "video-refine")
    parts: ClassVar[tuple[str, ...]] = ("vae",)

    method: Literal["video-decoder"]
    still_share: float = Field(default=0.5, ge=0, le=1)
    """Share of batches with stills."""
    oversample: dict[str, Annotated[int, Field(strict=True)]] = Field(default_factory=dict)
    """Shapes, colours and motions that come more often than others, and how many times as often."""
    guidance: float = Field(default=4.0, ge=0)
    most_noise: float = Field(default=0.6, gt=0, le=1)
    """The highest noise level that the transformer starts from, as a share of the training timesteps."""
    denoising_steps: int = Field(default=3, ge=1)


Stage = Annotated[
    VAEStage
    | TextStage
    | ImageStage
    | MotionStage
    | MotionAdapterStage
    | SparseControlStage
    | LoraStage
    | VideoVAEStage
    | VideoTextStage
    | VideoStage
    | VideoRefineStage
    | VideoDecoderStage,
    Field(discriminator="method"),
]

Family = Literal["animatediff", "easyanimate"]
_LAST_STAGES: dict[str, Family | None] = {
    "motion": "animatediff",
    "video": "easyanimate",
    "video-refine": "easyanimate",
    "video-decoder": "easyanimate",
    "motion-adapter": None,
    "sparse-control": None,
    "lora": None,
}
"""The stage that ends the training of a family's model; None where the model that it builds on decides."""


class TrainingRun(_Strict):
    """A run file: stages trained one after the other, and the defaults of the model they make."""

    name: str = Field(pattern=r"^[\w-]+$")
    data: Literal["demo-world"]
    stages: list[Stage] = Field(min_length=1)
    default_steps: int = Field(default=20, ge=1)
    default_guidance: float = Field(default=4.0, ge=0)

    @property
    def family(self) -> Family | None:
        """The kind of model that the stages make; None for that of the model they build on."""
        return next(_LAST_STAGES[stage.method] for stage in self.stages if stage.method in _LAST_STAGES)


def load_run(path: Path, overrides: list[str] | None = None) -> TrainingRun:
    """Read and check a run file.

    Args:
        path: the YAML file.
        overrides: `a.b=value`, applied in order; a stage is named by its method (`motion.steps=10`). In a run of one
            stage its settings may be named alone (`steps=10`, `motion.kind=temporal`).

    Raises:
        ConfigError: no such file, not YAML, an override that names nothing, settings that do not exist, or stages that
            do not make a model together.
    """
    if not path.is_file():
        raise ConfigError(f"There is no run file {path}.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except YAML_ERRORS as error:
        raise ConfigError(f"{path} is not a YAML file: {yaml_problem(error)}.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold settings, as 'name: value' lines.")
    for override in overrides or []:
        _apply_override(values, override)
    try:
        run = TrainingRun.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path}: {describe_validation(error, TrainingRun)}") from error
    _check_stages(run, path)
    return run


def _check_stages(run: TrainingRun, path: Path) -> None:
    before: list[str] = []
    for stage in run.stages:
        if stage.method in before:
            raise ConfigError(f"{path} has two stages {stage.method!r}; a run has each of them once.")
        if missing := [need for need in stage.needs if need not in before]:
            raise ConfigError(f"{path}: stage {stage.method!r} needs the stages {', '.join(missing)} before it.")
        before.append(stage.method)
    defaults = sorted(run.model_fields_set & {"default_steps", "default_guidance"})
    if before == ["lora"] and defaults:
        raise ConfigError(f"{path} makes a LoRA, which has no {' and no '.join(defaults)} of its own; leave them out.")
    built_on = {need for stage in run.stages for need in stage.needs}
    last = [method for method in before if method in _LAST_STAGES and method not in built_on]
    if not last:
        raise ConfigError(f"{path} makes no video model: it has no stage {' or '.join(map(repr, _LAST_STAGES))}.")
    if len(last) > 1:
        raise ConfigError(f"{path} makes two models, by its stages {' and '.join(last)}; write a run file for each.")
    if idle := [method for method in before if method not in _needed(run, last[0])]:
        raise ConfigError(f"{path}: nothing comes of the stages {', '.join(idle)}, as {last[0]!r} does not need them.")


def _needed(run: TrainingRun, method: str) -> set[str]:
    stage = next(stage for stage in run.stages if stage.method == method)
    return {method}.union(*(_needed(run, need) for need in stage.needs))


def _apply_override(values: dict[str, Any], override: str) -> None:
    name, separator, text = override.partition("=")
    *path, last = name.split(".")
    if not separator or not all((*path, last)):
        raise ConfigError(f"--set takes NAME=VALUE, as in motion.steps=10; given {override!r}.")
    try:
        value = yaml.safe_load(text)
    except YAML_ERRORS as error:
        raise ConfigError(f"--set {override!r}: {text!r} is not a value that YAML knows.") from error
    found = values.get("stages")
    stages = {str(s.get("method")): s for s in found if isinstance(s, dict)} if isinstance(found, list) else {}
    target: Any = values
    if path and path[0] in stages:
        target, path = stages[path[0]], path[1:]
    elif len(stages) == 1 and name.split(".")[0] not in TrainingRun.model_fields:
        (target,) = stages.values()
    elif path:
        target = None  # outside the stages there are only plain values
    for part in path:
        target = target.setdefault(part, {}) if isinstance(target, dict) else None
    if not isinstance(target, dict):
        raise ConfigError(f"--set {override!r} names nothing in the run file. Stages: {', '.join(stages)}.")
    target[last] = value
