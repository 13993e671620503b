"""The tiny networks of the demo: ordinary diffusers and transformers classes, small enough for two CPU cores."""

from __future__ import annotations

from typing import cast

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    PreTrainedTokenizerFast,
)

from muybridge.demo import render, world
from muybridge.types import SettingsDict

TEXT_WIDTH = 128
MAX_TOKENS = 24
START, END, UNKNOWN = "<|startoftext|>", "<|endoftext|>", "<|unknown|>"


def make_vae() -> AutoencoderKL:
    """An image VAE of 0.8 M parameters: 4x smaller in height and width, 4 channels."""
    settings: SettingsDict = {
        "block_out_channels": (32, 48, 64),
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "latent_channels": 4,
        "sample_size": render.FRAME_SIZE,
        "scaling_factor": 1.0,
    }
    return AutoencoderKL(**settings)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word of the toy world; as with CLIP's, short captions are padded with the end token."""
    words = {word: i for i, word in enumerate([START, END, UNKNOWN, *world.vocabulary()])}
    tokenizer = Tokenizer(WordLevel(words, unk_token=UNKNOWN))
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, words[START]), (END, words[END])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=START,
        eos_token=END,
        unk_token=UNKNOWN,
        pad_token=END,
        model_max_length=MAX_TOKENS,
    )


def make_clip(tokenizer: PreTrainedTokenizerFast) -> CLIPModel:
    """A CLIP of 1.1 M parameters; its text tower (0.4 M) becomes the demo's text encoder."""
    special: SettingsDict = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        **special,
    )
    vision = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=render.FRAME_SIZE,
        patch_size=8,
    )
    return CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=64))


def make_unet() -> UNet2DConditionModel:
    """An SD-type image U-Net of 4.1 M parameters on 16x16 latents.

    Self- and text attention at 8x8 and 4x4, convolutions only at 16x16.
    """
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(64, 96, 96),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,  # as in SD 1.5, this is the number of heads
        norm_num_groups=32,
    )


def make_scheduler() -> DDIMScheduler:
    """v-prediction with zero terminal signal, so that plain white and black backgrounds are reachable."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
    )


def text_tower(clip: CLIPModel) -> CLIPTextModel:
    """The text encoder of a trained CLIP, as the class that pipelines load."""
    encoder = CLIPTextModel(cast("CLIPTextConfig", clip.config.text_config))
    prefix = "text_model."
    wanted = encoder.state_dict()
    state = {k: v for k, v in clip.state_dict().items() if k.startswith(prefix)}
    if not any(key.startswith(prefix) for key in wanted):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    encoder.load_state_dict(state, strict=True)
    return encoder
