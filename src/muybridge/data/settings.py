"""What a run file says about the clips to train on."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from muybridge.data.buckets import BucketSettings, Short, Size, size_table
from muybridge.data.probe import ProbeSettings
from muybridge.data.readers import reader_names
from muybridge.errors import ConfigError
from muybridge.types import VideoShape

_STEP = 8  # frames: what EasyAnimate's VAE takes at once


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SourceSettings(_Strict):
    """One set of clips among those of a run."""

    path: str = Field(min_length=1)
    """A folder, or a file that lists clips."""
    format: str | None = None
    """Name of its format; recognised if not given."""
    root: str | None = None
    """The folder that names in a list start from; by default the one of the list."""
    weight: float = Field(default=1.0, gt=0)
    """How often a clip of it comes, compared with one of a set of weight 1."""
    caption: str | None = None
    """Of clips that have none."""
    trigger: str | None = None
    """Stands before every caption, with a comma after it."""

    @field_validator("format")
    @classmethod
    def _check_format(cls, name: str | None) -> str | None:
        if name is not None and name not in (known := reader_names()):
            raise ValueError(f"must be one of {', '.join(known)}")
        return name


class PriorSettings(_Strict):
    """What a model can do already and should keep: clips of it, mixed with those it is to learn (prior preservation).

    They are made by the model itself before training, once, and kept on disk; or they are a set that is there.
    """

    path: str | None = Field(default=None, min_length=1)
    """A set of clips, a folder or a list; by default clips are made."""
    prompts: str | tuple[str, ...] | None = None
    """What they show: a text file with a prompt a line, the name of a set such as demo-world for its captions, or a
    list; by default everyday scenes."""
    clips: int = Field(default=40, ge=1)
    """How many are made."""
    seed: int = Field(default=0, ge=0)
    """Of their noise."""
    folder: str = Field(default="work/prior", min_length=1)
    """Where they are kept, those of each model and list of prompts in a folder of their own."""
    share: float = Field(default=0.5, gt=0, lt=1)
    """Of the clips that are trained on."""
    weight: float = Field(default=1.0, gt=0)
    """Of their loss, compared with that of the others."""
    target: Literal["model", "clips"] | None = None
    """What is learned of them: what the model said about them before, or what they show. By default the first for a
    LoRA, without which the model is what it was, and the second for other methods."""

    @model_validator(mode="after")
    def _made_or_there(self) -> PriorSettings:
        given = sorted(self.model_fields_set & {"prompts", "clips", "seed", "folder"})
        if self.path is not None and given:
            raise ValueError(f"{given[0]} is of clips that are made; leave it out, or path")
        if self.prompts is not None and not self.prompts:
            raise ValueError("prompts name at least one; leave it out for everyday scenes")
        return self


class DataSettings(_Strict):
    """The `data` block of a run file: sets of clips, and what they are made to."""

    sources: tuple[SourceSettings, ...] = Field(min_length=1)
    fps: float = Field(default=8.0, gt=0)
    """Frames per second that are taken, by time, whatever the rate of a file; by default the model's."""
    num_frames: tuple[int, ...] = Field(default=(16,), min_length=1)
    """Numbers of frames; a video goes to the largest that it lasts for. By default multiples of 8 up to what the model
    makes."""
    multiple: int = Field(default=16, ge=1)
    """Of which sides are multiples; by default what the model asks for."""
    area: int | None = Field(default=None, ge=1)
    """Pixels of a frame: each clip goes to the nearest aspect ratio of this area. By default what the model makes."""
    size: tuple[int, int] | None = None
    """(height, width) instead, the same for all."""
    short: Short = "drop"
    """What becomes of videos too short for the least number of frames: drop, slow, or image."""
    upscale: float = Field(default=1.2, ge=1)
    """How much a clip may be enlarged."""
    crop: Literal["centre", "random"] = "centre"
    flip: bool = False
    """Whether half of the clips are mirrored; wrong where captions or motion know left from right."""
    share_images: float | None = Field(default=None, ge=0, le=1)
    """Of the batches, how many are of pictures; by default as many as there are."""
    allow_high_range: bool = False
    max_damaged: float = Field(default=0.1, ge=0, le=1)
    """Share of the files that may be damaged before the run stops."""
    held_out: float = Field(default=0.0, ge=0, le=0.5)
    """Share of the clips, one at least, that are not trained on, to measure what is learned and not remembered."""
    cache: str | None = None
    """A folder for latents, so that each clip is encoded once; it then has one draw of start, crop and mirror."""
    prior: PriorSettings | None = None
    """What the model should keep; nothing if not given."""
    every_frame: bool = False
    """Whether files are decoded from end to end before training; else damage in the middle is met while training."""

    @field_validator("prior", mode="before")
    @classmethod
    def _prior_by_path(cls, value: object) -> object:
        return {"path": value} if isinstance(value, str) else value

    @field_validator("num_frames")
    @classmethod
    def _check_num_frames(cls, counts: tuple[int, ...]) -> tuple[int, ...]:
        if any(count < 1 for count in counts):
            raise ValueError("num_frames are from 1 on")
        return counts

    @field_validator("area")
    @classmethod
    def _check_area(cls, area: int | None, info: ValidationInfo) -> int | None:
        multiple = info.data.get("multiple", 1)
        if area is not None and area < multiple**2:
            raise ValueError(f"area must be at least {multiple**2}, one multiple a side")
        return area

    @field_validator("size")
    @classmethod
    def _check_size(cls, size: Size | None, info: ValidationInfo) -> Size | None:
        if size is None:
            return None
        if info.data.get("area") is not None:
            raise ValueError("give area or size, not both")
        multiple = info.data.get("multiple", 1)
        if any(side < 1 or side % multiple for side in size):
            raise ValueError(f"sides of size must be positive multiples of {multiple}")
        return size

    def for_model(self, shape: VideoShape, fps: float, multiple: int) -> DataSettings:
        """These settings, with what a model is made for where they say nothing.

        Args:
            shape: of the videos that it makes by default.
            fps: of these.
            multiple: of which their sides must be multiples.

        Raises:
            ConfigError: a size that the model cannot take.
        """
        if self.size is not None and any(side % multiple for side in self.size):
            raise ConfigError(f"data.size must be multiples of {multiple} for this model; given {list(self.size)}.")
        if self.area is not None and self.area < multiple**2:
            raise ConfigError(
                f"data.area must be at least {multiple**2} for this model, one multiple of {multiple} a side; given "
                f"{self.area}."
            )
        usual: dict[str, Any] = {
            "fps": fps,
            "num_frames": tuple(range(_STEP, shape.num_frames + 1, _STEP)) or (shape.num_frames,),
            "multiple": math.lcm(multiple, self.multiple) if "multiple" in self.model_fields_set else multiple,
        }
        if self.size is None and self.area is None:
            usual["area"] = shape.height * shape.width
        given = {name: getattr(self, name) for name in self.model_fields_set - {"multiple"}}
        return type(self)(**{**usual, **given})

    @property
    def sizes(self) -> tuple[Size, ...]:
        """Heights and widths to choose from."""
        return size_table(self.area or 512 * 512, self.multiple) if self.size is None else (self.size,)

    @property
    def buckets(self) -> BucketSettings:
        """What clips are made to."""
        return BucketSettings(self.num_frames, self.fps, self.sizes, self.short, self.upscale)

    @property
    def probing(self) -> ProbeSettings:
        """What files are let through."""
        return ProbeSettings(allow_high_range=self.allow_high_range, every_frame=self.every_frame)
