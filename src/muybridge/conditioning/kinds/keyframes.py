"""Pictures pinned to frames: image to video, first and last frame, or any others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from muybridge.conditioning.by_frame import INFLUENCE, PicturesByFrame
from muybridge.errors import ConfigError
from muybridge.request.condition import Call, Condition, Fitted, register_condition
from muybridge.request.inputs import Inputs
from muybridge.types import SettingsView, VideoShape

if TYPE_CHECKING:
    from muybridge.conditioning.prepared import Parts, Prepared, Task
    from muybridge.request.capabilities import Capabilities


@register_condition("keyframes")
class Keyframes(PicturesByFrame):
    """Pictures by frame.

    Models with channels for pictures take them there, stretched to the size of the video; a picture at either end is
    held for as many frames as the model was trained on (the ends are what it saw). Others need a SparseCtrl for
    pictures, and pictures of the aspect ratio of the video.
    """

    keywords = ("keyframes", *INFLUENCE)
    title = "The picture of frame"

    @classmethod
    def from_call(cls, given: SettingsView) -> Sequence[Condition]:
        """Of `keyframes`; the influence is shared with `sketches`."""
        is_idle = not given.keys() & {"keyframes", "sketches"}
        if is_idle and any(given[word] != usual for word, usual in INFLUENCE.items() if word in given):
            raise ConfigError(
                "control_strength, control_start and control_end are about keyframes and sketches; give some."
            )
        return cls.of_call(given)

    def size_to_fit(self, inputs: Inputs) -> tuple[int, int] | None:
        """Of the first picture."""
        if not self.pictures:
            return None
        first = self.opened(inputs)[min(self.pictures, key=lambda frame: (frame < 0, frame))]
        return first.height, first.width

    def check_shape(self, shape: VideoShape, can: Capabilities, inputs: Inputs, fitted: Fitted = None) -> None:
        """As of pictures by frame; where the model takes them in its channels they are stretched, as in training."""
        if "picture channels" not in can.takes:
            super().check_shape(shape, can, inputs, fitted)
            return
        from muybridge.conditioning.sparse import placed_frames

        placed_frames(self.pictures, shape.num_frames)

    def check(self, call: Call) -> None:
        """A model takes them in its channels or through a SparseCtrl; not beside a source video in its channels."""
        if "picture channels" not in call.can.takes:
            call.can.require({"keyframes"}, "keyframes")
            return
        if call.has("source"):
            raise ConfigError("Give keyframes or init_video, not both.")
        if self.has_influence:
            call.can.require({"residuals"}, "control_strength, control_start and control_end")

    def prepare(self, parts: Parts, task: Task) -> Prepared:
        """Pinned pixels, or a SparseCtrl that is shown them."""
        from muybridge.conditioning.pinned import pin_keyframes
        from muybridge.conditioning.prepared import Prepared

        if "picture channels" not in parts.can.takes:
            return self.through_sparse_control(parts, task)
        shape, pictures = task.shape, self.opened(task.inputs)
        return Prepared(pinned=pin_keyframes(pictures, shape.num_frames, shape.height, shape.width, task.known_frames))
