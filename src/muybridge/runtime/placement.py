"""How a loaded pipeline was fitted into memory, in plain values."""

from __future__ import annotations

from dataclasses import dataclass

from muybridge.runtime.plan import Guiding, Offload

_OFFLOADS = {
    "none": "all weights on the device",
    "model": "parts waiting on the host until their stage",
    "group": "layers waiting on the host until their turn",
}


@dataclass(frozen=True)
class Placement:
    """What was chosen.

    Attributes:
        dtype: of all networks, as "bfloat16".
        guidance: both branches in one call, or one after the other; what a call does that does not say it.
        tiled_vae: whether the VAE works in exact pieces.
        offload: parts or layers wait in the memory of the host, or nothing does.
        speed: names of the optimizations applied besides.
        peak_bytes: most memory that the device is predicted to need for `shape`; None where nothing was planned.
        shape: frames, height and width that were planned for.
    """

    dtype: str
    guidance: Guiding = "batched"
    tiled_vae: bool = False
    offload: Offload = "none"
    speed: tuple[str, ...] = ()
    peak_bytes: int | None = None
    shape: tuple[int, int, int] | None = None

    @property
    def batched_guidance(self) -> bool:
        """Whether both branches of guidance run in one call."""
        return self.guidance == "batched"


def describe(placement: Placement) -> str:
    """The choice in one line for a person."""
    words = [placement.dtype]
    if placement.peak_bytes is not None:
        words.append("guidance at once" if placement.batched_guidance else "guidance in turn")
        words.append("the VAE in exact pieces" if placement.tiled_vae else "the VAE as it is")
        words.append(_OFFLOADS[placement.offload])
    words += placement.speed
    line = ", ".join(words)
    if placement.peak_bytes is None or placement.shape is None:
        return f"{line}."
    frames, height, width = placement.shape
    return f"{line}: at most {_amount(placement.peak_bytes)} for {frames} frames of {width}x{height}."


def _amount(count: int) -> str:
    return f"{count / 1e9:.3g} GB" if count >= 10**9 else f"{count / 1e6:.3g} MB"
