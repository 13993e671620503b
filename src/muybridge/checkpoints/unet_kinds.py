"""Which image model a U-Net is of, from its settings, and whether it makes videos with motion modules."""

from __future__ import annotations

from muybridge.checkpoints.motion_files import LoadedMotion
from muybridge.errors import CheckpointError, ConfigError
from muybridge.types import SettingsView

_CHANNELS = 4
_OTHER_INPUTS = {
    9: "an inpainting model, which is shown a picture and a mask beside the noise",
    8: "a model that edits pictures (InstructPix2Pix), which is shown one beside the noise",
    7: "an upscaler, which is shown a small picture beside the noise",
    5: "a depth model, which is shown a depth map beside the noise",
}
_TITLES = {"sd15": "Stable Diffusion 1.5", "sd2": "Stable Diffusion 2", "sdxl": "Stable Diffusion XL"}
_SD2_TEXT_WIDTH = 1024


def unet_kind(settings: SettingsView) -> str:
    """The family, as "sd15", "sd2" or "sdxl"; sizes that nobody published count as that which they are built like."""
    if settings.get("addition_embed_type") == "text_time":
        return "sdxl"
    is_sd2 = settings.get("use_linear_projection") or settings.get("cross_attention_dim") == _SD2_TEXT_WIDTH
    return "sd2" if is_sd2 else "sd15"


def require_noise_alone(settings: SettingsView, source: str) -> None:
    """Refuse a U-Net that takes more than noisy latents, which a video from noise has nothing for.

    Raises:
        CheckpointError: otherwise; says what the model is.
    """
    channels = settings.get("in_channels", _CHANNELS)
    if channels != _CHANNELS:
        what = _OTHER_INPUTS.get(channels, "a model with another VAE, or with more inputs than noise")
        raise CheckpointError(
            f"{source} takes {channels} channels: {what}. It cannot make videos from noise; use the plain model."
        )
    if settings.get("time_cond_proj_dim") is not None:
        raise CheckpointError(
            f"{source} is told the strength of guidance (time_cond_proj_dim), as latent consistency models are; that "
            "is not supported. Use the plain model with an LCM LoRA, or with AnimateLCM."
        )


def check_motion_fits(settings: SettingsView, motion: LoadedMotion, model: str, name: str) -> None:
    """Refuse published motion modules for another image model than this, before any network is built.

    Args:
        settings: of the U-Net.
        motion: the modules.
        model: name of the image model, for messages.
        name: of the motion adapter, likewise.

    Raises:
        ConfigError: they do not fit.
    """
    if not motion.is_published:  # an adapter of this package knows its sites, and the U-Net compares them
        return
    kind, has, needed = unet_kind(settings), list(settings.get("block_out_channels", ())), _levels(motion)
    if kind == "sd2" or needed != has:
        raise ConfigError(
            f"{name} ({motion.variant.name}) is for {_TITLES[motion.variant.base]}, with levels of {needed} channels, "
            f"and {model} is {_TITLES[kind]}, with levels of {has}. Use a model and motion modules that were made for "
            "each other."
        )


def _levels(motion: LoadedMotion) -> list[int]:
    found = {name.split(".")[1]: site.width for name, site in motion.adapter.sites.items() if name.startswith("down_")}
    return [found[level] for level in sorted(found)]
