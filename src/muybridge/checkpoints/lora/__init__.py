"""LoRA files: read in every dialect, matched to the layers of a network, attached through peft, written."""

from muybridge.checkpoints.lora.attached import AttachedLoras, inject
from muybridge.checkpoints.lora.matching import ALPHA_MODES, AlphaMode, LoraChange, match_lora
from muybridge.checkpoints.lora.names import adaptable_layers, described
from muybridge.checkpoints.lora.reading import LoraPair, read_lora
from muybridge.checkpoints.lora.writing import DIALECTS, Dialect, check_dialect, write_lora

__all__ = [
    "ALPHA_MODES",
    "DIALECTS",
    "AlphaMode",
    "AttachedLoras",
    "Dialect",
    "LoraChange",
    "LoraPair",
    "adaptable_layers",
    "check_dialect",
    "described",
    "inject",
    "match_lora",
    "read_lora",
    "write_lora",
]
