"""Sizes of kinds in the full-size backbones."""

from __future__ import annotations

from muybridge.authoring.kind_sizes import kind_sizes


def test_sizes_of_kinds() -> None:
    sizes = {each.entry.kind: each.num_parameters for each in kind_sizes()}
    # 21 modules of 2 attentions: AnimateDiff v2's 453 million; 28 modules of width 1152 in EasyAnimate.
    assert sizes["temporal"] == {"unet": 453_209_280, "dit": 818_173_440}
    rank, per_width = 64, {320: 5, 640: 5, 1280: 11}
    expected = sum(
        count * (2 * w + w * rank + rank + 4 * rank**2 + rank + 2 * rank * 1281 + rank * w + w)
        for w, count in per_width.items()
    )
    assert sizes["low_rank"]["unet"] == expected
    assert sizes["compose"] == {"unet": None, "dit": None}
