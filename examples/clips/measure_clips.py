"""How many clips show a jump, of prompts that say so, with a LoRA of `make_clips.py`'s clips and without.

    python examples/clips/measure_clips.py work/clips/clips.safetensors

The prompts are pairs of shape and colour that no training clip has. That other prompts stay as they were is measured by
`muybridge evaluate demo --lora FILE`.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
from make_clips import scenes
from PIL import Image

from muybridge.demo import world
from muybridge.demo.clip_maker import ClipMaker
from muybridge.demo.measure import measure_clip
from muybridge.pipelines import load_pipeline

PROMPTS = 16
SEED = 100
LEAST_HEIGHT = 0.08
"""How far a shape has to go up and down for a jump, as a share of the frame."""


def prompts() -> list[str]:
    """As the training clips' captions, of other pairs of shape and colour."""
    seen = {(scene.shape, scene.colour) for scene in scenes()}
    pairs = [(shape, colour) for shape in world.SHAPES for colour in world.COLOURS if (shape, colour) not in seen]
    chosen = [pairs[i] for i in np.random.default_rng(3).permutation(len(pairs))[:PROMPTS]]
    grounds = list(world.BACKGROUNDS)
    return [f"a {c} {s} jumping on a {grounds[i % 4]} background" for i, (s, c) in enumerate(chosen)]


def jumps(clip: np.ndarray) -> bool:
    """Whether the shape goes up and comes down again, by enough each time, and nothing else."""
    height = measure_clip(clip).centre[:, 1]
    height = height[np.isfinite(height)]
    turns, last, way = 0, height[0] if len(height) else 0.0, 0
    for value in height:
        if way >= 0 and value - last > 0:
            last, way = (value, 1)
        elif way <= 0 and value - last < 0:
            last, way = (value, -1)
        elif abs(value - last) > LEAST_HEIGHT:
            turns, way, last = turns + 1, -way, value
    return turns == 1 and way > 0


def main(lora: Path) -> None:
    """Print both shares, and write a sheet of the clips beside the LoRA."""
    warnings.filterwarnings("ignore", message="This model's vocabulary lacks 'jumping'")
    pipeline = load_pipeline("demo/animatediff")
    maker = ClipMaker(pipeline)
    texts = prompts()
    rows = []
    for name in ("without the LoRA", "with it"):
        clips = [maker.from_prompts([text], [SEED + i])[0] for i, text in enumerate(texts)]
        sys.stdout.write(f"{name}: {sum(map(jumps, clips))} of {len(clips)} jump\n")
        rows.append(np.concatenate([np.concatenate(list(clip[::2]), axis=1) for clip in clips[:8]]))
        if name.startswith("without"):
            pipeline.load_lora_weights(lora)
    Image.fromarray(np.concatenate(rows, axis=1)).save(lora.with_name("jumping.png"))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/clips/measure_clips.py LORA")
    main(Path(sys.argv[1]))
