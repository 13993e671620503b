"""The heart: what a motion module is, the kinds there are, and the adapters that carry them into a backbone.

Imports weights, types and errors only; knows no backbone.
"""

from muybridge.motion import hybrid as _hybrid  # each registers its kind
from muybridge.motion import low_rank as _low_rank
from muybridge.motion import temporal as _temporal
from muybridge.motion import timestep_film as _timestep_film
from muybridge.motion.adapter import MotionAdapter
from muybridge.motion.composite import (
    ComposeConfig,
    ComposeMotionModule,
    CompositeMotionModule,
    MixConfig,
    MixMotionModule,
)
from muybridge.motion.contract import ModuleSpec, MotionContext, MotionModule, MotionModuleConfig, MotionSite
from muybridge.motion.discovery import ENTRY_POINT_GROUP, Origin
from muybridge.motion.host import MotionHost
from muybridge.motion.integration import MotionIntegration, integrate_motion
from muybridge.motion.numerics import NUMERIC_PRESETS, NumericPreset, numeric_preset
from muybridge.motion.positions import cap_positions, stretch_positions
from muybridge.motion.registry import (
    KindEntry,
    build_motion_module,
    kind_origin,
    list_kinds,
    motion_kinds,
    motion_module_class,
    register_motion_module,
)

HYBRID_PRESETS = _hybrid.HYBRID_PRESETS
HybridConfig = _hybrid.HybridConfig
HybridMotionModule = _hybrid.HybridMotionModule
hybrid_preset = _hybrid.hybrid_preset
LowRankConfig = _low_rank.LowRankConfig
LowRankMotionModule = _low_rank.LowRankMotionModule
TemporalConfig = _temporal.TemporalConfig
TemporalMotionModule = _temporal.TemporalMotionModule
TimestepFilmConfig = _timestep_film.TimestepFilmConfig
TimestepFilmMotionModule = _timestep_film.TimestepFilmMotionModule

__all__ = [
    "ENTRY_POINT_GROUP",
    "HYBRID_PRESETS",
    "NUMERIC_PRESETS",
    "ComposeConfig",
    "ComposeMotionModule",
    "CompositeMotionModule",
    "HybridConfig",
    "HybridMotionModule",
    "KindEntry",
    "LowRankConfig",
    "LowRankMotionModule",
    "MixConfig",
    "MixMotionModule",
    "ModuleSpec",
    "MotionAdapter",
    "MotionContext",
    "MotionHost",
    "MotionIntegration",
    "MotionModule",
    "MotionModuleConfig",
    "MotionSite",
    "NumericPreset",
    "Origin",
    "TemporalConfig",
    "TemporalMotionModule",
    "TimestepFilmConfig",
    "TimestepFilmMotionModule",
    "build_motion_module",
    "cap_positions",
    "hybrid_preset",
    "integrate_motion",
    "kind_origin",
    "list_kinds",
    "motion_kinds",
    "motion_module_class",
    "numeric_preset",
    "register_motion_module",
    "stretch_positions",
]
