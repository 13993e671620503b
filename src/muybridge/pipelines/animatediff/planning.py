"""What making a video with AnimateDiff takes: its networks from their settings, and the stages they work in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel, UNetMotionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.backbones.unet.from_diffusers import from_unet_motion_model
from muybridge.backbones.unet.sparse_control import SparseControlModel
from muybridge.checkpoints.motion_files import read_motion_config, sites_in_config
from muybridge.checkpoints.parts import class_of_part, part_folder
from muybridge.motion import MotionAdapter, MotionSite, TemporalConfig
from muybridge.pipelines.animatediff.capabilities import NUM_FRAMES
from muybridge.pipelines.animatediff.network import ControlledUNet
from muybridge.pipelines.skeleton import default_dtype, in_default_dtype, made, settings_of
from muybridge.pipelines.stages import Stage, decode_stage, empty, token_ids
from muybridge.runtime.plan import PlanSettings
from muybridge.sampling import Guidance
from muybridge.types import ScaleFactors, VideoShape

_LATENT_SIDE = 64  # of Stable Diffusion 1.5, where the settings of a U-Net name none


def part_makers(folder: Path) -> dict[str, Callable[[Path], nn.Module]]:
    """What makes each network that a folder has."""
    optional = {name: make for name, make in _OPTIONAL.items() if (folder / name).is_dir()}
    if class_of_part(folder, "unet") == UNetMotionModel.__name__:  # which has the modules of its adapter
        optional.pop("motion_adapter", None)
    return {**_ALWAYS, **optional}


def usual_shape(folder: Path) -> VideoShape:
    """Of a call that names none: what its U-Net was made for.

    Raises:
        CheckpointError: its settings cannot be read.
    """
    sample, levels = (settings_of(part_folder(folder, name)) for name in ("unet", "vae"))
    side = sample.get("sample_size")
    side = side if isinstance(side, int) else _LATENT_SIDE
    pixels = side * 2 ** (len(levels["block_out_channels"]) - 1)
    return VideoShape(NUM_FRAMES, pixels, pixels)


def stages(parts: Mapping[str, Any], shape: VideoShape, guided: bool) -> dict[str, Stage]:
    """Text, denoising and decoding; a SparseCtrl counts with its weights alone.

    Raises:
        ShapeError: a size that cannot be made.
    """
    unet, vae, text_encoder = parts["unet"], parts["vae"], parts["text_encoder"]
    if "motion_adapter" in parts:
        unet.set_motion_adapter(parts["motion_adapter"])
    spatial = 2 ** (len(vae.config["block_out_channels"]) - 1)
    latent = ScaleFactors(spatial).latent_shape(shape, unet.in_channels)
    tokens, width = text_encoder.config.max_position_embeddings, unet.config["cross_attention_dim"]
    branches = 2 if guided else 1
    controls = [part for name, part in parts.items() if name.endswith("_control")]
    second = parts.get("text_encoder_2")
    encoders = [text_encoder] if second is None else [text_encoder, second]

    def encode(_: PlanSettings) -> None:
        for encoder in encoders:
            encoder(input_ids=token_ids(branches, tokens))

    def denoise(settings: PlanSettings) -> Tensor:
        latents = empty(1, latent.channels, latent.num_latent_frames, latent.height, latent.width)
        states = {"encoder_hidden_states": empty(1, tokens, width, dtype=unet.dtype)}
        if second is not None:
            states["text_embeds"] = empty(1, second.config.projection_dim, dtype=unet.dtype)
            states["time_ids"] = empty(1, 6)
        predict = ControlledUNet(unet)
        guidance = Guidance(predict, states, states if guided else None, 7.5, settings.guidance == "batched")
        return guidance(latents, empty())

    return {
        "text": Stage(encoders, encode),
        "denoise": Stage([unet, *controls], denoise, ("guidance",)),
        "decode": decode_stage(vae, latent),
    }


def _unet(path: Path) -> nn.Module:
    settings = settings_of(path)
    if settings.get("_class_name") == "UNet3DConditionModel":
        return made(UNet3DConditionModel.from_config(settings))
    if settings.get("_class_name") == "UNetMotionModel":
        return from_unet_motion_model(made(UNetMotionModel.from_config(settings)))
    return UNet3DConditionModel.from_unet2d(made(UNet2DConditionModel.from_config(settings)))


def _motion_adapter(path: Path) -> nn.Module:
    config = read_motion_config(path)
    if "modules_by_site" in config:
        return made(MotionAdapter.from_config(config))
    # Of diffusers, whose settings say the widths by level.
    names, widths = sites_in_config(config), config.get("block_out_channels", (320, 640, 1280, 1280))
    heads = config.get("motion_num_attention_heads", 8)
    temporal = TemporalConfig(
        num_heads=heads[0] if isinstance(heads, list) else heads,
        norm_groups=config.get("motion_norm_num_groups", 32),
        trained_frames=config.get("motion_max_seq_length", 32),
    )
    return MotionAdapter.for_sites([MotionSite(name, _width(name, widths)) for name in names], config=temporal)


def _width(site: str, widths: list[int]) -> int:
    place, level, *_ = site.split(".")
    if place == "mid_block":
        return widths[-1]
    return widths[int(level)] if place == "down_blocks" else widths[-1 - int(level)]


def _vae(path: Path) -> nn.Module:
    settings = settings_of(path)
    # Stable Diffusion XL's rests in the precision asked for, and works in float32.
    precise = settings.get("force_upcast", True) and (path.parent / "text_encoder_2").is_dir()
    with default_dtype(torch.float32 if precise else torch.get_default_dtype()):
        return made(AutoencoderKL.from_config(settings))


def _second_text_encoder(path: Path) -> nn.Module:
    return CLIPTextModelWithProjection(in_default_dtype(CLIPTextConfig.from_pretrained(path)))


def _sparse_control(path: Path) -> nn.Module:
    return made(SparseControlModel.from_config(settings_of(path)))


_ALWAYS: dict[str, Callable[[Path], nn.Module]] = {
    "text_encoder": lambda path: CLIPTextModel(CLIPTextConfig.from_pretrained(path)),
    "unet": _unet,
    "vae": _vae,
}
_OPTIONAL: dict[str, Callable[[Path], nn.Module]] = {
    "text_encoder_2": _second_text_encoder,
    "motion_adapter": _motion_adapter,
    "keyframe_control": _sparse_control,
    "sketch_control": _sparse_control,
}
