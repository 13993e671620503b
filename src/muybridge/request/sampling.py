"""How a video is sampled: settings without torch, one definition for calls, files and the sampling engine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

from pydantic import ConfigDict

from muybridge.errors import ConfigError, ShapeError

Schedule = Literal["standard", "uniform", "looped"]
Fusing = Literal["flat", "pyramid", "overlap-linear"]
FilterKind = Literal["butterworth", "gaussian", "ideal"]
Positions = Literal["plain", "stretched", "capped"]
_STRICT = ConfigDict(extra="forbid")
_OVERLAP = 4


@dataclass(frozen=True)
class WindowSettings:
    """How a video is cut into windows.

    Attributes:
        size: frames of a window; what the motion modules were trained on does best.
        overlap: frames that neighbours share, below `size`. By default 4, or what the model makes at least.
        schedule: "standard" is the same in every step; "uniform" moves the windows from step to step, so that no seam
            stays in one place; "looped" does so too and goes on from the last frame to the first, for clips that
            repeat without a jump.
        fusing: "flat" counts all frames of a window alike, "pyramid" those in its middle most, "overlap-linear" fades
            over the overlap only.
        strides: further rounds of windows over every 2nd, 4th, ... frame, which hold distant frames together; 1 has
            none. Rounds that do not fit the video are left out.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    size: int = 16
    overlap: int | None = None
    schedule: Schedule = "standard"
    fusing: Fusing = "pyramid"
    strides: int = 1

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ConfigError: a value out of range.
        """
        if self.size < 1 or not 0 <= self.shared < self.size:
            raise ConfigError(
                f"A window needs a size of at least 1 and an overlap from 0 to below the size; given size {self.size} "
                f"and overlap {self.shared}."
            )
        if self.strides < 1:
            raise ConfigError(f"strides must be at least 1; given {self.strides}.")
        for name, known in (("schedule", get_args(Schedule)), ("fusing", get_args(Fusing))):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} must be one of {', '.join(known)}; given {getattr(self, name)!r}.")

    @property
    def shared(self) -> int:
        """Frames that neighbours share."""
        return min(_OVERLAP, self.size - 1) if self.overlap is None else self.overlap

    def in_pieces(self, multiple: int) -> WindowSettings:
        """The same counted in pieces of `multiple` frames, of which a model makes all of a piece or none.

        Raises:
            ShapeError: size or overlap are no multiples of it; names the nearest that are.
        """
        if multiple == 1:
            return replace(self, overlap=self.shared)
        overlap = self.overlap
        if overlap is None:
            nearest = -(-_OVERLAP // multiple) * multiple
            overlap = nearest if nearest < self.size else 0
        for name, value, least in (("size", self.size, multiple), ("overlap", overlap, 0)):
            if value % multiple:
                nearest = max(least, round(value / multiple) * multiple)
                raise ShapeError(
                    f"This model makes {multiple} frames at once, so the {name} of windows must be a multiple of "
                    f"{multiple}; given {value}. The nearest is {nearest}."
                )
        return replace(self, size=self.size // multiple, overlap=overlap // multiple)


@dataclass(frozen=True)
class FreeInit:
    """How to repeat. Source: arXiv 2312.07537; the defaults are those of its authors.

    Attributes:
        passes: how often the video is denoised; 1 is as without.
        kind: shape of the low-pass filter.
        order: steepness of "butterworth"; the others have none.
        spatial_stop: frequency above which noise is drawn anew, 0 to 1 of the highest, along height and width.
        temporal_stop: the same along time.
        coarse_to_fine: fewer steps in the first passes: the share i / passes of them in pass i.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    passes: int = 3
    kind: FilterKind = "butterworth"
    order: int = 4
    spatial_stop: float = 0.25
    temporal_stop: float = 0.25
    coarse_to_fine: bool = False

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ConfigError: a value out of range.
        """
        if self.passes < 1 or self.order < 1:
            raise ConfigError(f"FreeInit needs at least 1 pass and order 1; given {self.passes} and {self.order}.")
        if not (0 < self.spatial_stop <= 1 and 0 < self.temporal_stop <= 1):
            raise ConfigError(
                f"The stop frequencies of FreeInit must be above 0 and at most 1; given {self.spatial_stop} and "
                f"{self.temporal_stop}."
            )
        if self.kind not in get_args(FilterKind):
            raise ConfigError(f"The filter must be one of {', '.join(get_args(FilterKind))}; given {self.kind!r}.")

    def steps_of(self, index: int, num_steps: int) -> int:
        """Steps of pass `index`, from 0, where a whole pass has `num_steps`."""
        return max(1, num_steps * (index + 1) // self.passes) if self.coarse_to_fine else num_steps
