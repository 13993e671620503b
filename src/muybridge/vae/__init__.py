"""Pictures to latents and back."""

from muybridge.vae.image import decode_images, encode_images
from muybridge.vae.magvit import AutoencoderKLMagvit

__all__ = ["AutoencoderKLMagvit", "decode_images", "encode_images"]
