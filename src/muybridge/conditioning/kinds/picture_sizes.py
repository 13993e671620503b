"""What Stable Diffusion XL is told about sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import WithJsonSchema

from muybridge.request.condition import Call, Condition, register_condition
from muybridge.types import SettingsView

if TYPE_CHECKING:
    from muybridge.conditioning.prepared import Parts, Prepared, Task
    from muybridge.conditioning.sdxl_sizes import SizeChoices


_Size = Annotated[Any, WithJsonSchema({"type": "array", "items": {"type": "integer"}})]
"""Two numbers of pixels; what is none is refused in words of its own."""


@register_condition("picture-sizes")
class PictureSizes(Condition):
    """Sizes in pixels of the picture that frames shall look like one of, and shall not; None is the usual."""

    keywords = (
        "original_size",
        "crops_coords_top_left",
        "target_size",
        "negative_original_size",
        "negative_crops_coords_top_left",
        "negative_target_size",
    )

    original_size: _Size = None
    """(height, width) before it was resized; by default the size of the video."""
    crops_coords_top_left: _Size = (0, 0)
    """(top, left) from where it was cut out."""
    target_size: _Size = None
    """(height, width) it was brought to; by default the size of the video."""
    negative_original_size: _Size = None
    negative_crops_coords_top_left: _Size = (0, 0)
    negative_target_size: _Size = None

    @classmethod
    def from_call(cls, given: SettingsView) -> Sequence[Condition]:
        """Of those that are not as they are by default."""
        made = cls(**{name: given[name] for name in cls.keywords if name in given})
        return [made] if made.choices.given() else ()

    @property
    def choices(self) -> SizeChoices:
        """As the networks' side knows them."""
        from muybridge.conditioning.sdxl_sizes import SizeChoices

        return SizeChoices(**{name: getattr(self, name) for name in self.keywords})

    def check(self, call: Call) -> None:
        """Only Stable Diffusion XL is told sizes."""
        self.choices.check("picture sizes" in call.can.takes, call.guided)

    def prepare(self, parts: Parts, task: Task) -> Prepared:
        """The six numbers."""
        from muybridge.conditioning.prepared import Prepared

        wanted, unwanted = self.choices.sizes(task.shape.height, task.shape.width)
        device = parts.working_device
        return Prepared(
            positive={"time_ids": wanted.ids(task.count).to(device)},
            negative={"time_ids": unwanted.ids(task.count).to(device)},
        )
