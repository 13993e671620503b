"""Where models are, and how their parts are read from folders."""

from muybridge.checkpoints.locate import SHIPPED_LORAS, SHIPPED_MODELS, locate_model, locate_weights
from muybridge.checkpoints.parts import read_model_index

__all__ = ["SHIPPED_LORAS", "SHIPPED_MODELS", "locate_model", "locate_weights", "read_model_index"]
