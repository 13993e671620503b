"""A VAE that works in smaller pieces and gives the same numbers, up to rounding."""

from __future__ import annotations

from typing import Any


def set_exact_pieces(vae: Any, wanted: bool = True) -> None:
    """Whether a VAE works in exact pieces; if not `wanted`, as it was made.

    The VAE for videos runs its convolutions in tiles, layer by layer, with the statistics of the whole picture
    (`Tiling.EXACT`); by itself it does so for large pictures in half precision (`Tiling.AUTO`). An image VAE takes one
    picture at a time: the tiles that diffusers has for it are pictures of their own, blended, with other numbers and
    seams, and are not used here.
    """
    if hasattr(vae, "enable_slicing"):
        (vae.enable_slicing if wanted else vae.disable_slicing)()
    else:
        (vae.enable_tiling if wanted else vae.reset_tiling)()
