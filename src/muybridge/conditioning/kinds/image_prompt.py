"""Pictures to take subject and style from, beside the text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from muybridge.errors import ConfigError
from muybridge.request.condition import Asked, Call, Condition, Shown, register_condition
from muybridge.request.inputs import Inputs
from muybridge.types import SettingsDict, SettingsView

if TYPE_CHECKING:
    from muybridge.conditioning.prepared import Parts, Prepared, Task


@register_condition("image-prompt")
class ImagePrompt(Condition):
    """Pictures for an IP-Adapter; the square in the middle of each is seen, the same for all videos of a call."""

    keywords = ("image_prompt", "image_prompt_strength")
    needs = frozenset({"image prompt"})

    pictures: tuple[Shown, ...]
    """Files, Pillow images or `uint8 [h, w, 3]`."""
    strength: float = 1.0
    """How much they count beside the text; 0 is the text alone."""

    @classmethod
    def from_call(cls, given: SettingsView) -> Sequence[Condition]:
        """Of `image_prompt`, a picture or several, and `image_prompt_strength`."""
        strength = given.get("image_prompt_strength", 1.0)
        if not math.isfinite(strength):
            raise ConfigError(f"image_prompt_strength must be a finite number; given {strength}.")
        if "image_prompt" not in given:
            if strength != 1.0:
                raise ConfigError("image_prompt_strength has no effect without image_prompt; give that too.")
            return ()
        pictures = given["image_prompt"]
        if not isinstance(pictures, (list, tuple)):
            pictures = [pictures]
        if not pictures:
            raise ConfigError("image_prompt is an empty list; give at least one picture.")
        return [cls(pictures=tuple(pictures), strength=strength)]

    def call_values(self) -> SettingsDict:
        """`image_prompt` and `image_prompt_strength`."""
        strength = {} if self.strength == 1.0 else {"image_prompt_strength": self.strength}
        return {"image_prompt": list(self.pictures), **strength}

    def open(self, inputs: Inputs, request: Asked) -> None:
        """Open the pictures."""
        del request
        for picture in self.pictures:
            inputs.picture(picture, "The image prompt")

    def check(self, call: Call) -> None:
        """The model must take pictures beside the text."""
        if not math.isfinite(self.strength):
            raise ConfigError(f"image_prompt_strength must be a finite number; given {self.strength}.")
        super().check(call)

    def prepare(self, parts: Parts, task: Task) -> Prepared:
        """Tokens beside the text.

        Raises:
            ConfigError: no IP-Adapter is loaded.
        """
        from muybridge.conditioning.prepared import Prepared

        if (adapter := parts.network_for("image_prompt")) is None:
            raise ConfigError(
                "image_prompt needs an image prompt adapter; load one with pipe.load_image_prompt_adapter(path)."
            )
        pictures = [task.inputs.picture(picture, "The image prompt") for picture in self.pictures]
        tokens = adapter.tokens(pictures, task.guided, task.count, parts)
        negative = {} if tokens.negative is None else {"image_prompt": tokens.negative}
        return Prepared(
            positive={"image_prompt": tokens.positive},
            negative=negative,
            settings={"image_prompt_strength": self.strength},
        )
