"""Pictures to latents and back."""

from muybridge.vae.image import decode_images, encode_images

__all__ = ["decode_images", "encode_images"]
