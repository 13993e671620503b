"""A description of the motion wanted, for motion modules of one's own that read one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from muybridge.request.condition import Condition, InMemory, register_condition

if TYPE_CHECKING:
    from muybridge.conditioning.prepared import Parts, Prepared, Task


@register_condition("motion-condition")
class MotionCondition(Condition):
    """A vector a video. Guidance does not change it: both its branches are told the same."""

    keywords = ("motion_condition",)

    motion_condition: InMemory
    """`[b, d]`, or `[1, d]` for all."""

    def prepare(self, parts: Parts, task: Task) -> Prepared:
        """The vector, for each video.

        Raises:
            ShapeError: it is not one a video.
        """
        from muybridge.conditioning.prepared import Prepared
        from muybridge.errors import ShapeError

        condition, count = self.motion_condition, task.count
        if condition.ndim != 2 or len(condition) not in (1, count):
            raise ShapeError(
                f"motion_condition must be [{count}, d], one a video, or [1, d]; given {list(condition.shape)}."
            )
        vectors = condition.expand(count, -1).to(parts.working_device, parts.backbone.dtype)
        return Prepared(positive={"motion_condition": vectors})
