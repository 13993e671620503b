"""What to make: one schema for Python, the command line, files, and what a video says of itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from muybridge.errors import ConfigError
from muybridge.files.validation import describe_validation
from muybridge.request.condition import AnyCondition, plain_value
from muybridge.request.inputs import Inputs
from muybridge.request.sampling import FreeInit, Positions, WindowSettings
from muybridge.types import SettingsDict, SettingsView


class _Value(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Shape(_Value):
    """Extent of a video in time and space; None follows a source video, or is the model's default."""

    num_frames: int | None = Field(default=None, ge=1)
    width: int | None = Field(default=None, ge=1)
    height: int | None = Field(default=None, ge=1)
    fit: int | None = Field(default=None, ge=64)
    """Base resolution at which the size follows the first keyframe or the source video, instead of width and height."""
    fps: float | None = Field(default=None, gt=0, le=1000)
    """Frames per second of playback."""


class Sampling(_Value):
    """How noise becomes a video; None is the model's default."""

    seed: int | None = Field(default=None, ge=0, lt=2**63)
    """Same seed, same start on any device; random where none is given."""
    num_inference_steps: int | None = Field(default=None, ge=1)
    guidance_scale: float | None = Field(default=None, ge=0, lt=1000)
    """How strongly the prompt is followed; 1 is off."""
    scheduler: str | None = None
    eta: float = Field(default=0.0, ge=0, le=1)
    windows: WindowSettings | None = None
    free_noise: bool = False
    free_init: FreeInit | None = None
    profile: Literal["reference", "clean"] | None = None
    """Of EasyAnimate: the original's numbers, or what they should have been."""
    clip_apply_ratio: float | None = Field(default=None, ge=0, le=1)
    """Of EasyAnimate: last share of the steps in which the picture's embedding is used."""


class Motion(_Value):
    """How the motion modules act."""

    strength: FiniteFloat | list[FiniteFloat] = 1.0
    """One number, or one for each frame; 0 gives independent frames."""
    positions: Positions = "plain"
    """Places of the frames in time, where there are more than the modules were trained on."""


class Segments(_Value):
    """How a video longer than the model makes at once is made piece by piece, each from the end of the one before."""

    frames: int | None = Field(default=None, ge=1)
    """Made at once; by default what the model makes at once."""
    overlap: int | None = Field(default=None, ge=1)
    """Frames that neighbours share; 4 by default, with latent one piece of the VAE."""
    strategy: Literal["crossfade", "latent"] | None = None
    """What a segment continues from: the last pictures of the one before (the default), or its last latents."""


class Request(_Value):
    """Everything that decides what a video looks like, but for the model."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    prompt: str | Annotated[dict[int, str], Field(min_length=1)] | None = None
    """One prompt, or prompts by frame; an empty one is what the model shows when it is told nothing."""
    negative_prompt: str | None = None
    plain_prompt: bool = False
    """Whether brackets, tags and names of embeddings in them are words."""
    shape: Shape = Shape()
    sampling: Sampling = Sampling()
    motion: Motion = Motion()
    conditions: tuple[AnyCondition, ...] = ()
    segments: Segments | None = None

    @property
    def reads_syntax(self) -> bool:
        """Whether its prompts mean something else than their plain words."""
        return not self.plain_prompt and has_syntax_in([self.prompt, self.negative_prompt])

    @classmethod
    def parse(cls, values: SettingsView) -> Request:
        """Validate plain values.

        Raises:
            ConfigError: names each field that is wrong, and why.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise ConfigError(describe_validation(error, cls)) from error

    def open(self, inputs: Inputs) -> None:
        """Open the files that it names, and check what needs no model: before one is loaded.

        Raises:
            ConfigError: settings that exclude each other or have no effect.
            InputFileError: a file that is missing or cannot be read.
            ShapeError: sizes that do not go together.
        """
        for each in self.conditions:
            each.open(inputs, self)
        shape = self.shape
        if shape.fit is None:
            return
        if shape.width is not None or shape.height is not None:
            raise ConfigError("fit takes the size from a keyframe or source video; leave width and height out.")
        if self.size_to_fit(inputs) is None:
            raise ConfigError(
                "fit takes the size from the first keyframe, as in 0=start.png, or from the source video; give one of "
                "them."
            )

    def size_to_fit(self, inputs: Inputs) -> tuple[int, int] | None:
        """(height, width) of the first keyframe or of the source video, whose shape a `fit` size follows."""
        sizes = (each.size_to_fit(inputs) for each in self.conditions)
        return next((size for size in sizes if size is not None), None)

    def plain(self) -> SettingsDict:
        """For a file: what differs from the defaults; conditions that live in memory only are left out."""
        values = plain_value(self.model_dump(exclude_defaults=True, exclude={"conditions"}, warnings=False)) or {}
        conditions = [found for each in self.conditions if (found := each.plain()) is not None]
        return {**values, "conditions": conditions} if conditions else values


def has_syntax_in(texts: Iterable[object]) -> bool:
    """Whether any of prompts, or prompts by frame, means something else than its plain words."""
    from muybridge.request.prompt_syntax import has_syntax

    found = [text for each in texts for text in (each.values() if isinstance(each, dict) else [each])]
    return any(isinstance(text, str) and has_syntax(text) for text in found)
