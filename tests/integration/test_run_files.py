"""Every recipe in runs/, for a step or two with tiny numbers: what it makes is published and can be loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from muybridge import load_pipeline
from muybridge.training.run import run_training
from muybridge.training.run_file import load_run

RUNS = Path(__file__).resolve().parents[2] / "runs"
TINY = {
    "steps": "2",
    "batch_size": "1",
    "processes": "1",
    "log_every": "1",
    "warmup_steps": "0",
    "mixed_precision": "no",
    "rank": "2",
    "num_frames": "2",
    "whole_clip_share": "0",
}
"""Of every stage that has the setting."""
OTHERS = {"autoencoder": ["loss.adversarial.start=1", "num_frames=1"]}
SLOW = {"animatediff", "demo-animatediff", "demo-easyanimate", "distil"}
"""With several stages, or several networks."""
CASES = [
    pytest.param(path, marks=[pytest.mark.slow] if path.stem in SLOW else [], id=path.stem)
    for path in sorted(RUNS.iterdir())
]


def tiny(path: Path) -> list[str]:
    settings = [
        f"{stage.method}.{name}={value}"
        for stage in load_run(path).stages
        for name, value in TINY.items()
        if name in {*type(stage).model_fields, *stage.short_forms}
    ]
    return settings + OTHERS.get(path.stem, [])


@pytest.mark.parametrize("path", CASES)
def test_a_recipe_makes_what_can_be_loaded(path: Path, tmp_path: Path) -> None:
    made = run_training(path, tiny(path), tmp_path / "run")

    stages = load_run(path).stages
    assert all((tmp_path / "run" / stage.method / "log.jsonl").is_file() for stage in stages)
    if made.name == "vae":
        load_pipeline(stages[-1].base, vae=str(made))  # type: ignore[attr-defined]  # of the stage that makes one
    elif made.is_file():
        pipeline = load_pipeline("demo/animatediff")
        pipeline.load_lora_weights(made)
        assert pipeline.get_active_adapters() == [path.stem.replace("-", "_")]
    else:
        load_pipeline(made)
