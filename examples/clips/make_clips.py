"""Writes the clips of this folder: shapes that jump, which the shipped models do not know.

    python examples/clips/make_clips.py work/clips

Each clip has its caption beside it, in a text file of the same name. The word "jumping" is new to the models.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from muybridge.demo import render, world
from muybridge.video import Video

CLIPS = 16
HEIGHT, JUMPS = 0.34, 1
"""How high a shape jumps, as a share of the frame, and how often in a clip."""


def make_clip(scene: world.Scene, rng: np.random.Generator) -> np.ndarray:
    """One clip, `uint8 [16, 64, 64, 3]`: the shape stands still in each frame, and each frame has it elsewhere."""
    frames = render.CLIP_FRAMES
    height = HEIGHT * np.abs(np.sin(np.pi * JUMPS * np.arange(frames) / (frames - 1)))
    x, floor = 0.5 + rng.uniform(-0.15, 0.15), 0.68 + rng.uniform(-0.04, 0.04)
    place = render.Placement(
        np.stack([np.full(frames, x), floor - height], axis=1).astype(np.float32), np.zeros(frames, np.float32)
    )
    return render.render([scene] * frames, np.zeros((frames, 1), int), place)[:, 0]


def scenes() -> list[world.Scene]:
    """Every shape and colour, no two clips with the same pair."""
    shapes, colours, backgrounds = world.SHAPES, list(world.COLOURS), list(world.BACKGROUNDS)
    return [
        world.Scene(shapes[i % len(shapes)], colours[3 * i % len(colours)], "still", "normal", backgrounds[i % 4])
        for i in range(CLIPS)
    ]


def main(folder: Path) -> None:
    """Write the clips into a folder, which is made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number, scene in enumerate(scenes()):
        path = folder / f"jumping-{number:02d}.mp4"
        Video(make_clip(scene, rng), render.FRAMES_PER_SECOND).save(path)
        caption = f"a {scene.colour} {scene.shape} jumping on a {scene.background} background"
        path.with_suffix(".txt").write_text(caption + "\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/clips/make_clips.py FOLDER")
    main(Path(sys.argv[1]))
