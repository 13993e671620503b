"""The tiny networks of the EasyAnimate demo: this package's own classes, small enough for two CPU cores."""

from __future__ import annotations

from diffusers import AutoencoderKL
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from muybridge.backbones.dit import Transformer3DModel
from muybridge.demo import render
from muybridge.demo.models import TEXT_WIDTH
from muybridge.motion import MotionAdapter
from muybridge.motion.hybrid import HYBRID_PRESETS
from muybridge.types import SettingsDict
from muybridge.vae import AutoencoderKLMagvit
from muybridge.vae.magvit.inflating import inflated_vae


def make_video_vae(image_vae: AutoencoderKL) -> AutoencoderKLMagvit:
    """A slice VAE of 2.4 M parameters: 4x smaller in height, width and time, 4 channels, in chunks of 8 frames.

    It begins as the image VAE: each of its kernels is the middle of three in time, the others are zero. So stills
    come back as from the image VAE, and clips at a quarter of their frames.

    Raises:
        CheckpointError: `image_vae` is of another architecture than `models.make_vae` gives.
    """
    return inflated_vae(image_vae)


def make_text_encoder(tokenizer: PreTrainedTokenizerFast) -> T5EncoderModel:
    """A T5 encoder of 0.5 M parameters."""
    special: SettingsDict = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=TEXT_WIDTH,
        d_kv=TEXT_WIDTH // 4,
        d_ff=4 * TEXT_WIDTH,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        **special,
    )
    return T5EncoderModel(config)


def make_vision_encoder() -> CLIPVisionModelWithProjection:
    """The picture side of contrastive training, 0.6 M parameters; not a part of the model that comes of it."""
    config = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=render.FRAME_SIZE,
        patch_size=8,
        projection_dim=64,
    )
    return CLIPVisionModelWithProjection(config)


def make_transformer() -> Transformer3DModel:
    """EasyAnimate V3 of 4.6 M parameters, with its motion modules; 4x16x16 latents are 256 tokens.

    As in V3, even blocks have two attentions along the frames and odd ones a second one over the whole video. There
    is no variance among its outputs and no image embedding among its inputs: pictures are given as masked latents.
    """
    transformer = Transformer3DModel(
        num_attention_heads=4,
        attention_head_dim=32,
        in_channels=12,
        latent_channels=4,
        out_channels=4,
        num_layers=7,
        sample_size=16,
        patch_size=2,
        caption_channels=TEXT_WIDTH,
        clip_channels=None,
    )
    transformer.set_motion_adapter(_make_adapter(transformer))
    return transformer


def _make_adapter(transformer: Transformer3DModel) -> MotionAdapter:
    specs = {}
    for index, site in enumerate(transformer.motion_sites().values()):
        config = HYBRID_PRESETS["easyanimate_v3_odd" if index % 2 else "easyanimate_v3_even"]
        config = config.with_changes(num_heads=4, trained_frames=4)
        specs[site.name] = {"kind": "hybrid", "width": site.width, "config": config.to_dict()}
    return MotionAdapter(specs)
