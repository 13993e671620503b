"""Train = infer: what is exported makes the sample of the last evaluation again, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from muybridge import load_pipeline
from muybridge.errors import ConfigError
from muybridge.training.run import run_training
from muybridge.training.run_file import load_run

RUNS = Path(__file__).resolve().parents[2] / "runs"
PROMPT = "a red circle moving left"
MAKE = """
import sys
import torch
from safetensors.torch import save_file
from muybridge import load_pipeline
from muybridge.backbones.dit import Transformer3DModel
from muybridge.motion import MotionAdapter

torch.set_num_threads(1)
model, part, trained, prompt, seed, target = sys.argv[1:]
pipeline = load_pipeline(model)
if part == "lora":
    pipeline.load_lora_weights(trained)
elif part == "motion_adapter":
    pipeline.set_motion_adapter(MotionAdapter.from_pretrained(trained))
elif part == "transformer":
    pipeline.register_modules(transformer=Transformer3DModel.from_pretrained(trained))
[latents] = pipeline(prompt, seed=int(seed), output_type="latent")
frames = pipeline(prompt, seed=int(seed)).frames
save_file({"latents": latents, "frames": torch.from_numpy(frames).contiguous()}, target)
"""


def made_anew(tmp_path: Path, model: Path, part: str, trained: Path, sample: dict[str, str]) -> dict[str, torch.Tensor]:
    """Latents and frames of a sample, from files alone."""
    target = tmp_path / "made.safetensors"
    told = [str(model), part, str(trained), sample["prompt"], sample["seed"], str(target)]
    subprocess.run([sys.executable, "-c", MAKE, *told], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return load_file(target)


def quick_base(folder: Path, name: str) -> Path:
    """The shipped model, which makes its videos in two steps if nobody says otherwise."""
    pipeline = load_pipeline(name)
    pipeline.register_to_config(default_steps=2)
    pipeline.save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "stage", "part", "settings"),
    [
        ("lora", "lora", "lora", ["rank=4"]),
        ("custom-motion", "motion-adapter", "motion_adapter", ["motion.config={num_heads: 4, trained_frames: 16}"]),
        ("transformer", "transformer", "transformer", []),
    ],
)
def test_the_last_sample_comes_out_of_the_exported_files(
    tmp_path: Path, name: str, stage: str, part: str, settings: list[str]
) -> None:
    base = quick_base(tmp_path / "base", "demo/easyanimate" if name == "transformer" else "demo/animatediff")
    few = ["steps=3", "batch_size=1", "processes=1", "warmup_steps=0", "mixed_precision=no", "learning_rate=0.02"]
    asked = ["evaluation.every=3", f"evaluation.prompts=[{PROMPT}]", "evaluation.seed=5", f"base={base}"]
    whole = [] if part == "lora" else ["model_dtype=float32"]
    published = run_training(RUNS / f"{name}.yaml", [*few, *asked, *settings, *whole], tmp_path / "run")

    path = tmp_path / "run" / stage / "sheets" / "newest.safetensors"
    kept = load_file(path)["latents"]
    with safe_open(path, "pt") as file:
        sample = file.metadata()
    assert sample == {"prompt": PROMPT, "seed": "5", "step": "3"}
    exported = tmp_path / "run" / stage / "exported" / part
    found = made_anew(tmp_path, base, part, exported, sample)
    torch.testing.assert_close(found["latents"], kept, rtol=0, atol=1e-5)
    pipeline = load_pipeline(base)
    assert torch.equal(found["frames"], torch.cat([torch.from_numpy(p) for p in pipeline.decode(kept, seed=5)]))
    [untrained] = pipeline(PROMPT, seed=5, output_type="latent")
    assert float((untrained - kept).abs().max()) > 1e-2

    model, trained = (base, published) if part == "lora" else (published, Path())
    again = made_anew(tmp_path, model, part if part == "lora" else "model", trained, sample)
    assert torch.equal(again["frames"], found["frames"])
    torch.testing.assert_close(again["latents"], kept, rtol=0, atol=1e-5)
    if whole:  # a finished run is not trained again, and its model is written as it is asked for now
        run_training(RUNS / f"{name}.yaml", [*few, *asked, *settings], tmp_path / "run")
        weights = load_file(published / part / "diffusion_pytorch_model.safetensors")
        assert {value.dtype for value in weights.values()} == {torch.float16}


@pytest.mark.parametrize("name", ["lora", "autoencoder"])
def test_a_precision_is_of_a_model(name: str) -> None:
    assert load_run(RUNS / "transformer.yaml", ["model_dtype=float32"]).model_dtype == "float32"
    with pytest.raises(ConfigError, match="model_dtype is of a model's folder"):
        load_run(RUNS / f"{name}.yaml", ["model_dtype=float32"])
