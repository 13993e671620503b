"""What Stable Diffusion XL is told about sizes: those of the picture it shall look like one of."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from muybridge.errors import ConfigError

Size = tuple[int, int]


@dataclass(frozen=True)
class PictureSizes:
    """Six numbers, all in pixels; SDXL learnt them of every training picture.

    Attributes:
        original: (height, width) before it was resized; small ones look blurred.
        top_left: (top, left) from where it was cut out; (0, 0) is uncut, others look cut off.
        target: (height, width) it was brought to.
    """

    original: Size
    top_left: Size
    target: Size

    def ids(self, count: int) -> Tensor:
        """The condition `time_ids` of the U-Net, for `count` videos: `float32 [count, 6]`."""
        return torch.tensor([*self.original, *self.top_left, *self.target], dtype=torch.float32).expand(count, -1)


@dataclass(frozen=True)
class SizeChoices:
    """The arguments of the same names, checked together; None is what `sizes` says."""

    original_size: Size | None = None
    crops_coords_top_left: Size = (0, 0)
    target_size: Size | None = None
    negative_original_size: Size | None = None
    negative_crops_coords_top_left: Size = (0, 0)
    negative_target_size: Size | None = None

    def check(self, is_sdxl: bool, guided: bool) -> None:
        """Whether they are sizes, and whether each has an effect.

        Raises:
            ConfigError: otherwise.
        """
        given = self.given()
        if given and not is_sdxl:
            raise ConfigError(f"{', '.join(given)}: only Stable Diffusion XL is told sizes; leave that out.")
        for name in given:
            least = 0 if "crops" in name else 1
            value = getattr(self, name)
            if not _is_size(value, least):
                what = "(top, left)" if "crops" in name else "(height, width)"
                raise ConfigError(f"{name} must be {what} in pixels, each at least {least}; given {value!r}.")
        negative = [name for name in given if name.startswith("negative_")]
        if negative and not guided:
            raise ConfigError(f"{', '.join(negative)}: negatives have no effect at guidance_scale 1; leave that out.")
        needed = {"negative_original_size", "negative_target_size"}
        if negative and not needed <= set(negative):
            raise ConfigError(
                f"{', '.join(sorted(needed))} go together, and negative_crops_coords_top_left with both; given only "
                f"{', '.join(negative)}."
            )

    def given(self) -> list[str]:
        """Names of those that are not as they are by default."""
        return [each.name for each in fields(self) if not _same(getattr(self, each.name), each.default)]

    def sizes(self, height: int, width: int) -> tuple[PictureSizes, PictureSizes]:
        """For a video of that size, what is wanted and what is not; by default an uncut picture of just that size."""
        here = (height, width)
        wanted = PictureSizes(self.original_size or here, self.crops_coords_top_left, self.target_size or here)
        if self.negative_original_size is None or self.negative_target_size is None:
            return wanted, wanted
        unwanted = PictureSizes(
            self.negative_original_size, self.negative_crops_coords_top_left, self.negative_target_size
        )
        return wanted, unwanted


def _same(value: object, default: object) -> bool:
    return value is default or (isinstance(value, (tuple, list)) and tuple(value) == default)


def _is_size(value: object, least: int) -> bool:
    return (
        isinstance(value, (tuple, list))
        and len(value) == 2
        and all(isinstance(side, int) and not isinstance(side, bool) and side >= least for side in value)
    )
