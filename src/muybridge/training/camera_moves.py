"""The camera moves that there are, for settings."""

from __future__ import annotations

from typing import Literal

CameraMove = Literal[
    "zoom-in",
    "zoom-out",
    "pan-left",
    "pan-right",
    "tilt-up",
    "tilt-down",
    "roll-clockwise",
    "roll-anticlockwise",
]
