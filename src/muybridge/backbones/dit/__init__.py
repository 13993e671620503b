"""EasyAnimate's diffusion transformer, with a motion site in every block."""

from muybridge.backbones.dit.config import TransformerConfig
from muybridge.backbones.dit.model import Transformer3DModel, Transformer3DOutput

__all__ = ["Transformer3DModel", "Transformer3DOutput", "TransformerConfig"]
