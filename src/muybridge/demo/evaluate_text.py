"""Do clips show what their prompts say? With the renderer and the VAE as yardsticks beside them."""

from __future__ import annotations

from muybridge.demo import evaluation
from muybridge.demo.clip_maker import ClipMaker
from muybridge.demo.measure import measure_clip
from muybridge.demo.task_report import Progress, TaskReport

_TARGETS = {"colour": 0.98, "background": 0.98, "motion": 0.9, "shape": 0.9, "all_correct": 0.8}


def evaluate_text(maker: ClipMaker, count: int, seed: int, progress: Progress | None = None) -> TaskReport:
    """Shares of clips with each attribute as asked for.

    `renders` says what the measuring itself gets wrong, `reconstructions` what the VAE alone loses.
    """
    scenes = evaluation.held_out_scenes(count, seed)
    measured, clips = evaluation.evaluate_clips(scenes, maker.from_prompts, seed, progress)
    truth = evaluation.true_clips(scenes, seed)
    columns = {
        "generated": evaluation.score(scenes, measured),
        "renders": evaluation.score(scenes, [measure_clip(clip) for clip in truth]),
        "reconstructions": evaluation.score(scenes, [measure_clip(maker.reconstruct(clip)) for clip in truth]),
    }
    by_attribute = evaluation.breakdown(scenes, measured)
    return TaskReport("text", count, seed, columns, evaluation.contact_sheet(clips), by_attribute, _TARGETS)
