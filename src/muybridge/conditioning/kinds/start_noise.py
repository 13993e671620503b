"""Noise to start from, made elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from muybridge.request.condition import Condition, InMemory, register_condition

if TYPE_CHECKING:
    from muybridge.conditioning.prepared import Parts, Prepared, Task


@register_condition("start-noise")
class StartNoise(Condition):
    """What denoising starts from instead of drawn noise."""

    keywords = ("latents",)
    of_one_call = True

    latents: InMemory
    """`[b, c, f, h, w]` of unit variance."""

    def prepare(self, parts: Parts, task: Task) -> Prepared:
        """The noise.

        Raises:
            ShapeError: it is not of the size of the latents.
        """
        from muybridge.conditioning.prepared import Prepared
        from muybridge.errors import ShapeError

        del parts
        size = task.latents
        wanted = [task.count, size.channels, size.num_latent_frames, size.height, size.width]
        if list(self.latents.shape) != wanted:
            raise ShapeError(f"latents must be {wanted} for this call; given {list(self.latents.shape)}.")
        return Prepared(noise=self.latents)
