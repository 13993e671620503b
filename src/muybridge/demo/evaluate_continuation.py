"""Does a clip that is continued again and again stay what it was?"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from muybridge.demo import evaluation, render, world
from muybridge.demo.clip_maker import ClipMaker, Frames
from muybridge.demo.figures import Stretch, drift_figures
from muybridge.demo.measure import measure_clips
from muybridge.demo.task_report import Figures, Progress, TaskReport
from muybridge.longvideo import (
    ContinuationSettings,
    PipelineSegments,
    Segment,
    Strategy,
    continue_video,
    takes_pictures,
)
from muybridge.request import Request, Segments, Shape

NUM_FRAMES = 96
ENDLESS_MOTIONS = ("still", "spinning")
"""What can go on for ever: whatever moves leaves the frame, and what grows or shrinks fills it or vanishes."""
PIECES = {
    "beginning": 0,
    "middle": (NUM_FRAMES - render.CLIP_FRAMES) // 2,
    "end": NUM_FRAMES - render.CLIP_FRAMES,
}
"""First frames of the stretches, as long as a clip, that are measured."""
_SHEET_CLIPS, _SHEET_COLUMNS = 8, 16


class _Frames:
    """Keeps what `continue_video` writes."""

    def __init__(self) -> None:
        self.pieces: list[Frames] = []

    def write(self, frames: Frames, /) -> None:
        self.pieces.append(frames)


def evaluate_continuation(maker: ClipMaker, count: int, seed: int, progress: Progress | None = None) -> TaskReport:
    """Attributes and drift at the beginning, in the middle and at the end of videos of 96 frames.

    Videos are made of segments as long as a clip, by each strategy that the model knows, which shares its usual number
    of frames (4 as pictures, a piece of the VAE as latents). Only motions without end are asked for.
    """
    scenes = evaluation.held_out_scenes(count, seed, ENDLESS_MOTIONS)
    columns: dict[str, Figures] = {}
    sheets: list[NDArray[np.uint8]] = []
    strategies = _strategies(maker)
    for place, strategy in enumerate(strategies):
        videos = []
        for index, scene in enumerate(scenes):
            videos.append(_continued(_segments(maker, scene, strategy), seed + index))
            if progress is not None:
                progress(place * count + len(videos), len(strategies) * count)
        columns |= _columns(strategy, scenes, np.stack(videos))
        sheets.append(_sheet(np.stack(videos), _segments(maker, scenes[0], strategy).plan(NUM_FRAMES)))
    return TaskReport("continuation", count, seed, columns, np.concatenate(sheets))


def check_continuation(maker: ClipMaker) -> None:
    """Find out whether the model continues videos.

    Raises:
        ConfigError: it does not.
    """
    _strategies(maker)


def _strategies(maker: ClipMaker) -> list[Strategy]:
    """Those that work with the model: from latents always, from pictures if it takes any."""
    return [name for name in get_args(Strategy) if name == "latent" or takes_pictures(maker.pipeline)]


def _segments(maker: ClipMaker, scene: world.Scene, strategy: Strategy) -> PipelineSegments:
    request = Request(
        prompt=world.full_caption(scene),
        shape=Shape(height=render.FRAME_SIZE, width=render.FRAME_SIZE),
        sampling=maker.sampling,
        segments=Segments(frames=render.CLIP_FRAMES, strategy=strategy),
    )
    return PipelineSegments(maker.pipeline, request)


def _continued(segments: PipelineSegments, seed: int) -> Frames:
    frames = _Frames()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder) / "segments"
        continue_video(segments, segments.plan(NUM_FRAMES), work, frames, ContinuationSettings(seed))
    return np.concatenate(frames.pieces)


def _columns(strategy: str, scenes: Sequence[world.Scene], videos: Frames) -> dict[str, Figures]:
    begun = _stretch(videos, "beginning")
    columns: dict[str, Figures] = {}
    for piece in PIECES:
        stretch = _stretch(videos, piece)
        columns[f"{strategy}_{piece}"] = {**evaluation.score(scenes, stretch.measured), **drift_figures(begun, stretch)}
    return columns


def _stretch(videos: Frames, piece: str) -> Stretch:
    frames = videos[:, PIECES[piece] : PIECES[piece] + render.CLIP_FRAMES]
    return Stretch(frames, measure_clips(frames))


def _sheet(videos: Frames, plan: Iterable[Segment]) -> NDArray[np.uint8]:
    carried = np.zeros(videos.shape[:2], bool)
    for segment in plan:
        carried[:, segment.start : segment.start + segment.num_known] = True
    return evaluation.contact_sheet(videos, _SHEET_CLIPS, _SHEET_COLUMNS, carried)
