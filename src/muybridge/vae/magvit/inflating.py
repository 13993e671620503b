"""A video VAE that begins as a VAE of pictures."""

from __future__ import annotations

from collections.abc import Mapping

from diffusers import AutoencoderKL
from torch import Tensor

from muybridge.types import SettingsDict
from muybridge.vae.magvit.model import AutoencoderKLMagvit
from muybridge.weights.loading import load_strictly

_SLICE: SettingsDict = {"slice_compression_vae": True, "mini_batch_encoder": 8, "mini_batch_decoder": 2}
_MAGVIT: SettingsDict = {"slice_compression_vae": False, "mini_batch_encoder": None, "mini_batch_decoder": None}
_NAMES_OF_IMAGE_VAE = {
    ".resnets.": ".convs.",
    ".conv_shortcut.": ".shortcut.",
    ".downsamplers.0.": ".downsampler.",
    ".upsamplers.0.": ".upsampler.",
    ".to_out.0.": ".to_out.",
}


def inflated_vae(image_vae: AutoencoderKL, in_slices: bool = True) -> AutoencoderKLMagvit:
    """A VAE of videos whose kernels are those of a VAE of pictures in the middle, and zero before and after.

    So stills come back as from the image VAE, and clips at a quarter of their frames.

    Args:
        image_vae: of Stable Diffusion's architecture.
        in_slices: for pieces of 8 frames as EasyAnimate V3, else for 9 that depend on those before, as MagViT.

    Raises:
        CheckpointError: `image_vae` is of another architecture.
    """
    channels = tuple(image_vae.config["block_out_channels"])
    vae = AutoencoderKLMagvit(
        down_block_types=("SpatialTemporalDownBlock3D",) * len(channels),
        up_block_types=("SpatialTemporalUpBlock3D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=image_vae.config["layers_per_block"],
        latent_channels=image_vae.config["latent_channels"],
        norm_num_groups=image_vae.config["norm_num_groups"],
        scaling_factor=1.0,
        **(_SLICE if in_slices else _MAGVIT),
    )
    load_strictly(vae, _inflated(image_vae.state_dict(), vae.state_dict()), "the image VAE")
    return vae


def _inflated(images: Mapping[str, Tensor], videos: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights for the names and shapes of `videos`."""
    result: dict[str, Tensor] = {}
    for key, value in images.items():
        name = key
        for old, new in _NAMES_OF_IMAGE_VAE.items():
            name = name.replace(old, new)
        result[name] = value
        wanted = videos.get(name)
        if wanted is not None and wanted.ndim == 5 and value.ndim == 4:
            kernel = result[name] = value.new_zeros(*value.shape[:2], wanted.shape[2], *value.shape[2:])
            kernel[:, :, wanted.shape[2] // 2] = value
    return result
