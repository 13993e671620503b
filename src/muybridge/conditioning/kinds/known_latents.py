"""Latents that a video must contain: those of the video it continues, without the way through 8-bit pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from muybridge.errors import ConfigError
from muybridge.request.condition import Call, Condition, InMemory, register_condition

if TYPE_CHECKING:
    from muybridge.conditioning.prepared import Parts, Prepared, Task


@register_condition("known-latents")
class KnownLatents(Condition):
    """Latents by their first latent frame; the video has exactly these there, and what is made goes on from them."""

    keywords = ("known_latents",)
    of_one_call = True

    known_latents: dict[int, InMemory]
    """`[b, c, n, h, w]`, b may be 1, as calls return them with `output_type="latent"`. They are whole pieces of the
    VAE, in EasyAnimate V3 2 latent frames for 8 frames."""

    def check(self, call: Call) -> None:
        """Not beside a source video, which decides over the same."""
        if call.has("source"):
            raise ConfigError("Give known_latents or init_video, not both.")

    def prepare(self, parts: Parts, task: Task) -> Prepared:
        """The latents at their places."""
        from muybridge.conditioning.known import collect_known
        from muybridge.conditioning.prepared import Prepared

        known = collect_known(parts.codec, self.known_latents, task.latents)
        known.check_batch(task.count)
        return Prepared(known=known)
