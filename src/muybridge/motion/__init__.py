"""The heart: what a motion module is, the kinds there are, and the adapters that carry them into a backbone.

Imports weights, types and errors only; knows no backbone.
"""

from muybridge.motion import hybrid as _hybrid  # each registers its kind
from muybridge.motion import temporal as _temporal
from muybridge.motion.adapter import MotionAdapter, MotionHost
from muybridge.motion.contract import ModuleSpec, MotionContext, MotionModule, MotionModuleConfig, MotionSite
from muybridge.motion.numerics import NUMERIC_PRESETS, NumericPreset, numeric_preset
from muybridge.motion.registry import (
    build_motion_module,
    motion_kinds,
    motion_module_class,
    register_motion_module,
)

HYBRID_PRESETS = _hybrid.HYBRID_PRESETS
HybridConfig = _hybrid.HybridConfig
HybridMotionModule = _hybrid.HybridMotionModule
hybrid_preset = _hybrid.hybrid_preset
TemporalConfig = _temporal.TemporalConfig
TemporalMotionModule = _temporal.TemporalMotionModule

__all__ = [
    "HYBRID_PRESETS",
    "NUMERIC_PRESETS",
    "HybridConfig",
    "HybridMotionModule",
    "ModuleSpec",
    "MotionAdapter",
    "MotionContext",
    "MotionHost",
    "MotionModule",
    "MotionModuleConfig",
    "MotionSite",
    "NumericPreset",
    "TemporalConfig",
    "TemporalMotionModule",
    "build_motion_module",
    "hybrid_preset",
    "motion_kinds",
    "motion_module_class",
    "numeric_preset",
    "register_motion_module",
]
