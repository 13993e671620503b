"""What the video must obey: text, and later pictures, masks and other videos."""

from muybridge.conditioning.text import EncodedPrompts, encode_prompts

__all__ = ["EncodedPrompts", "encode_prompts"]
