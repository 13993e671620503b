"""What the video must obey: text, pictures, masks and other videos."""

from muybridge.conditioning.image import Picture, embed_picture, open_picture
from muybridge.conditioning.pinned import PinnedVideo, nothing_pinned, pin_keyframes, pin_video
from muybridge.conditioning.sizes import fit_size, size_like
from muybridge.conditioning.t5 import encode_prompts_t5
from muybridge.conditioning.text import EncodedPrompts, encode_prompts
from muybridge.conditioning.travel import check_travel, travelled

__all__ = [
    "EncodedPrompts",
    "Picture",
    "PinnedVideo",
    "check_travel",
    "embed_picture",
    "encode_prompts",
    "encode_prompts_t5",
    "fit_size",
    "nothing_pinned",
    "open_picture",
    "pin_keyframes",
    "pin_video",
    "size_like",
    "travelled",
]
