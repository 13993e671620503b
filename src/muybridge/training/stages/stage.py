"""What a stage of a training run is: settings that a run file gives, the work they describe, and what it makes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from muybridge.errors import ConfigError
from muybridge.training.config import (
    SCHEDULE_SHORT_FORMS,
    EMADevice,
    Recomputation,
    Sharding,
    given_twice,
    with_schedule,
)
from muybridge.training.optimizers import OptimizerSettings
from muybridge.training.schedules import ScheduleSettings
from muybridge.training.settings import Settings
from muybridge.types import SettingsDict

if TYPE_CHECKING:
    from torch import nn

    from muybridge.pipelines import VideoPipeline
    from muybridge.training.data import BatchSource, TrainingData

_LOOKS, _APART, _FEWEST = 10, 200, 100
"""Where nobody says: how many looks there are, how many steps apart at least, and in runs of how many."""
DebugTool = Literal["anomaly", "attention", "gradients", "memory", "probe", "profile"]


def _yaml_none(value: object) -> object:
    return "none" if value is None or value is False else value  # what YAML makes of the words null and no


def _yaml_no(value: object) -> object:
    return "no" if value is False else value  # what YAML makes of the word no


class RunSettings(Settings):
    """What a run file says about what the run makes, whatever its stages are."""

    name: str = Field(pattern=r"^[\w-]+$")
    default_steps: int = Field(default=20, ge=1)
    default_guidance: float = Field(default=4.0, ge=0)
    model_dtype: Literal["float16", "float32"] = "float16"
    """Of the weights in the folder of the model. float16 takes half the room, and videos differ by a shade or two of
    256 from those that the training made; float32 makes the same."""

    @property
    def given_defaults(self) -> dict[str, float]:
        """Those defaults of the model that the file itself sets."""
        names = sorted(self.model_fields_set & {"default_steps", "default_guidance"})
        return {name: getattr(self, name) for name in names}


class MotionSettings(Settings):
    """The motion modules to train: a registered kind and its settings."""

    kind: str = "temporal"
    config: SettingsDict = Field(default_factory=dict)


class EvaluationSettings(Settings):
    """What is measured while a stage is trained; it changes nothing of that."""

    every: Annotated[int, Field(ge=1)] | Literal["auto"] | None = "auto"
    """Steps between two looks; null for none. auto is a tenth of the steps and 200 at least, so that looks take a small
    part of the time; a run of fewer than 100 has none."""
    prompts: tuple[str, ...] = ()
    """Of samples: each look makes a sheet of them."""
    seed: int = Field(default=0, ge=0)
    """Of the samples' noise."""
    batches: int = Field(default=1, ge=1)
    """Of held-out clips (`data.held_out`), and as many of others, on which the loss at fixed noise is measured."""
    noises: int = Field(default=1, ge=1)
    """For each of them."""

    def interval(self, steps: int) -> int | None:
        """Steps between two looks in a run of so many; None where there are none."""
        if self.every != "auto":
            return self.every
        return max(_APART, steps // _LOOKS) if steps >= _FEWEST else None


class _Twice(dict[str, str]):
    """Stands for a schedule of which a part is also given beside it."""


class SavablePart(Protocol):
    """A model of diffusers or transformers."""

    def save_pretrained(self, save_directory: Path, /) -> Any:
        """Write a folder."""


def as_they_are(clips: BatchSource) -> BatchSource:
    """The same batches."""
    return clips


@dataclass(frozen=True)
class StageWork:
    """A stage made ready.

    Attributes:
        method: what the trainer trains.
        batches: on what.
        trained_parts: gives the parts of the pipeline by name, with the weights that `method` holds now.
        data_digest: of what the batches are made of, if there is one; a run does not go on with another.
        pipeline: of the networks that are trained, to make samples with; None where there is none.
        seen: makes of clips as they are, as `data` has them, what the method is trained on; held-out clips go through
            it before anything is measured on them. By default nothing.
    """

    method: nn.Module
    batches: BatchSource
    trained_parts: Callable[[], dict[str, SavablePart]]
    data_digest: str | None = None
    pipeline: VideoPipeline | None = None
    seen: Callable[[BatchSource], BatchSource] = as_they_are


@dataclass(frozen=True)
class BaseChoice:
    """A model that makes videos.

    Attributes:
        base: a shipped one, a folder, or a hub id.
        motion_adapter: in place of its own.
    """

    base: str
    motion_adapter: str | None = None


class Stage(Settings, ABC):
    """What every stage has: the trainer's settings, the size of a batch, and how many processes share the work.

    A stage is a subclass with a `method` of its own, decorated with `register_stage`. What it imports to work, it
    imports in its methods, so that a run file is checked before anything slow is loaded.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    """Methods of the stages it builds on."""
    parts: ClassVar[tuple[str, ...]]
    """Parts of the pipeline it hands out."""
    short_forms: ClassVar[tuple[str, ...]] = SCHEDULE_SHORT_FORMS
    """Settings that are read as part of a block."""
    knows_what_was: ClassVar[bool] = False
    """Whether its method can still say what the model said before."""

    method: Any
    """What run files call the stage; each narrows it down to its own name."""
    steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    """Samples a process and step."""
    processes: int = Field(default=1, ge=1)
    seed: int = Field(default=0, ge=0)
    learning_rate: float = Field(default=2e-3, gt=0)
    other_learning_rate: float = Field(default=1.4e-3, gt=0)
    optimizer: OptimizerSettings = OptimizerSettings()
    """A block of settings, or the name alone: muon, adamw, adamw8bit, prodigy or schedule-free."""
    schedule: ScheduleSettings = ScheduleSettings()
    """A block of settings, or the name alone: plateau, constant, linear or cosine. `warmup_steps` and `decay_from` may
    also stand beside it."""
    accumulate: int = Field(default=1, ge=1)
    """Batches a process and step: gradients are those of a batch so many times as large."""
    max_gradient_norm: float = Field(default=1.0, gt=0)
    ema_decay: float = Field(default=0.998, ge=0, lt=1)
    """Of the average of the weights, which is what comes of the stage; 0 for none."""
    ema_device: EMADevice = "training"
    """cpu keeps the average out of the memory of the device that trains."""
    mixed_precision: Annotated[Literal["auto", "bf16", "fp16", "no"], BeforeValidator(_yaml_no)] = "auto"
    """auto is bf16 where that is faster than float32, and no elsewhere; the run records which of the two it became."""
    gradient_checkpointing: Annotated[Recomputation, BeforeValidator(_yaml_none)] = "none"
    """Memory against time: blocks computes the repeated blocks again in the backward pass; selective does too, but
    keeps their products of matrices and attention."""
    compile: bool = False
    """Compile the repeated blocks, which needs a C++ compiler where a CPU trains."""
    sharding: Annotated[Sharding, BeforeValidator(_yaml_none)] = "none"
    """What several processes share out, for what does not fit one: fsdp2 for weights, gradients and the optimizer's
    state, deepspeed for the latter two (ZeRO, stage 2)."""
    checkpoint_seconds: float = Field(default=120.0, gt=0)
    keep_checkpoints: int = Field(default=2, ge=1)
    log_every: int = Field(default=20, ge=1)
    # Who is told of it is no part of the recipe, so it is not recorded with it.
    trackers: tuple[str, ...] | None = Field(default=None, exclude=True)
    """Those of accelerate that the log goes to as well, such as tensorboard, wandb or trackio; by default tensorboard
    where it is installed."""
    # What only looks on is no part of the recipe, so it is not recorded with it.
    debug: tuple[DebugTool, ...] = Field(default=(), exclude=True)
    """Tools that watch the training; their reports go to the folder `debug` of the stage."""
    debug_steps: int = Field(default=10, ge=1, exclude=True)
    """How many steps they look at, from where the run starts or goes on; the anomaly guard looks at all."""
    evaluation: EvaluationSettings = Field(default=EvaluationSettings(), exclude=True)
    """Losses at fixed noise, samples, and sizes of updates, now and then."""

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, values: object) -> object:
        if not isinstance(values, Mapping):
            return values
        if twice := given_twice(values):
            # Said of the schedule, so that what else is wrong is said with it.
            rest = {name: value for name, value in values.items() if name not in SCHEDULE_SHORT_FORMS}
            return with_schedule({**rest, "schedule": _Twice(name=twice)})
        return with_schedule(values)

    @field_validator("schedule", mode="before")
    @classmethod
    def _said_once(cls, schedule: object) -> object:
        if isinstance(schedule, _Twice):
            raise ValueError(f"{schedule['name']} is given twice, also beside it; leave one of the two out")
        return schedule

    @field_validator("sharding")
    @classmethod
    def _shares_with_somebody(cls, sharding: Sharding, info: ValidationInfo) -> Sharding:
        if sharding != "none" and info.data.get("processes") == 1:
            raise ValueError(
                f"sharding: {sharding} shares out between processes what one would have all of; say processes: 2 or "
                "more, or leave sharding out"
            )
        return sharding

    @property
    def batches_a_step(self) -> int:
        """Batches that all processes together take in a step."""
        return self.processes * self.accumulate

    def built_on(self, output: Path) -> list[Path]:
        """Files and folders whose weights the stage begins with; a run does not go on once they have changed."""
        needed = [exported_part(output, need) for need in self.needs]
        base = getattr(self, "base", None)
        if isinstance(base, str):
            from muybridge.training.base_place import place_of_base

            needed.append(place_of_base(base))
        return needed

    def model_before(self) -> BaseChoice:
        """The model whose videos show what it can do before it is trained, for `data.prior`.

        Raises:
            ConfigError: there is none, or the stage cannot keep what it can do.
        """
        raise ConfigError(f"The stage {self.method!r} takes no data.prior; leave it out.")

    def check(self, data: TrainingData) -> None:
        """Find what only the networks and their data know to be wrong, before stages ahead are trained for nothing.

        Raises:
            ConfigError: settings that the networks or the clips do not have.
            CheckpointError: the model to build on is not there.
        """

    @abstractmethod
    def prepare(self, output: Path, data: TrainingData) -> StageWork:
        """Build what is trained, and its batches, from the parts of the stages before it, which lie in `output`."""


class LastStage(Stage):
    """A stage that a run may end with, as a model comes of it."""

    product: ClassVar[str] = "a model"
    """What comes of it, in words."""
    has_defaults: ClassVar[bool] = True
    """Whether that has default steps and guidance."""

    @abstractmethod
    def publish(self, run: RunSettings, output: Path) -> Path:
        """Make what the run hands out of the parts in `output`, and say where it is.

        Raises:
            OutputError: it cannot be written.
        """


class PipelineStage(LastStage):
    """A last stage of which a pipeline comes."""

    def publish(self, run: RunSettings, output: Path) -> Path:
        """Write the pipeline to `output/model`, in the precision that the run asks for."""
        import torch

        from muybridge.training.stages.publishing import publish_pipeline

        return publish_pipeline(self.pipeline(run, output), output / "model", getattr(torch, run.model_dtype))

    @abstractmethod
    def pipeline(self, run: RunSettings, output: Path) -> VideoPipeline:
        """Put the parts in `output` together."""


def exported_part(output: Path, method: str, part: str = "") -> Path:
    """Where a finished stage of the run in `output` leaves its parts."""
    return output / method / "exported" / part
