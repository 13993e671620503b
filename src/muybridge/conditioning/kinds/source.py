"""A video to start from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from muybridge.conditioning.kinds.mask import Mask
from muybridge.errors import ConfigError
from muybridge.request.condition import Asked, Call, Condition, Shown, register_condition
from muybridge.request.following import Followed, followed_video
from muybridge.request.inputs import Inputs
from muybridge.types import SettingsDict, SettingsView

if TYPE_CHECKING:
    from muybridge.conditioning.prepared import Parts, Prepared, Task


@register_condition("source")
class Source(Condition):
    """A video whose first frames are noised in part and denoised anew."""

    keywords = ("init_video", "strength")
    of_one_call = True

    video: Shown
    """A file, a folder of pictures, a `Video`, or `uint8 [f, h, w, 3]`."""
    strength: float | None = None
    """The share of the noise levels that is run through, above 0 to 1: how far it may change. With a mask 1, which
    keeps nothing of what is made anew; else what the model's family uses."""

    @classmethod
    def from_call(cls, given: SettingsView) -> Sequence[Condition]:
        """Of `init_video` and `strength`."""
        if "init_video" not in given:
            raise ConfigError("strength says how far init_video may change; give that too.")
        return [cls(video=given["init_video"], strength=given.get("strength"))]

    def call_values(self) -> SettingsDict:
        """`init_video` and `strength`."""
        return {"init_video": self.video, **({} if self.strength is None else {"strength": self.strength})}

    def open(self, inputs: Inputs, request: Asked) -> None:
        """Open the video; the strength must be in range."""
        if self.strength is not None and not 0 < self.strength <= 1:
            raise ConfigError(f"strength must be above 0 and at most 1; given {self.strength}.")
        inputs.video(self.video, request.shape.num_frames)

    def size_to_fit(self, inputs: Inputs) -> tuple[int, int] | None:
        """Of the video."""
        return self.followed(inputs)[0].size

    def followed(self, inputs: Inputs) -> Sequence[Followed]:
        """Length, size and rate of the video."""
        return [followed_video("The source video", inputs.video(self.video, None))]

    def noise_share(self, call: Call) -> float:
        """Its strength, or the usual one."""
        if self.strength is not None:
            return self.strength
        return 1.0 if call.has("mask") else call.can.source_strength

    def prepare(self, parts: Parts, task: Task) -> Prepared:
        """Its frames, all to be made anew where there is no mask."""
        from muybridge.conditioning.pinned import pin_video
        from muybridge.conditioning.prepared import Prepared, source_frames

        del parts
        shape, frames = task.shape, source_frames(task.inputs.video(self.video, None))
        mask = next((each.array(task.inputs) for each in task.conditions if isinstance(each, Mask)), None)
        return Prepared(pinned=pin_video(frames, mask, shape.num_frames, shape.height, shape.width), starts_from=True)
