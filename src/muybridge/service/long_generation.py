"""Videos longer than a model makes at once, from a request to a file that grows segment by segment."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from muybridge.errors import ConfigError
from muybridge.longvideo import Carry, ContinuationSettings, Segment, continue_video, plan_segments
from muybridge.pipelines import EasyAnimatePipeline
from muybridge.service.requests import GenerateRequest
from muybridge.video import Video, VideoWriter

_OVERLAP_FRAMES = 4  # the original's
_FRAMES_PER_SECOND = 24.0


def is_long(request: GenerateRequest, pipeline: EasyAnimatePipeline) -> bool:
    """Whether a request asks for more frames than are made at once."""
    return request.num_frames is not None and request.num_frames > _segment_frames(request, pipeline)


def _segment_frames(request: GenerateRequest, pipeline: EasyAnimatePipeline) -> int:
    return request.segment_frames or pipeline.config["default_num_frames"]


def continue_to_file(
    pipeline: EasyAnimatePipeline,
    request: GenerateRequest,
    arguments: dict[str, Any],
    output: Path,
    embed_request: bool = True,
) -> tuple[Path, dict[str, Any]]:
    """Make a long video by continuation and write it as it grows.

    Finished segments lie in a folder beside the file, `NAME.segments`; after an interruption the same request with the
    same seed goes on from them.

    Args:
        pipeline: of the model.
        request: with more frames than are made at once.
        arguments: of the pipeline, for `request`.
        output: the file.
        embed_request: whether the request travels in it.

    Returns:
        The file, and the settings it was made with.

    Raises:
        ConfigError: a source video, or keyframes other than the first and the last.
        MuybridgeError: as `continue_video`.
    """
    if "init_video" in arguments:
        raise ConfigError("A source video cannot be longer than the model makes at once; ask for fewer frames.")
    keyframes = dict(arguments.pop("keyframes", None) or {})
    first, last = keyframes.pop(0, None), keyframes.pop(-1, None)
    if keyframes:
        raise ConfigError(f"A long video can have keyframes 0 and -1; given {', '.join(map(str, keyframes))} too.")
    segment_frames = _segment_frames(request, pipeline)
    overlap = request.overlap_frames or _OVERLAP_FRAMES
    seed = secrets.randbelow(2**31) if request.seed is None else request.seed
    fps = request.fps or _FRAMES_PER_SECOND
    plan = plan_segments(
        request.num_frames,
        segment_frames,
        overlap,
        pipeline.vae.frame_multiple,
        has_first_keyframe=first is not None,
        has_last_keyframe=last is not None,
    )
    settings = request.model_dump(exclude_none=True) | {
        "seed": seed,
        "segment_frames": segment_frames,
        "overlap_frames": overlap,
    }
    settings.pop("num_frames")  # a finished video can be made longer

    def generate(segment: Segment, carried: Carry | None, segment_seed: int) -> tuple[np.ndarray, Tensor | None]:
        pinned: dict[int, Any] = {}
        if carried is not None:
            pinned |= dict(enumerate(carried.frames))
        elif segment.has_first_keyframe:
            pinned[0] = first
        if segment.has_last_keyframe:
            pinned[-1] = last
        own = {**arguments, "num_frames": segment.num_frames, "seed": segment_seed, "keyframes": pinned or None}
        video: Video = pipeline(**own)
        return video.frames, None

    request_in_file = {**settings, "num_frames": request.num_frames, "fps": fps}
    work = output.with_name(output.name + ".segments")
    with VideoWriter(output, fps, request_in_file if embed_request else None) as writer:
        continue_video(generate, plan, work, writer, ContinuationSettings(seed, request=settings))
    return writer.path, request_in_file
