"""What making a video with EasyAnimate takes: its networks from their settings, and the stages they work in."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import T5Config, T5EncoderModel

from muybridge.backbones.dit import Transformer3DModel
from muybridge.backbones.dit.published import is_published, published_keywords
from muybridge.pipelines.easyanimate.capabilities import check_choice, check_profile
from muybridge.pipelines.easyanimate.folder import (
    locate_own_vae,
    refuse_later,
    usual_profile,
    usual_shape,
)
from muybridge.pipelines.family import Wishes
from muybridge.pipelines.skeleton import Skeleton, in_default_dtype, made, settings_of, skeleton_parts
from muybridge.pipelines.stages import Stage, empty, token_ids
from muybridge.runtime.plan import PlanSettings
from muybridge.sampling import Guidance
from muybridge.types import ScaleFactors, SettingsView, VideoShape
from muybridge.vae import AutoencoderKLMagvit
from muybridge.vae.magvit import encode_frames
from muybridge.vae.magvit.codec import decoded_pixels
from muybridge.vae.magvit.folder import read_settings
from muybridge.vae.pieces import set_exact_pieces

_T5_TOKENS = 120


def skeleton(wishes: Wishes) -> Skeleton:
    """Of a folder.

    Raises:
        CheckpointError: its settings cannot be read.
    """
    folder = wishes.place
    check_choice(wishes.choice)
    refuse_later(folder)
    makers = {name: make for name, make in _MAKERS.items() if name != "image_encoder" or (folder / name).is_dir()}
    if wishes.choice.vae is not None:
        other = locate_own_vae(wishes.choice.vae)
        makers["vae"] = lambda _: _vae(other)
    return Skeleton(
        lambda dtype, device: skeleton_parts(folder, makers, dtype, device),
        usual_shape(folder),
        is_continued=True,
        profile=usual_profile(folder),
    )


def stages(parts: SettingsView, shape: VideoShape, guided: bool, profile: str = "reference") -> dict[str, Stage]:
    """Text, denoising and decoding in a profile; where it takes pictures, encoding them too.

    Raises:
        ConfigError: no such profile.
        ShapeError: a size or number of frames that cannot be made.
    """
    check_profile(profile)
    transformer, vae, text_encoder = parts["transformer"], parts["vae"], parts["text_encoder"]
    config, factor = transformer.config, vae.spatial_factor
    frames = vae.num_latent_frames(shape.num_frames)
    latent = (frames, ScaleFactors(factor).latent_shape(shape, 1).height, shape.width // factor)
    takes_pictures = config["in_channels"] > config["latent_channels"]
    image_encoder = None if config["clip_channels"] is None else parts.get("image_encoder")

    def encode(_: PlanSettings) -> None:
        text_encoder(input_ids=token_ids(2 if guided else 1, _T5_TOKENS))

    def look(_: PlanSettings) -> None:
        side = parts["image_encoder"].config.image_size
        parts["image_encoder"](empty(1, 3, side, side, dtype=vae.dtype))

    def conditions(settings: PlanSettings) -> Any:
        # What is encoded is the mask, and the video with black where it is to be made; both piece by piece. Only the
        # second is run: it is like the first, whose latents are there then.
        set_exact_pieces(vae, settings.tiled_vae)
        first = empty(1, 2 * config["latent_channels"], *latent, dtype=vae.dtype)
        return first, torch.cat(list(encode_frames(vae, _pixels(vae, shape), shape.num_frames)), dim=2)

    def denoise(settings: PlanSettings) -> Tensor:
        with_picture = image_encoder is not None
        return _transformer_step(transformer, latent, with_picture, guided, settings.guidance == "batched")

    def decode(settings: PlanSettings) -> None:
        set_exact_pieces(vae, settings.tiled_vae)
        latents = empty(1, config["latent_channels"], *latent, dtype=vae.dtype)
        deque(decoded_pixels(vae, latents, profile == "reference"), maxlen=0)

    found = {
        "text": Stage([text_encoder], encode),
        "denoise": Stage([transformer], denoise, ("guidance",)),
        "decode": Stage([vae], decode, ("tiled_vae",)),
    }
    if takes_pictures:
        found["conditions"] = Stage([vae], conditions, ("tiled_vae",))
    if image_encoder is not None:
        found["picture"] = Stage([image_encoder], look)
    return found


def _pixels(vae: Any, shape: VideoShape) -> Iterator[Tensor]:
    count = vae.shape.frames_per_chunk or shape.num_frames

    def piece(start: int) -> Tensor:
        pixels = empty(1, 3, min(count, shape.num_frames - start), shape.height, shape.width)
        return torch.where(pixels > 0.5, -1.0, pixels).to(vae.dtype)

    return map(piece, range(0, shape.num_frames, count))


def _transformer_step(
    transformer: Any, latent: tuple[int, int, int], with_picture: bool, guided: bool, batched: bool
) -> Tensor:
    """One step of EasyAnimate's transformer under guidance."""
    config, dtype = transformer.config, transformer.dtype
    inputs = _transformer_inputs(transformer, latent, with_picture)
    sizes: dict[str, Tensor] = {}
    if transformer.transformer_config.has_size_condition:
        sizes = {"resolution": empty(1, 2), "aspect_ratio": empty(1, 1)}

    def predict(latents: Tensor, timestep: Tensor, /, **given: Tensor) -> Tensor:
        own = {name: given.pop(name) for name in sizes}
        prediction = transformer(latents.to(dtype), timestep, **given, added_cond_kwargs=own).sample
        return prediction[:, : config["latent_channels"]].float()

    both = {**inputs, **sizes}
    guidance = Guidance(predict, both, both if guided else None, 6.0, batched)
    return guidance(empty(1, config["latent_channels"], *latent), empty())


def _transformer_inputs(transformer: Any, latent: tuple[int, int, int], with_picture: bool) -> dict[str, Tensor]:
    """What one branch of EasyAnimate's transformer is told beside the latents and their size."""
    config, dtype = transformer.config, transformer.dtype
    inputs = {
        "encoder_hidden_states": empty(1, _T5_TOKENS, config["caption_channels"], dtype=dtype),
        "encoder_attention_mask": empty(1, _T5_TOKENS, dtype=dtype),
    }
    if config["in_channels"] > config["latent_channels"]:
        inputs["inpaint_latents"] = empty(1, config["in_channels"] - config["latent_channels"], *latent)
    if with_picture:  # that of the first keyframe becomes tokens behind those of the text
        inputs["clip_encoder_hidden_states"] = empty(1, config["clip_channels"], dtype=dtype)
        inputs["clip_attention_mask"] = empty(1, config["clip_tokens"], dtype=dtype)
    return inputs


def _transformer(path: Path) -> nn.Module:
    settings = settings_of(path)
    if is_published(settings):
        return Transformer3DModel(**published_keywords(settings))
    return made(Transformer3DModel.from_config(settings))


def _image_encoder(path: Path) -> nn.Module:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection  # few models have one

    return CLIPVisionModelWithProjection(in_default_dtype(CLIPVisionConfig.from_pretrained(path)))


def _vae(path: Path) -> nn.Module:
    return AutoencoderKLMagvit(**read_settings(AutoencoderKLMagvit, path))


_MAKERS: dict[str, Callable[[Path], nn.Module]] = {
    "text_encoder": lambda path: T5EncoderModel(T5Config.from_pretrained(path)),
    "image_encoder": _image_encoder,
    "transformer": _transformer,
    "vae": _vae,
}
