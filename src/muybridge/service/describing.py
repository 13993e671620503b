"""What a model is and can be asked for, without its weights."""

from __future__ import annotations

import warnings

from muybridge.pipelines.wishes import wishes_of
from muybridge.request import ModelChoice
from muybridge.types import SettingsDict


def describe_model(model: str | ModelChoice) -> SettingsDict:
    """A model as plain values.

    `family` is the name of it. Where the family says more: `takes` (names of what the model can do), `networks` (roles,
    such as keyframes, for which it brings the network that AnimateDiff needs), `settings` (that only some models have),
    `default` (what it makes of a request that says nothing), `frames_at_once`, `is_continued` (whether longer videos
    are made in segments), and `size_multiple` and `frame_multiple`, of which sizes and numbers of frames are.

    Raises:
        CheckpointError: no such model, or one that makes no videos.
        ConfigError: parts of a choice that do not go together.
    """
    wishes = wishes_of(model)
    family = wishes.family
    described: SettingsDict = {"model": wishes.choice.model, "family": family.name}
    if family.planning.facts is None:
        return described
    with warnings.catch_warnings(action="ignore"):  # loading gives them
        facts = family.planning.facts(wishes)
    can, usual = facts.can, facts.usual
    height, width = usual.size or (None, None)
    return {
        **described,
        "takes": sorted(can.takes),
        "networks": sorted(facts.networks),
        "settings": sorted(can.settings),
        "default": {
            "num_frames": usual.num_frames,
            "width": width,
            "height": height,
            "fps": usual.fps,
            "num_inference_steps": facts.steps,
            "guidance_scale": facts.guidance,
        },
        "frames_at_once": usual.num_frames,
        "is_continued": can.is_continued,
        "size_multiple": usual.multiple,
        "frame_multiple": facts.frame_multiple,
    }
