"""What making a video takes: networks from their settings alone, and the stages they work in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, PixArtTransformer2DModel
from muybridge.backbones.dit import Transformer3DModel
from muybridge.checkpoints.parts import part_folder
from muybridge.motion import MotionAdapter
from muybridge.pipelines.family import Wishes
from muybridge.pipelines.integration import video_model_of
from muybridge.pipelines.skeleton import Skeleton, default_dtype, made, settings_of, skeleton_parts
from muybridge.pipelines.stages import Stage, decode_stage, empty, token_ids
from muybridge.runtime.plan import PlanSettings
from muybridge.sampling import Guidance
from muybridge.types import ScaleFactors, VideoShape
from torch import Tensor, nn
from transformers import T5Config, T5EncoderModel

from pixart_frames.pipeline import MAX_TOKENS, NUM_FRAMES, Prediction, size_conditions


def skeleton(wishes: Wishes) -> Skeleton:
    """Of a folder; a motion adapter beside an image model is built of its settings too.

    Raises:
        CheckpointError: settings that cannot be read.
    """
    folder = wishes.place

    def make(dtype: torch.dtype, device: str) -> dict[str, Any]:
        parts: dict[str, Any] = skeleton_parts(folder, _MAKERS, dtype, device)
        if wishes.choice.motion_adapter is not None:
            with torch.device(device), default_dtype(dtype):
                adapter = made(MotionAdapter.from_config(settings_of(Path(wishes.choice.motion_adapter))))
            parts["transformer"].set_motion_adapter(adapter)
        return parts

    levels = len(settings_of(part_folder(folder, "vae"))["block_out_channels"])
    side = settings_of(part_folder(folder, "transformer"))["sample_size"] * 2 ** (levels - 1)
    return Skeleton(make, VideoShape(NUM_FRAMES, side, side))


def stages(parts: Mapping[str, Any], shape: VideoShape, guided: bool) -> dict[str, Stage]:
    """Text, denoising and decoding.

    Raises:
        ShapeError: a size that cannot be made.
    """
    transformer, vae, text_encoder = parts["transformer"], parts["vae"], parts["text_encoder"]
    spatial = 2 ** (len(vae.config["block_out_channels"]) - 1)
    latent = ScaleFactors(spatial).latent_shape(shape, vae.config["latent_channels"])

    def denoise(settings: PlanSettings) -> Tensor:
        states = empty(1, MAX_TOKENS, transformer.config["caption_channels"], dtype=transformer.dtype)
        told = {
            "encoder_hidden_states": states,
            "encoder_attention_mask": empty(1, MAX_TOKENS, dtype=transformer.dtype),
            **size_conditions(transformer, shape, states),
        }
        predict = Prediction(transformer, {})
        guidance = Guidance(predict, told, told if guided else None, 4.5, settings.guidance == "batched")
        return guidance(empty(1, latent.channels, latent.num_latent_frames, latent.height, latent.width), empty())

    return {
        "text": Stage([text_encoder], lambda _: text_encoder(input_ids=token_ids(1 + guided, MAX_TOKENS))),
        "denoise": Stage([transformer], denoise, ("guidance",)),
        "decode": decode_stage(vae, latent),
    }


def _transformer(path: Path) -> nn.Module:
    settings = settings_of(path)
    is_image_model = settings.get("_class_name") == PixArtTransformer2DModel.__name__
    found = PixArtTransformer2DModel if is_image_model else Transformer3DModel
    return video_model_of(made(found.from_config(settings)))


_MAKERS: dict[str, Callable[[Path], nn.Module]] = {
    "text_encoder": lambda path: T5EncoderModel(T5Config.from_pretrained(path)),
    "transformer": _transformer,
    "vae": lambda path: made(AutoencoderKL.from_config(settings_of(path))),
}
