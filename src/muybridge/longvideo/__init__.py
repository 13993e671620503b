"""Videos longer than a model makes at once: plans of segments that continue each other, and the run that makes them."""

from __future__ import annotations

from muybridge.longvideo.continuation import (
    Carry,
    ContinuedVideo,
    FrameSink,
    SegmentGenerator,
    continue_video,
    missing_segments,
)
from muybridge.longvideo.drift import Drift, DriftReport, SegmentStatistics, measure_segment
from muybridge.longvideo.joining import Join, crossfade, join_frames
from muybridge.longvideo.plan import Policy, Segment, plan_segments
from muybridge.longvideo.seeds import segment_seed
from muybridge.longvideo.segments import PipelineSegments, Strategy, check_long, takes_pictures
from muybridge.longvideo.work_folder import ContinuationSettings, WorkFolder, recorded_seed

__all__ = [
    "Carry",
    "ContinuationSettings",
    "ContinuedVideo",
    "Drift",
    "DriftReport",
    "FrameSink",
    "Join",
    "PipelineSegments",
    "Policy",
    "Segment",
    "SegmentGenerator",
    "SegmentStatistics",
    "Strategy",
    "WorkFolder",
    "check_long",
    "continue_video",
    "crossfade",
    "join_frames",
    "measure_segment",
    "missing_segments",
    "plan_segments",
    "recorded_seed",
    "segment_seed",
    "takes_pictures",
]
