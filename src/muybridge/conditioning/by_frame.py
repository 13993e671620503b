"""Pictures by frame, as keyframes and sketches are: values that need no torch until they are used."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from PIL.Image import Image

from muybridge.errors import ConfigError
from muybridge.request.condition import Asked, Condition, Fitted, Shown
from muybridge.request.inputs import Inputs
from muybridge.types import SettingsDict, SettingsView, VideoShape

if TYPE_CHECKING:
    from muybridge.conditioning.prepared import Parts, Prepared, Task
    from muybridge.request.capabilities import Capabilities

INFLUENCE = {"control_strength": 1.0, "control_start": 0.0, "control_end": 1.0}
"""Arguments of a call that all kinds of pictures by frame share, and what they are by default."""


class PicturesByFrame(Condition):
    """Base of the kinds: pictures, and for a SparseCtrl how strongly they count and when.

    Attributes:
        title: what a picture is called in messages, with its frame behind it.
    """

    title: ClassVar[str]

    pictures: dict[int, Shown]
    """Files, Pillow images or `uint8 [h, w, 3]`; negative indexes count from the end."""
    strength: float = 1.0
    """How much they count; for a SparseCtrl."""
    start: float = 0.0
    """From which share of the steps on, 0 to 1; for a SparseCtrl."""
    end: float = 1.0
    """Until which share of the steps; for a SparseCtrl."""

    @property
    def has_influence(self) -> bool:
        """Whether it is said how strongly they count, or when."""
        return (self.strength, self.start, self.end) != tuple(INFLUENCE.values())

    @classmethod
    def of_call(cls, given: SettingsView) -> list[Condition]:
        """Out of the first of the keywords, and the influence that the kinds share; none without pictures."""
        name = cls.keywords[0]
        if name not in given:
            return []
        influence = {word.removeprefix("control_"): given[word] for word in INFLUENCE if word in given}
        return [cls(pictures=given[name], **influence)]

    def call_values(self) -> SettingsDict:
        """The pictures under the first of the keywords, and what differs of the influence."""
        own = {word: getattr(self, word.removeprefix("control_")) for word in INFLUENCE}
        return {self.keywords[0]: dict(self.pictures), **{w: v for w, v in own.items() if v != INFLUENCE[w]}}

    def open(self, inputs: Inputs, request: Asked) -> None:
        """Open the pictures; the influence must lie within the steps."""
        del request
        if not 0 <= self.start < self.end <= 1:
            raise ConfigError(f"Influence must start before it ends, within 0 to 1; given {self.start} to {self.end}.")
        self.opened(inputs)

    def opened(self, inputs: Inputs) -> dict[int, Image]:
        """The pictures by frame, opened."""
        return {frame: inputs.picture(each, f"{self.title} {frame}") for frame, each in self.pictures.items()}

    def check_shape(self, shape: VideoShape, can: Capabilities, inputs: Inputs, fitted: Fitted = None) -> None:
        """Frames that there are, and, as a SparseCtrl is shown the pictures, the aspect ratio of the video."""
        del can
        from muybridge.conditioning.sparse import check_aspect, cropped_as_fitted, placed_frames

        placed_frames(self.pictures, shape.num_frames)
        size = (shape.height, shape.width)
        for index, picture in self.opened(inputs).items():
            check_aspect(picture if fitted is None else cropped_as_fitted(picture, fitted, size), index, *size)

    def through_sparse_control(self, parts: Parts, task: Task) -> Prepared:
        """A SparseCtrl of the pipeline that is shown them.

        Raises:
            ConfigError: the pipeline has none for this kind.
            MuybridgeError: as `sparse_control`.
        """
        from muybridge.conditioning.prepared import Prepared
        from muybridge.conditioning.residuals import Influence
        from muybridge.conditioning.sparse import cropped_as_fitted
        from muybridge.conditioning.sparse_control import sparse_control_of

        influence = Influence.during(self.strength, self.start, self.end, task.timesteps)
        if (model := parts.network_for(self.kind)) is None:
            raise ConfigError(
                f"This pipeline has no SparseCtrl for {self.kind}; give it one with pipe.set_sparse_control(model), or "
                "name its file."
            )
        pictures = self.opened(task.inputs)
        if task.fitted is not None:
            pictures = {
                index: cropped_as_fitted(picture, task.fitted, (task.shape.height, task.shape.width))
                for index, picture in pictures.items()
            }
        return Prepared(controls=(sparse_control_of(model, pictures, influence, parts, task),))
