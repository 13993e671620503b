"""Pictures pinned to frames: image to video, first and last frame, or any others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from PIL.Image import Image

from muybridge.errors import ConfigError
from muybridge.request.condition import Asked, Call, Condition, Shown, register_condition
from muybridge.request.inputs import Inputs
from muybridge.types import SettingsDict, SettingsView

if TYPE_CHECKING:
    from muybridge.conditioning.prepared import Parts, Prepared, Task


@register_condition("keyframes")
class Keyframes(Condition):
    """Pictures by frame; negative indexes count from the end.

    Models with channels for pictures take them there, stretched to the size of the video; a picture at either end is
    held for as many frames as the model was trained on (the ends are what it saw). Others need a SparseCtrl for
    pictures, and pictures of the aspect ratio of the video.
    """

    keywords = ("keyframes", "control_strength", "control_start", "control_end")

    pictures: dict[int, Shown]
    """Files, Pillow images or `uint8 [h, w, 3]`."""
    strength: float = 1.0
    """How much they count; for a SparseCtrl."""
    start: float = 0.0
    """From which share of the steps on, 0 to 1; for a SparseCtrl."""
    end: float = 1.0
    """Until which share of the steps; for a SparseCtrl."""

    @classmethod
    def from_call(cls, given: SettingsView) -> Sequence[Condition]:
        """Of `keyframes`; the influence is shared with `sketches`."""
        if "keyframes" not in given:
            if "sketches" not in given and any(given[name] != usual for name, usual in _influences(given).items()):
                raise ConfigError(
                    "control_strength, control_start and control_end are about keyframes and sketches; give some."
                )
            return ()
        return [cls(pictures=given["keyframes"], **influence_of_call(given))]

    def call_values(self) -> SettingsDict:
        """`keyframes`, and what `control_strength` and its like say."""
        return call_values_of("keyframes", self)

    def open(self, inputs: Inputs, request: Asked) -> None:
        """Open the pictures."""
        del request
        for frame in self.pictures:
            self.picture(inputs, frame)

    def size_to_fit(self, inputs: Inputs) -> tuple[int, int] | None:
        """Of the first picture."""
        if not self.pictures:
            return None
        first = self.picture(inputs, min(self.pictures, key=lambda frame: (frame < 0, frame)))
        return first.height, first.width

    def picture(self, inputs: Inputs, frame: int) -> Image:
        """The picture of a frame, opened."""
        return inputs.picture(self.pictures[frame], f"The picture of frame {frame}")

    def check(self, call: Call) -> None:
        """A model takes them in its channels or through a SparseCtrl; not beside a source video in its channels."""
        takes = call.can.takes
        if "picture channels" in takes:
            if call.has("source"):
                raise ConfigError("Give keyframes or init_video, not both.")
            if (self.strength, self.start, self.end) != (1.0, 0.0, 1.0):
                call.can.require({"residuals"}, "control_strength, control_start and control_end")
            return
        call.can.require({"keyframes"}, "keyframes")

    def prepare(self, parts: Parts, task: Task) -> Prepared:
        """Pinned pixels, or a SparseCtrl that is shown them."""
        from muybridge.conditioning.pinned import pin_keyframes
        from muybridge.conditioning.prepared import Prepared

        pictures = {frame: self.picture(task.inputs, frame) for frame in self.pictures}
        if "picture channels" not in parts.can.takes:
            return sparse_prepared("keyframes", pictures, self, parts, task)
        shape = task.shape
        return Prepared(pinned=pin_keyframes(pictures, shape.num_frames, shape.height, shape.width, task.known_frames))


class _ByFrame(Protocol):
    """Pictures by frame that a SparseCtrl is shown, and when and how strongly."""

    pictures: dict[int, Any]
    strength: float
    start: float
    end: float


_USUAL = {"control_strength": 1.0, "control_start": 0.0, "control_end": 1.0}


def _influences(given: SettingsView) -> dict[str, float]:
    return {name: usual for name, usual in _USUAL.items() if name in given}


def influence_of_call(given: SettingsView) -> SettingsDict:
    """`strength`, `start` and `end` out of the arguments of a call."""
    return {name.removeprefix("control_"): given[name] for name in _influences(given)}


def call_values_of(name: str, own: _ByFrame) -> SettingsDict:
    """Arguments of a call with pictures by frame called `name`, and the influence that `own` has."""
    influence = {key: getattr(own, key.removeprefix("control_")) for key in _USUAL}
    return {name: dict(own.pictures), **{key: each for key, each in influence.items() if each != _USUAL[key]}}


def sparse_prepared(role: str, pictures: Mapping[int, Image], own: _ByFrame, parts: Parts, task: Task) -> Prepared:
    """A SparseCtrl of the pipeline that is shown pictures, with the influence that `own` has.

    Raises:
        ConfigError: the pipeline has none for that role.
        MuybridgeError: as `sparse_control`.
    """
    from muybridge.conditioning.prepared import Prepared
    from muybridge.conditioning.residuals import Influence
    from muybridge.conditioning.sparse_control import sparse_control_of

    influence = Influence.during(own.strength, own.start, own.end, task.timesteps)
    if (model := parts.network_for(role)) is None:
        raise ConfigError(
            f"This pipeline has no SparseCtrl for {role}; give it one with pipe.set_sparse_control(model), or "
            "name its file."
        )
    return Prepared(controls=(sparse_control_of(model, pictures, influence, parts, task),))
