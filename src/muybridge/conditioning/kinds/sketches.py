"""Drawings pinned to frames, for a SparseCtrl."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from muybridge.conditioning.by_frame import INFLUENCE, PicturesByFrame
from muybridge.request.condition import Condition, register_condition
from muybridge.types import SettingsView

if TYPE_CHECKING:
    from muybridge.conditioning.prepared import Parts, Prepared, Task


@register_condition("sketches")
class Sketches(PicturesByFrame):
    """Drawings by frame, white lines on black, of the aspect ratio of the video."""

    keywords = ("sketches", *INFLUENCE)
    needs = frozenset({"sketches"})
    of_one_call = True
    title = "The sketch"

    @classmethod
    def from_call(cls, given: SettingsView) -> Sequence[Condition]:
        """Of `sketches`; the influence is shared with `keyframes`."""
        return cls.of_call(given)

    def prepare(self, parts: Parts, task: Task) -> Prepared:
        """A SparseCtrl that is shown them."""
        return self.through_sparse_control(parts, task)
