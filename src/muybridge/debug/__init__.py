"""Finding out what goes wrong inside a network, from outside it."""

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
