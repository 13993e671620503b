"""How often a model of the toy world shows what it was asked for, on combinations it never saw."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from muybridge.demo import render, world
from muybridge.demo.measure import ATTRIBUTES, Measurement, measure_clip
from muybridge.types import SettingsDict

GenerateClips = Callable[[list[str], list[int]], np.ndarray]
"""(prompts, seeds) -> `uint8 [n, f, h, w, 3]`; the seeds are consecutive."""
_MARK, _MARK_COLOUR = 2, (255, 0, 255)  # pixels; magenta


def held_out_scenes(count: int, seed: int, motions: Collection[str] = world.MOTIONS) -> list[world.Scene]:
    """Scenes that go through all held-out triples of `motions` in turn, with random sizes and backgrounds."""
    rng = np.random.default_rng(seed)
    triples = [triple for triple in world.HELD_OUT_TRIPLES if triple[2] in motions]
    backgrounds = list(world.BACKGROUNDS)
    return [
        world.Scene(
            *triples[i % len(triples)],
            size=world.SIZES[int(rng.integers(len(world.SIZES)))],
            background=backgrounds[int(rng.integers(len(backgrounds)))],
        )
        for i in range(count)
    ]


def score(scenes: Sequence[world.Scene], measured: Sequence[Measurement]) -> SettingsDict:
    """Share of clips in which each attribute, and all of them, are as asked; and the background's flicker (0..255)."""
    right = {
        name: np.array([getattr(m, name) == getattr(s, name) for s, m in zip(scenes, measured, strict=True)])
        for name in ATTRIBUTES
    }
    every = np.all(list(right.values()), axis=0)
    result: SettingsDict = {name: round(float(values.mean()), 4) for name, values in right.items()}
    result["all_correct"] = round(float(every.mean()), 4)
    result["background_flicker"] = round(float(np.mean([m.background_flicker for m in measured])), 3)
    return result


def breakdown(scenes: Sequence[world.Scene], measured: Sequence[Measurement]) -> dict[str, dict[str, float]]:
    """Accuracy of shape and of motion, for each shape and each motion that was asked for."""
    table: dict[str, dict[str, float]] = {}
    for name in ("shape", "motion"):
        rows: dict[str, list[bool]] = {}
        for scene, found in zip(scenes, measured, strict=True):
            wanted = getattr(scene, name)
            rows.setdefault(wanted, []).append(getattr(found, name) == wanted)
        table[name] = {wanted: round(sum(hits) / len(hits), 3) for wanted, hits in sorted(rows.items())}
    return table


def evaluate_clips(
    scenes: Sequence[world.Scene],
    generate: GenerateClips,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    batch_size: int = 8,
) -> tuple[list[Measurement], np.ndarray]:
    """Generate a clip for each scene from its full caption and measure it; clip i starts from noise `seed + i`."""
    measured: list[Measurement] = []
    kept: list[np.ndarray] = []
    for first in range(0, len(scenes), batch_size):
        batch = scenes[first : first + batch_size]
        prompts = [world.full_caption(scene) for scene in batch]
        clips = generate(prompts, [seed + first + i for i in range(len(batch))])
        measured += [measure_clip(clip) for clip in clips]
        kept.append(clips)
        if progress is not None:
            progress(len(measured), len(scenes))
    return measured, np.concatenate(kept)


def true_clips(scenes: Sequence[world.Scene], seed: int) -> np.ndarray:
    """The scenes as the renderer shows them, `uint8 [n, 16, 64, 64, 3]`."""
    rng = np.random.default_rng(seed)
    indices = np.tile(np.arange(render.CLIP_FRAMES), (len(scenes), 1))
    return render.render(scenes, indices, render.place(scenes, rng))


def contact_sheet(
    clips: np.ndarray, rows: int = 16, columns: int = 8, given: NDArray[np.bool_] | None = None
) -> np.ndarray:
    """Clips below each other, `columns` of their frames side by side: `uint8 [height, width, 3]`.

    Frames that were given to the model, `given [n, f]`, get a border of a colour that is not in the world.
    """
    chosen = np.linspace(0, clips.shape[1] - 1, min(columns, clips.shape[1])).round().astype(int)
    shown = clips[:rows, chosen]
    if given is not None:
        marks = np.zeros(clips.shape[2:4], bool)
        marks[:_MARK], marks[-_MARK:], marks[:, :_MARK], marks[:, -_MARK:] = True, True, True, True
        marked = given[:rows, chosen, None, None] & marks
        shown = np.where(marked[..., None], np.array(_MARK_COLOUR, np.uint8), shown)
    return np.concatenate([np.concatenate(list(clip), axis=1) for clip in shown], axis=0)
