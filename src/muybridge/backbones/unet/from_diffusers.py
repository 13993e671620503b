"""diffusers' own video U-Net as ours, sharing its weights."""

from __future__ import annotations

import re

import torch
from diffusers import UNetMotionModel

from muybridge.backbones.unet.model import UNet3DConditionModel
from muybridge.motion import MotionAdapter, TemporalConfig
from muybridge.motion.keys import DIFFUSERS_MOTION_KEYS
from muybridge.weights.keymap import apply_key_map

_SETTINGS = (
    "sample_size",
    "in_channels",
    "out_channels",
    "block_out_channels",
    "layers_per_block",
    "cross_attention_dim",
    "norm_num_groups",
    "norm_eps",
    "use_linear_projection",
    "transformer_layers_per_block",
    "addition_embed_type",
    "addition_time_embed_dim",
    "projection_class_embeddings_input_dim",
)


def from_unet_motion_model(source: UNetMotionModel) -> UNet3DConditionModel:
    """Make our model of a `UNetMotionModel` laid out as Stable Diffusion 1.5 or XL; the two share their weights.

    The numeric preset is `diffusers`, so both give the same numbers (float32: to about 1e-6 of the largest value).

    Raises:
        ConfigError: a layout of blocks that is not supported.
        RuntimeError: the source has weights that this network does not have.
    """
    config = source.config
    settings = {name: config[name] for name in _SETTINGS}
    settings["down_block_types"] = [name.replace("Motion", "2D") for name in config["down_block_types"]]
    settings["up_block_types"] = [name.replace("Motion", "2D") for name in config["up_block_types"]]
    state = source.state_dict()
    motion = apply_key_map(DIFFUSERS_MOTION_KEYS, state)
    occupied = {
        key.removesuffix(".norm.weight") for key in motion if re.search(r"motion_modules\.\d+\.norm\.weight$", key)
    }
    temporal = TemporalConfig(
        num_heads=config["motion_num_attention_heads"], trained_frames=config["motion_max_seq_length"]
    )
    with torch.device("meta"):
        model = UNet3DConditionModel(attention_head_dim=config["num_attention_heads"], **settings)
        sites = [site for site in model.motion_sites().values() if site.name in occupied]
        adapter = MotionAdapter.for_sites(sites, config=temporal)
    adapter.load_state_dict(motion, strict=True, assign=True)
    image = {key: value for key, value in state.items() if "motion_modules." not in key}
    model.load_state_dict(image, strict=True, assign=True)
    adapter.set_numerics("diffusers")
    model.set_motion_adapter(adapter)
    return model.train(source.training)
