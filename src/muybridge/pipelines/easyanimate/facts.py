"""What can be known of an EasyAnimate without its weights."""

from __future__ import annotations

from typing import Any

import torch

from muybridge.checkpoints.parts import read_model_index
from muybridge.pipelines.easyanimate.capabilities import capabilities, usual_of
from muybridge.pipelines.easyanimate.folder import is_published_folder, usual_shape
from muybridge.pipelines.easyanimate.planning import skeleton
from muybridge.pipelines.family import ModelFacts, Wishes

_STEPS, _GUIDANCE = 25, 7.0  # of a pipeline whose folder says neither


def facts(wishes: Wishes) -> ModelFacts:
    """Of a folder.

    Raises:
        CheckpointError: its settings cannot be read.
    """
    parts: Any = skeleton(wishes).make(torch.float32, "meta")
    vae, config = parts["vae"], parts["transformer"].config
    index = {} if is_published_folder(wishes.place) else read_model_index(wishes.place)
    shape = usual_shape(wishes.place)
    usual = usual_of(vae, shape.num_frames, (shape.height, shape.width), vae.spatial_factor * config["patch_size"])
    return ModelFacts(
        capabilities(config["in_channels"] > config["latent_channels"]),
        usual,
        index.get("default_steps", _STEPS),
        index.get("default_guidance", _GUIDANCE),
        vae.frame_multiple,
    )
