"""Finding out what goes wrong inside a network, from outside it; a name is imported when it is used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from muybridge.debug.anomaly import first_anomalous_module
    from muybridge.debug.anomaly_guard import Anomaly, AnomalyGuard
    from muybridge.debug.attention_maps import AttentionMaps
    from muybridge.debug.gradients import GradientReport, GradientWatch
    from muybridge.debug.memory_watch import MemoryReport, MemoryWatch
    from muybridge.debug.probe import Probe
    from muybridge.debug.recording import Divergence, Recording
    from muybridge.debug.reproduction import Replay, replay_anomaly
    from muybridge.debug.stage_profile import ProfileReport, StageProfile
    from muybridge.debug.tensor_memory import TensorMemory

_HOMES = {
    "Anomaly": "muybridge.debug.anomaly_guard",
    "AnomalyGuard": "muybridge.debug.anomaly_guard",
    "AttentionMaps": "muybridge.debug.attention_maps",
    "Divergence": "muybridge.debug.recording",
    "GradientReport": "muybridge.debug.gradients",
    "GradientWatch": "muybridge.debug.gradients",
    "MemoryReport": "muybridge.debug.memory_watch",
    "MemoryWatch": "muybridge.debug.memory_watch",
    "Probe": "muybridge.debug.probe",
    "ProfileReport": "muybridge.debug.stage_profile",
    "Recording": "muybridge.debug.recording",
    "Replay": "muybridge.debug.reproduction",
    "StageProfile": "muybridge.debug.stage_profile",
    "TensorMemory": "muybridge.debug.tensor_memory",
    "first_anomalous_module": "muybridge.debug.anomaly",
    "replay_anomaly": "muybridge.debug.reproduction",
}

__all__ = [
    "Anomaly",
    "AnomalyGuard",
    "AttentionMaps",
    "Divergence",
    "GradientReport",
    "GradientWatch",
    "MemoryReport",
    "MemoryWatch",
    "Probe",
    "ProfileReport",
    "Recording",
    "Replay",
    "StageProfile",
    "TensorMemory",
    "first_anomalous_module",
    "replay_anomaly",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
