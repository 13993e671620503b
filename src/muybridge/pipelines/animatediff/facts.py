"""What can be known of an AnimateDiff without its weights."""

from __future__ import annotations

from typing import Any

import torch

from muybridge.checkpoints import read_model_index
from muybridge.checkpoints.locate import locate_weights
from muybridge.checkpoints.motion_files import detect_saved_motion, read_motion_config
from muybridge.motion.reading import plan_motion
from muybridge.motion.variants import MotionVariant, motion_variant
from muybridge.pipelines.animatediff.capabilities import capabilities, usual_of
from muybridge.pipelines.animatediff.recognising import recognised_folder
from muybridge.pipelines.animatediff.skeleton import skeleton
from muybridge.pipelines.family import ModelFacts, Wishes
from muybridge.pipelines.skeleton import read_outlines
from muybridge.types import ScaleFactors

_STEPS, _GUIDANCE = 25, 7.5  # of a pipeline whose folder says neither
_NETWORKS = {"keyframe_control": "keyframes", "sketch_control": "sketches"}


def facts(wishes: Wishes) -> ModelFacts:
    """Of a folder or a single file, with what is put into it.

    Raises:
        CheckpointError: it cannot be read, or is something else.
    """
    parts: Any = skeleton(wishes).make(torch.float32, "meta")
    vae, unet = parts["vae"], parts["unet"]
    factors = ScaleFactors(2 ** (len(vae.config["block_out_channels"]) - 1))
    steps, guidance = _defaults(wishes)
    networks = tuple(role for name, role in _NETWORKS.items() if name in parts)
    return ModelFacts(
        capabilities(parts.get("text_encoder_2")), usual_of(unet, factors, None), steps, guidance, networks=networks
    )


def _defaults(wishes: Wishes) -> tuple[int, float]:
    """Steps and guidance, of the motion modules where these are run as they were made for."""
    variant = None if wishes.choice.motion_adapter is None else _variant(wishes.choice.motion_adapter, wishes)
    if wishes.place.is_file():
        return (_STEPS, _GUIDANCE) if variant is None else (variant.steps, variant.guidance)
    index = read_model_index(wishes.place)
    known = recognised_folder(wishes.place, index)
    has_own = known is not None and known.makes_videos
    if variant is not None and (variant.distilled or not has_own):
        return variant.steps, variant.guidance
    return index.get("default_steps", _STEPS), index.get("default_guidance", _GUIDANCE)


def _variant(path: str, wishes: Wishes) -> MotionVariant:
    found = locate_weights(path)
    if (said := wishes.choice.motion_variant) is not None:
        return motion_variant(said, path)
    saved = detect_saved_motion(read_motion_config(found), found.name) if found.is_dir() else None
    if saved is not None:
        return motion_variant(saved.variant, path)
    return plan_motion(read_outlines(found), found.name).variant
