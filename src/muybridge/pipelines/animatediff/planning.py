"""The stages of making a video with AnimateDiff, for plans of memory."""

from __future__ import annotations

from torch import Tensor

from muybridge.pipelines.animatediff.network import ControlledUNet
from muybridge.pipelines.stages import Stage, decode_stage, empty, token_ids
from muybridge.runtime.plan import PlanSettings
from muybridge.sampling import Guidance
from muybridge.types import ScaleFactors, SettingsView, VideoShape


def stages(parts: SettingsView, shape: VideoShape, guided: bool) -> dict[str, Stage]:
    """Text, denoising and decoding; networks beside these count with their weights alone.

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
    beside = [part for name, part in parts.items() if name.endswith("_control") or name == "image_prompt"]
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

    picture = {"picture": Stage([parts["image_encoder"]], lambda _: None)} if "image_encoder" in parts else {}
    return {
        "text": Stage(encoders, encode),
        **picture,
        "denoise": Stage([unet, *beside], denoise, ("guidance",)),
        "decode": decode_stage(vae, latent),
    }
