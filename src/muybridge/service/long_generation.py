"""Videos longer than a model makes at once, from a request to a file that grows segment by segment."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from muybridge.errors import ConfigError
from muybridge.longvideo import (
    Carry,
    ContinuationSettings,
    PipelineSegments,
    Segment,
    continue_video,
    missing_segments,
    recorded_seed,
)
from muybridge.longvideo.continuation import Frames
from muybridge.pipelines import VideoPipeline
from muybridge.pipelines.progress import Progress
from muybridge.pipelines.record import made_with, precision_of
from muybridge.request import GenerateRequest, Inputs
from muybridge.request.generate_request import DIGESTS
from muybridge.service.public_record import PublicNames
from muybridge.types import SettingsDict, SettingsView
from muybridge.video import VideoWriter

_NOT_OF_FRAMES = {"shape.num_frames", "shape.fps", "made"}
"""A finished video can be made longer, or played faster, and gone on with on another day."""


@dataclass(frozen=True)
class Redo:
    """Segments to make anew.

    Attributes:
        segments: from 0; see `continue_video`.
        following: whether those after them are too.
    """

    segments: Collection[int] = ()
    following: bool = False


@dataclass(frozen=True)
class Written:
    """A file that was written.

    Attributes:
        path: of it.
        settings: what it was made with.
        size: (frames, height, width).
        fps: frames per second.
    """

    path: Path
    settings: SettingsDict
    size: tuple[int, int, int]
    fps: float


class Listener:
    """Who is told how a long video comes along; this one does not listen."""

    def on_progress(self, progress: Progress) -> None:
        """What the pipeline tells while it makes a segment."""

    def planned(self, num_segments: int, num_missing: int) -> None:
        """How many segments there are, and how many of them are to be made."""

    def began(self, segment: int) -> None:
        """A segment is made now."""

    def made(self) -> None:
        """It is made, and is stored and written now."""


def is_long(request: GenerateRequest, is_continued: bool, frames_at_once: int) -> bool:
    """Whether a request is carried out in segments: it asks for more frames than its model makes at once.

    Where it says nothing of segments, models that are continued are; others make all frames at once, or in windows.
    """
    asked = request.segments
    if asked is None and (not is_continued or request.sampling.windows is not None):
        return False
    at_once = frames_at_once if asked is None or asked.frames is None else asked.frames
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
    redo: Redo | None = None,
    names: PublicNames | None = None,
    listener: Listener | None = None,
) -> Written:
    """Make a long video by continuation and write it as it grows.

    Finished segments lie in `segments_folder`; after an interruption, or to make some anew, the same request goes on
    from them. A request without a seed takes theirs.

    Args:
        pipeline: of the model.
        request: with more frames than are made at once.
        output: the file.
        inputs: files of the request, opened; segments made from other files are refused.
        embed_request: whether the request travels in it.
        redo: segments to make anew.
        names: what the record says in place of paths.
        listener: is told of the progress; what it raises ends the video, of which the finished segments stay.

    Raises:
        ConfigError: a source video, or keyframes other than the first and the last.
        MuybridgeError: as `continue_video`.
    """
    redo, listener = redo or Redo(), listener or Listener()
    segments = PipelineSegments(pipeline, request, inputs, on_progress=listener.on_progress)
    plan = list(segments.plan(request.shape.num_frames))
    work = segments_folder(output)
    seed = request.sampling.seed
    if seed is None:
        seed = recorded_seed(work)
    if seed is None:
        seed = secrets.randbelow(2**31)
    fps = request.shape.fps or pipeline.frames_per_second
    record = _record(pipeline, request, segments, seed, fps, inputs)
    record = record if names is None else names.in_record(record)
    named = {name: value for name, value in _by_path(record).items() if name not in _NOT_OF_FRAMES}
    settings = ContinuationSettings(seed, request=named)
    with VideoWriter(output, fps, record if embed_request else None) as writer:
        missing = missing_segments(plan, work, settings, redo.segments, redo.following)
        listener.planned(len(plan), len(missing))
        generate = _listened(segments, listener)
        continue_video(generate, plan, work, writer, settings, redo.segments, redo.following)
    return Written(writer.path, record, (writer.num_frames, *writer.size), fps)


def _listened(segments: PipelineSegments, listener: Listener) -> Callable:
    def generate(segment: Segment, carried: Carry | None, seed: int, /) -> tuple[Frames, object]:
        listener.began(segment.index)
        made = segments(segment, carried, seed)
        listener.made()
        return made

    return generate


def check_redo(
    request: GenerateRequest, pipeline: VideoPipeline, redo: Collection[int], is_following_redone: bool
) -> None:
    """Whether asking for segments to be made anew has an effect.

    Raises:
        ConfigError: the video is made at once.
    """
    if (redo or is_following_redone) and not is_long(request, pipeline.can.is_continued, pipeline.frames_at_once):
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
