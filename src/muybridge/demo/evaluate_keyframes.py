"""Are pictures that are pinned to frames of a clip met, and does the clip still do what its prompt says?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from muybridge.demo import evaluation, world
from muybridge.demo.clip_maker import ClipMaker
from muybridge.demo.figures import frame_figures, position_figures
from muybridge.demo.measure import Measurement, measure_clips
from muybridge.demo.task_report import Figures, Progress, TaskReport

_Clips = NDArray[np.uint8]
_SHEET_CLIPS = 6


def evaluate_image(maker: ClipMaker, count: int, seed: int, progress: Progress | None = None) -> TaskReport:
    """The first frame of a true clip is given."""
    targets = {"first_frame_psnr": 28.0, "motion": 0.9}
    return _evaluate("image", (0,), targets, maker, count, seed, progress)


def evaluate_ends(maker: ClipMaker, count: int, seed: int, progress: Progress | None = None) -> TaskReport:
    """The first and the last frame of a true clip are given."""
    return _evaluate("ends", (0, -1), {}, maker, count, seed, progress)


def evaluate_keyframes(maker: ClipMaker, count: int, seed: int, progress: Progress | None = None) -> TaskReport:
    """The first and the last frame, for a model of any family."""
    return _evaluate("keyframes", (0, -1), {}, maker, count, seed, progress)


def _evaluate(  # a task in full
    task: str,
    pinned: tuple[int, ...],
    targets: dict[str, float],
    maker: ClipMaker,
    count: int,
    seed: int,
    progress: Progress | None,
) -> TaskReport:
    scenes = evaluation.held_out_scenes(count, seed)
    truth = evaluation.true_clips(scenes, seed)
    true_measures = measure_clips(truth)

    def figures(clips: _Clips, measured: Sequence[Measurement]) -> Figures:
        places = position_figures(measured, true_measures, truth.shape[3])
        return {**frame_figures(clips, truth, pinned), **evaluation.score(scenes, measured), **places}

    def show(done: int, _count: int, before: int = 0) -> None:
        if progress is not None:
            progress(before + done, 2 * count)

    clips = _pinned_clips(maker, scenes, truth, pinned, seed, show)
    measured = measure_clips(clips)
    free_measures, free = evaluation.evaluate_clips(
        scenes, maker.from_prompts, seed, lambda done, _: show(done, count, before=count)
    )
    restored = np.stack([maker.reconstruct(clip) for clip in truth])
    columns = {
        "generated": figures(clips, measured),
        "without_condition": figures(free, free_measures),
        "reconstructions": figures(restored, measure_clips(restored)),
        "renders": evaluation.score(scenes, true_measures),
    }
    sheet = _sheet(truth, clips, free, pinned)
    return TaskReport(task, count, seed, columns, sheet, evaluation.breakdown(scenes, measured), targets)


def _pinned_clips(
    maker: ClipMaker,
    scenes: Sequence[world.Scene],
    truth: _Clips,
    pinned: tuple[int, ...],
    seed: int,
    progress: Progress,
) -> _Clips:
    # One by one, as the videos of a batch share their keyframes; on a CPU that is no slower.
    clips = []
    for index, (scene, clip) in enumerate(zip(scenes, truth, strict=True)):
        keyframes = {frame: clip[frame] for frame in pinned}
        clips.append(maker.from_keyframes(world.full_caption(scene), seed + index, keyframes))
        progress(index + 1, len(scenes))
    return np.stack(clips)


def _sheet(truth: _Clips, clips: _Clips, free: _Clips, pinned: tuple[int, ...]) -> _Clips:
    """For each clip three rows: the true one, the one made with what is given of it, and the one made without."""
    rows = np.stack([truth, clips, free], axis=1)[:_SHEET_CLIPS]
    given: np.ndarray = np.zeros(rows.shape[:3], bool)
    given[:, 1, list(pinned)] = True
    return evaluation.contact_sheet(
        rows.reshape(-1, *rows.shape[2:]), len(rows) * 3, 8, given.reshape(len(rows) * 3, -1)
    )
