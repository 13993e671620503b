"""A picture of every frame (edges, depth, a pose) that a ControlNet makes the video follow."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from muybridge.errors import ConfigError
from muybridge.request.condition import Asked, Condition, Shown, register_condition
from muybridge.request.following import Followed, followed_video
from muybridge.request.inputs import Inputs
from muybridge.types import SettingsDict, SettingsView

if TYPE_CHECKING:
    from muybridge.conditioning.prepared import Parts, Prepared, Task


@register_condition("control")
class Control(Condition):
    """A ControlNet, and what it is shown."""

    keywords = ("controls",)
    of_one_call = True
    is_single = False
    needs = frozenset({"controls"})

    model: Shown
    """The network, made for the same image model: a file or folder, here or on the hub, or a `ControlNetModel`."""
    frames: Shown
    """A video file, a folder of pictures, a `Video`, `uint8 [f, h, w, 3]`, or a picture for each frame; stretched to
    the size of the video."""
    strength: float = 1.0
    """How much of what it says is added."""
    start: float = 0.0
    """From which share of the steps on, 0 to 1."""
    end: float = 1.0
    """Until which share of the steps."""

    @classmethod
    def from_call(cls, given: SettingsView) -> Sequence[Condition]:
        """Of `controls`: conditions of this kind, or values of the same names."""
        controls = given["controls"]
        if isinstance(controls, (str, Mapping)):
            raise ConfigError("controls must be a list of controls; put one in brackets too.")
        return [each if isinstance(each, Condition) else cls.model_validate(each) for each in controls]

    def call_values(self) -> SettingsDict:
        """`controls`, of this one."""
        return {"controls": [self.model_dump(exclude_defaults=True)]}

    def open(self, inputs: Inputs, request: Asked) -> None:
        """Open what it is shown."""
        if isinstance(self.frames, Sequence) and not isinstance(self.frames, str):
            for index, picture in enumerate(self.frames[: request.shape.num_frames]):
                inputs.picture(picture, f"Picture {index} of a control")
        else:
            inputs.video(self.frames, request.shape.num_frames)
        if isinstance(self.model, (str, os.PathLike)) and Path(self.model).is_file():
            inputs.note(self.model)

    def networks(self) -> Sequence[str]:
        """The ControlNet, where it is named."""
        return [os.fspath(self.model)] if isinstance(self.model, (str, os.PathLike)) else []

    def followed(self, inputs: Inputs) -> Sequence[Followed]:
        """Length, size and rate of what it is shown."""
        return [followed_video("The control video", inputs.video(self.frames, None), may_be_pictures=True)]

    def prepare(self, parts: Parts, task: Task) -> Prepared:
        """The ControlNet beside the backbone."""
        from muybridge.conditioning.dense_control import dense_control
        from muybridge.conditioning.prepared import Prepared

        return Prepared(controls=(dense_control(self, parts, task),))
