"""What a stage of a training run is: settings that a run file gives, the work they describe, and what it makes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol

from pydantic import BeforeValidator, Field

from muybridge.training.settings import Settings
from muybridge.types import SettingsDict

if TYPE_CHECKING:
    from torch import nn

    from muybridge.pipelines import VideoPipeline
    from muybridge.training.data import BatchSource, TrainingData

DebugTool = Literal["anomaly", "attention", "gradients", "memory", "probe", "profile"]


def _yaml_no(value: object) -> object:
    return "no" if value is False else value  # what YAML makes of the word no


class RunSettings(Settings):
    """What a run file says about what the run makes, whatever its stages are."""

    name: str = Field(pattern=r"^[\w-]+$")
    default_steps: int = Field(default=20, ge=1)
    default_guidance: float = Field(default=4.0, ge=0)

    @property
    def given_defaults(self) -> dict[str, float]:
        """Those defaults of the model that the file itself sets."""
        names = sorted(self.model_fields_set & {"default_steps", "default_guidance"})
        return {name: getattr(self, name) for name in names}


class MotionSettings(Settings):
    """The motion modules to train: a registered kind and its settings."""

    kind: str = "temporal"
    config: SettingsDict = Field(default_factory=dict)


class SavablePart(Protocol):
    """A model of diffusers or transformers."""

    def save_pretrained(self, save_directory: Path, /) -> Any:
        """Write a folder."""


@dataclass(frozen=True)
class StageWork:
    """A stage made ready.

    Attributes:
        method: what the trainer trains.
        batches: on what.
        trained_parts: gives the parts of the pipeline by name, with the weights that `method` holds now.
    """

    method: nn.Module
    batches: BatchSource
    trained_parts: Callable[[], dict[str, SavablePart]]


class Stage(Settings, ABC):
    """What every stage has: the trainer's settings, the size of a batch, and how many processes share the work.

    A stage is a subclass with a `method` of its own, decorated with `register_stage`. What it imports to work, it
    imports in its methods, so that a run file is checked before anything slow is loaded.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    """Methods of the stages it builds on."""
    parts: ClassVar[tuple[str, ...]]
    """Parts of the pipeline it hands out."""

    method: Any
    """What run files call the stage; each narrows it down to its own name."""
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
        """Write the pipeline in half precision to `output/model`."""
        from muybridge.training.stages.publishing import publish_pipeline

        return publish_pipeline(self.pipeline(run, output), output / "model")

    @abstractmethod
    def pipeline(self, run: RunSettings, output: Path) -> VideoPipeline:
        """Put the parts in `output` together."""


def exported_part(output: Path, method: str, part: str = "") -> Path:
    """Where a finished stage of the run in `output` leaves its parts."""
    return output / method / "exported" / part
