"""The condition that motion modules of one's own may read."""

from __future__ import annotations

from torch import Tensor

from muybridge.errors import ShapeError


def one_a_video(condition: Tensor, count: int) -> Tensor:
    """`[count, d]` of one condition for each of `count` videos, or of one for all.

    Raises:
        ShapeError: neither.
    """
    if condition.ndim != 2 or len(condition) not in (1, count):
        raise ShapeError(
            f"motion_condition must be [{count}, d], one a video, or [1, d]; given {list(condition.shape)}."
        )
    return condition.expand(count, -1)
