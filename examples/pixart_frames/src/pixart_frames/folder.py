"""Folders of the family: told from others, and loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import PixArtTransformer2DModel
from muybridge.backbones.dit import Transformer3DModel
from muybridge.checkpoints import parts
from muybridge.errors import ConfigError
from muybridge.motion import MotionAdapter
from muybridge.pipelines.family import Recognised, Wishes
from muybridge.pipelines.predicting import predict_as_asked
from muybridge.weights.loading import load_folder
from transformers import T5EncoderModel

from pixart_frames.family import FAMILY
from pixart_frames.pipeline import PixArtFramesPipeline

_IMAGE_MODEL = "PixArtAlphaPipeline"
_SETTINGS = ("default_steps", "default_guidance", "max_tokens")


def recognised_folder(folder: Path, index: Mapping[str, Any]) -> Recognised | None:
    """A video model that this package saved, or PixArt, which becomes one with a motion adapter."""
    del folder
    name = index.get("_class_name")
    if name == FAMILY.name:
        return Recognised("pipeline", "pixart-frames", FAMILY.name)
    if name == _IMAGE_MODEL:
        return Recognised("base-model", "base-pixart", _IMAGE_MODEL, makes_videos=False)
    return None


def load(wishes: Wishes, dtype: torch.dtype) -> PixArtFramesPipeline:
    """Load a pipeline on the CPU.

    Raises:
        ConfigError: a wish that this family does not know, or a motion adapter for another network.
        CheckpointError: a part is missing or damaged.
    """
    if wishes.choice.vae is not None:
        raise ConfigError(f"{FAMILY.name} runs with the VAE of its folder; leave vae out.")
    folder = wishes.place
    index = parts.read_model_index(folder)
    pipeline = PixArtFramesPipeline(
        vae=parts.load_vae(folder, dtype),
        text_encoder=load_folder(
            T5EncoderModel.from_pretrained,
            parts.part_folder(folder, "text_encoder"),
            "T5EncoderModel",
            {"dtype": dtype},
        ),
        tokenizer=parts.load_tokenizer(folder, index),
        transformer=_transformer(folder, dtype),
        scheduler=parts.load_scheduler(folder, index),
        **{name: index[name] for name in _SETTINGS if name in index},
    )
    if wishes.choice.motion_adapter is not None:
        pipeline.set_motion_adapter(MotionAdapter.from_pretrained(wishes.choice.motion_adapter, torch_dtype=dtype))
    predict_as_asked(pipeline, wishes.prediction, wishes.choice.model)
    return pipeline


def _transformer(folder: Path, dtype: torch.dtype) -> Transformer3DModel | PixArtTransformer2DModel:
    place, options = parts.part_folder(folder, "transformer"), {"torch_dtype": dtype}
    name = PixArtTransformer2DModel.__name__
    if parts.class_of_part(folder, "transformer") == name:
        return load_folder(PixArtTransformer2DModel.from_pretrained, place, name, options)
    return Transformer3DModel.from_pretrained(place, **options)
