"""Pictures read between their pixels."""

from __future__ import annotations

import numpy as np

from muybridge.demo.render import Floats


def sample_bilinear(pictures: Floats, y: Floats, x: Floats) -> Floats:
    """Bilinear samples of `[n, h, w]` at rows `y` and columns `x`.

    Args:
        pictures: at least two pixels high and wide.
        y: 0 to h - 1, where 0 is the middle of the first row; of a shape that fits `[n, ...]` of three axes.
        x: 0 to w - 1, likewise.
    """
    top = np.minimum(y.astype(np.int64), pictures.shape[1] - 2)
    left = np.minimum(x.astype(np.int64), pictures.shape[2] - 2)
    low, right = y - top, x - left
    which = np.arange(len(pictures))[:, None, None]
    upper = pictures[which, top, left] * (1 - right) + pictures[which, top, left + 1] * right
    lower = pictures[which, top + 1, left] * (1 - right) + pictures[which, top + 1, left + 1] * right
    return upper * (1 - low) + lower * low
