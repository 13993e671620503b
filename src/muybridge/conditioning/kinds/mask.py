"""Which parts of a source video are made anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from muybridge.errors import ConfigError, ShapeError
from muybridge.request.condition import Asked, Condition, Shown, register_condition
from muybridge.request.inputs import Inputs

if TYPE_CHECKING:
    from muybridge.conditioning.prepared import Parts, Prepared, Task


@register_condition("mask")
class Mask(Condition):
    """A picture of the size of the source video: white is made anew, black is kept."""

    keywords = ("mask",)
    of_one_call = True

    mask: Shown
    """A file, a Pillow image, or `[h, w]` or `[f, h, w]` in which more than half of the range (255, 1, True) is white.
    """

    def open(self, inputs: Inputs, request: Asked) -> None:
        """Open the picture; there must be a video to keep the rest of, of the same size, and something to be made."""
        source = next((each for each in request.conditions if each.kind == "source"), None)
        if source is None:
            raise ConfigError("A mask marks parts of init_video; give that too.")
        source.open(inputs, request)
        mask, size = self.array(inputs), source.size_to_fit(inputs)
        if isinstance(self.mask, np.ndarray) or size is None:
            return
        if mask.shape != size:
            raise ShapeError(
                f"The mask must be {size[1]}x{size[0]} like the source video; given {mask.shape[1]}x{mask.shape[0]}."
            )
        brightest = int(mask.max())
        if brightest == 0 or 1 < brightest <= 127:  # a mask may also be of zeros and ones
            raise ConfigError("The mask is black everywhere: nothing is to be made. White marks what is made anew.")

    def array(self, inputs: Inputs) -> np.ndarray:
        """`[h, w]` or `[f, h, w]`."""
        if isinstance(self.mask, np.ndarray):
            return self.mask
        return np.asarray(inputs.picture(self.mask, "The mask").convert("L"))

    def prepare(self, parts: Parts, task: Task) -> Prepared:
        """Nothing by itself: the source video reads it."""
        from muybridge.conditioning.prepared import Prepared

        del parts, task
        return Prepared()
