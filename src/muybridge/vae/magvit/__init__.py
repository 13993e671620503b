"""EasyAnimate's video VAEs."""

from muybridge.vae.magvit.config import TemporalMode
from muybridge.vae.magvit.model import AutoencoderKLMagvit
from muybridge.vae.magvit.smoothing import smooth_output
from muybridge.vae.magvit.streaming import decode_frames, encode_frames
from muybridge.vae.magvit.tiling import Tiling

__all__ = ["AutoencoderKLMagvit", "TemporalMode", "Tiling", "decode_frames", "encode_frames", "smooth_output"]
