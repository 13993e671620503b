"""Videos longer than a model makes at once, from a request to a file that grows segment by segment."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from muybridge.errors import ConfigError
from muybridge.longvideo import ContinuationSettings, PipelineSegments, continue_video, recorded_seed
from muybridge.pipelines import EasyAnimatePipeline
from muybridge.service.recording import DIGESTS
from muybridge.service.requests import GenerateRequest
from muybridge.video import VideoWriter

_FRAMES_PER_SECOND = 24.0


def is_long(request: GenerateRequest, pipeline: EasyAnimatePipeline) -> bool:
    """Whether a request asks for more frames than are made at once."""
    at_once = request.segment_frames or pipeline.config["default_num_frames"]
    return request.num_frames is not None and request.num_frames > at_once


def segments_folder(output: Path) -> Path:
    """Where the finished segments of a long video lie: beside its file, `NAME.segments`."""
    return output.with_name(output.name + ".segments")


def continue_to_file(
    pipeline: EasyAnimatePipeline,
    request: GenerateRequest,
    arguments: dict[str, Any],
    output: Path,
    embed_request: bool = True,
    redo: Collection[int] = (),
    is_following_redone: bool = False,
    *,
    digests: Mapping[str, str],
) -> tuple[Path, dict[str, Any]]:
    """Make a long video by continuation and write it as it grows.

    Finished segments lie in `segments_folder`; after an interruption, or to make some anew, the same request goes on
    from them. A request without a seed takes theirs.

    Args:
        pipeline: of the model.
        request: with more frames than are made at once.
        arguments: of the pipeline, for `request`.
        output: the file.
        embed_request: whether the request travels in it.
        redo: segments to make anew, from 0; see `continue_video`.
        is_following_redone: whether those after them are too.
        digests: of the files that `arguments` were read from; see `input_digests`. Segments made from other files are
            refused.

    Returns:
        The file, and the settings it was made with.

    Raises:
        ConfigError: a source video, or keyframes other than the first and the last.
        MuybridgeError: as `continue_video`.
    """
    own = {name: value for name, value in arguments.items() if name not in {"num_frames", "seed"}}
    strategy = getattr(request, "overlap_strategy", None) or "crossfade"
    segments = PipelineSegments(pipeline, own, strategy, request.segment_frames, request.overlap_frames)
    plan = segments.plan(request.num_frames)
    work = segments_folder(output)
    seed = request.seed
    if seed is None:
        seed = recorded_seed(work)
    if seed is None:
        seed = secrets.randbelow(2**31)
    fps = request.fps or _FRAMES_PER_SECOND
    settings = (
        request.model_dump(exclude_none=True)
        | {
            "seed": seed,
            "segment_frames": segments.segment_frames,
            "overlap_frames": segments.overlap_frames,
            "overlap_strategy": segments.strategy,
        }
        | ({DIGESTS: dict(digests)} if digests else {})
    )
    request_in_file = settings | {"fps": fps}
    # A finished video can be made longer, or played faster.
    left_out = {"num_frames", "fps"}
    if not request.reads_syntax:  # then its segments are those from when there was no syntax
        left_out.add("plain_prompt")
    settings = {name: value for name, value in settings.items() if name not in left_out}
    with VideoWriter(output, fps, request_in_file if embed_request else None) as writer:
        continue_video(
            segments, plan, work, writer, ContinuationSettings(seed, request=settings), redo, is_following_redone
        )
    return writer.path, request_in_file


def check_redo(request: GenerateRequest, pipeline: object, redo: Collection[int], is_following_redone: bool) -> None:
    """Whether asking for segments to be made anew has an effect.

    Raises:
        ConfigError: the video is made at once.
    """
    long = isinstance(pipeline, EasyAnimatePipeline) and is_long(request, pipeline)
    if (redo or is_following_redone) and not long:
        raise ConfigError("This video is made at once and has no segments to make anew. Give another seed instead.")
