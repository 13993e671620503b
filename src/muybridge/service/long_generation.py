"""Videos longer than a model makes at once, from a request to a file that grows segment by segment."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from pathlib import Path

from muybridge.errors import ConfigError
from muybridge.longvideo import ContinuationSettings, PipelineSegments, continue_video, recorded_seed
from muybridge.pipelines import VideoPipeline
from muybridge.pipelines.record import made_with, precision_of
from muybridge.request import GenerateRequest, Inputs
from muybridge.request.generate_request import DIGESTS
from muybridge.types import SettingsDict, SettingsView
from muybridge.video import VideoWriter

_NOT_OF_FRAMES = {"shape.num_frames", "shape.fps", "made"}
"""A finished video can be made longer, or played faster, and gone on with on another day."""


def is_long(request: GenerateRequest, pipeline: VideoPipeline) -> bool:
    """Whether a request is carried out in segments: it asks for more frames than are made at once.

    Where it says nothing of segments, models that are continued are; others make all frames at once, or in windows.
    """
    asked = request.segments
    if asked is None and (not pipeline.can.is_continued or request.sampling.windows is not None):
        return False
    at_once = pipeline.frames_at_once if asked is None or asked.frames is None else asked.frames
    return request.shape.num_frames is not None and request.shape.num_frames > at_once


def segments_folder(output: Path) -> Path:
    """Where the finished segments of a long video lie: beside its file, `NAME.segments`."""
    return output.with_name(output.name + ".segments")


def continue_to_file(
    pipeline: VideoPipeline,
    request: GenerateRequest,
    output: Path,
    inputs: Inputs,
    embed_request: bool = True,
    *,
    redo: Collection[int] = (),
    is_following_redone: bool = False,
) -> tuple[Path, SettingsDict]:
    """Make a long video by continuation and write it as it grows.

    Finished segments lie in `segments_folder`; after an interruption, or to make some anew, the same request goes on
    from them. A request without a seed takes theirs.

    Args:
        pipeline: of the model.
        request: with more frames than are made at once.
        output: the file.
        inputs: files of the request, opened; segments made from other files are refused.
        embed_request: whether the request travels in it.
        redo: segments to make anew, from 0; see `continue_video`.
        is_following_redone: whether those after them are too.

    Returns:
        The file, and the settings it was made with.

    Raises:
        ConfigError: a source video, or keyframes other than the first and the last.
        MuybridgeError: as `continue_video`.
    """
    segments = PipelineSegments(pipeline, request, inputs)
    plan = segments.plan(request.shape.num_frames)
    work = segments_folder(output)
    seed = request.sampling.seed
    if seed is None:
        seed = recorded_seed(work)
    if seed is None:
        seed = secrets.randbelow(2**31)
    fps = request.shape.fps or pipeline.frames_per_second
    record = _record(pipeline, request, segments, seed, fps, inputs)
    settings = {name: value for name, value in _by_path(record).items() if name not in _NOT_OF_FRAMES}
    with VideoWriter(output, fps, record if embed_request else None) as writer:
        continue_video(
            segments, plan, work, writer, ContinuationSettings(seed, request=settings), redo, is_following_redone
        )
    return writer.path, record


def check_redo(
    request: GenerateRequest, pipeline: VideoPipeline, redo: Collection[int], is_following_redone: bool
) -> None:
    """Whether asking for segments to be made anew has an effect.

    Raises:
        ConfigError: the video is made at once.
    """
    if (redo or is_following_redone) and not is_long(request, pipeline):
        raise ConfigError("This video is made at once and has no segments to make anew. Give another seed instead.")


def _record(
    pipeline: VideoPipeline, request: GenerateRequest, segments: PipelineSegments, seed: int, fps: float, inputs: Inputs
) -> SettingsDict:
    plain = request.plain()
    model = {name: value for name, value in plain["model"].items() if name not in ("device", "memory")}
    return {
        **plain,
        "model": {**model, "dtype": precision_of(pipeline)},
        "made": made_with(pipeline),
        "shape": {**plain.get("shape", {}), "fps": fps},
        "sampling": {**plain.get("sampling", {}), "seed": seed},
        "segments": {
            "frames": segments.segment_frames,
            "overlap": segments.overlap_frames,
            "strategy": segments.strategy,
        },
        **({DIGESTS: dict(inputs.digests)} if inputs.digests else {}),
    }


def _by_path(values: SettingsView, above: str = "") -> SettingsDict:
    """Values by where they are, as in `sampling.eta`, so that a difference has a name."""
    found: SettingsDict = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and above + name not in (DIGESTS, "made"):
            found |= _by_path(value, f"{above}{name}.")
        else:
            found[above + name] = value
    return found
