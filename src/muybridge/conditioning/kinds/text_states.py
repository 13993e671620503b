"""Text states that were made elsewhere, in place of prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from muybridge.errors import ConfigError, ShapeError
from muybridge.request.condition import Call, Condition, InMemory, register_condition

if TYPE_CHECKING:
    from muybridge.conditioning.prepared import Parts, Prepared, Task

_POOLED = ("pooled_prompt_embeds", "negative_pooled_prompt_embeds")
_MASKS = ("prompt_mask", "negative_prompt_mask")


@register_condition("text-states")
class TextStates(Condition):
    """The outputs of the text encoders."""

    keywords = ("prompt_embeds", "negative_prompt_embeds", *_POOLED, *_MASKS)

    prompt_embeds: InMemory = None
    """`[b, n, d]`."""
    negative_prompt_embeds: InMemory = None
    """Likewise; both as long as each other."""
    pooled_prompt_embeds: InMemory = None
    """Of SDXL, each prompt as one vector `[b, d]`."""
    negative_pooled_prompt_embeds: InMemory = None
    """Likewise."""
    prompt_mask: InMemory = None
    """Of T5, `[b, n]`, 1 for tokens that count; by default all."""
    negative_prompt_mask: InMemory = None
    """Likewise."""

    def check(self, call: Call) -> None:
        """Negatives where there is guidance, pooled vectors and masks for models that read them."""
        masks = [name for name in _MASKS if getattr(self, name) is not None]
        if masks and self.prompt_embeds is None:
            raise ConfigError(f"{', '.join(masks)} goes with prompt_embeds; give both, or neither.")
        width = call.can.pooled_width
        pooled = {name: getattr(self, name) for name in _POOLED}
        given = [name for name, value in pooled.items() if value is not None]
        if given and width is None:
            raise ConfigError(f"{given[0]}: only Stable Diffusion XL takes pooled text states; leave them out.")
        if given and self.prompt_embeds is None:
            raise ConfigError(f"{given[0]} goes with prompt_embeds; give both, or neither.")
        if masks:
            call.can.require({"text masks"}, ", ".join(masks))
        if not call.guided and pooled.pop("negative_pooled_prompt_embeds") is not None:
            raise ConfigError("negative_pooled_prompt_embeds has no effect at guidance_scale 1; leave it out.")
        if width is None or self.prompt_embeds is None:
            return
        wanted = [len(self.prompt_embeds), width]
        for name, value in pooled.items():
            if value is None or list(value.shape) != wanted:
                found = "none" if value is None else list(value.shape)
                raise ShapeError(f"With prompt_embeds, {name} must be {wanted} for this model; given {found}.")

    def prepare(self, parts: Parts, task: Task) -> Prepared:
        """The states."""
        from muybridge.conditioning.prepared import Prepared
        from muybridge.conditioning.text import EncodedPrompts

        del parts, task
        return Prepared(
            text=EncodedPrompts(
                self.prompt_embeds,
                self.negative_prompt_embeds,
                self.prompt_mask,
                self.negative_prompt_mask,
                self.pooled_prompt_embeds,
                self.negative_pooled_prompt_embeds,
            )
        )
