"""Drawings pinned to frames, for a SparseCtrl."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from PIL.Image import Image

from muybridge.conditioning.kinds.keyframes import call_values_of, influence_of_call, sparse_prepared
from muybridge.request.condition import Asked, Condition, Shown, register_condition
from muybridge.request.inputs import Inputs
from muybridge.types import SettingsDict, SettingsView

if TYPE_CHECKING:
    from muybridge.conditioning.prepared import Parts, Prepared, Task


@register_condition("sketches")
class Sketches(Condition):
    """Drawings by frame, white lines on black, negative indexes from the end; of the aspect ratio of the video."""

    keywords = ("sketches", "control_strength", "control_start", "control_end")
    of_one_call = True
    needs = frozenset({"sketches"})

    pictures: dict[int, Shown]
    """Files, Pillow images or `uint8 [h, w, 3]`."""
    strength: float = 1.0
    """How much they count."""
    start: float = 0.0
    """From which share of the steps on, 0 to 1."""
    end: float = 1.0
    """Until which share of the steps."""

    @classmethod
    def from_call(cls, given: SettingsView) -> Sequence[Condition]:
        """Of `sketches`; the influence is shared with `keyframes`."""
        if "sketches" not in given:
            return ()
        return [cls(pictures=given["sketches"], **influence_of_call(given))]

    def call_values(self) -> SettingsDict:
        """`sketches`, and what `control_strength` and its like say."""
        return call_values_of("sketches", self)

    def open(self, inputs: Inputs, request: Asked) -> None:
        """Open the drawings."""
        del request
        for frame in self.pictures:
            self._picture(inputs, frame)

    def _picture(self, inputs: Inputs, frame: int) -> Image:
        return inputs.picture(self.pictures[frame], f"The sketch {frame}")

    def prepare(self, parts: Parts, task: Task) -> Prepared:
        """A SparseCtrl that is shown them."""
        pictures = {frame: self._picture(task.inputs, frame) for frame in self.pictures}
        return sparse_prepared("sketches", pictures, self, parts, task)
