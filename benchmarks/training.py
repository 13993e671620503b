"""Steps of our trainer beside a minimal loop written by hand, on the same model and the same batches.

    python benchmarks/training.py [--json] [--steps 20] [--threads 2] [--methods motion lora]

Both learn with AdamW in one process and take turns step by step: the loop by hand runs while our trainer asks for its
next batch. `speed` is its median time over ours, above 1 is better; `speed_cpu` is the same of the time on the
processor, which says more where other programs run beside. With `cached` ours has its latents and text states
from disk, and the loop by hand encodes. `waiting` is the share of the time of a training on video files that it waits
for clips to be decoded. Memory is what one step takes above the weights; the LoRA by hand is peft's.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from measuring import Times, machine, write_results
from muybridge.data.settings import DataSettings
from muybridge.debug.tensor_memory import TensorMemory
from muybridge.pipelines import load_pipeline
from muybridge.training.clip_sets import ClipSets
from muybridge.training.config import TrainerConfig
from muybridge.training.data import Batch, BatchSource
from muybridge.training.methods.adapters import MotionMethod
from muybridge.training.methods.denoise import DenoisingMethod
from muybridge.training.methods.lora import LoraMethod, LoraShape
from muybridge.training.objective.diffusion import DiffusionObjective
from muybridge.training.optimizers import OptimizerSettings
from muybridge.training.schedules import ScheduleSettings
from muybridge.training.stages.base_model import networks_of, training_scheduler, wanted_clips
from muybridge.training.trainer import Trainer
from muybridge.video import Video

MODEL = "demo/animatediff"
METHODS = ("motion", "lora")
CLIPS, BATCH = 8, 2
RATE, CLIP = 1e-4, 1.0
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
RANK = 16
Step = Callable[[Batch], float]


@dataclass(frozen=True)
class StageByName:
    """What of a stage its batches depend on."""

    batch_size: int = BATCH
    seed: int = 0


@dataclass
class Turns:
    """Batches for a trainer, between which the loop by hand does the same work.

    Attributes:
        ours: where the trainer's batches come from.
        theirs: where those of the loop by hand come from.
        step: of the loop by hand.
        trainer_times: of each step of the trainer.
        hand_times: of each step by hand.
    """

    ours: BatchSource
    theirs: BatchSource
    step: Step
    trainer_times: list[Times] = field(default_factory=list)
    hand_times: list[Times] = field(default_factory=list)
    _left: Times | None = None

    def __call__(self, index: int) -> Batch:
        """A batch, once the loop by hand has had its turn."""
        if self._left is not None:
            self.trainer_times.append(since(self._left))
        own, other = self.ours(index), self.theirs(index)
        began = now()
        self.step(other)
        self.hand_times.append(since(began))
        self._left = now()
        return own


def now() -> Times:
    """The clock, and the time on the processor."""
    return Times(time.perf_counter(), time.process_time())


def since(began: Times) -> Times:
    """What has gone by."""
    return Times(time.perf_counter() - began.wall, time.process_time() - began.cpu)


@dataclass
class Waits:
    """Batches, and the seconds that making them held the trainer up."""

    source: BatchSource
    seconds: list[float] = field(default_factory=list)

    def __call__(self, index: int) -> Batch:
        """A batch."""
        began = time.perf_counter()
        batch = self.source(index)
        self.seconds.append(time.perf_counter() - began)
        return batch


def our_method(name: str) -> nn.Module:
    """Of the shipped model."""
    pipeline = load_pipeline(MODEL)
    how = pipeline.family.training
    assert how is not None  # noqa: S101  # the shipped model is trained
    networks, objective = networks_of(pipeline), DiffusionObjective(training_scheduler(pipeline))
    if name == "motion":
        return MotionMethod(networks, objective, how)
    return LoraMethod(DenoisingMethod(networks, objective, how), "attention", LoraShape(RANK))


def step_by_hand(name: str) -> Step:
    """A step as a script has it: peft's LoRA, or the motion modules, AdamW, clipped gradients."""
    pipeline: Any = load_pipeline(MODEL)
    unet, vae, text, scheduler = pipeline.unet, pipeline.vae, pipeline.text_encoder, training_scheduler(pipeline)
    for network in (unet, vae, text):
        network.requires_grad_(False)
        network.eval()
    if name == "motion":
        unet.motion_adapter.requires_grad_(True)
    else:
        inject_adapter_in_model(LoraConfig(r=RANK, lora_alpha=RANK // 2, target_modules=TARGETS), unet)
    parameters = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=RATE)
    is_velocity = scheduler.config["prediction_type"] == "v_prediction"

    def step(batch: Batch) -> float:
        with torch.no_grad():
            pixels = batch["pixels"]
            latents = vae.encode(pixels.flatten(0, 1)).latent_dist.mean * vae.config["scaling_factor"]
            latents = latents.unflatten(0, pixels.shape[:2]).transpose(1, 2)
            states = text(input_ids=batch["input_ids"]).last_hidden_state
        noise = torch.randn(latents.shape)
        timesteps: Any = torch.randint(scheduler.config["num_train_timesteps"], (len(latents),))
        noisy: Any = scheduler.add_noise(latents, noise, timesteps)
        said = unet(noisy, timesteps, encoder_hidden_states=states, frame_positions=batch["frame_positions"]).sample
        loss = F.mse_loss(said, scheduler.get_velocity(latents, noise, timesteps) if is_velocity else noise)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


def make_clips(folder: Path) -> Path:
    """Videos of 24 frames at 12 a second, of twice the size that is trained on."""
    noise = np.random.default_rng(0)
    folder.mkdir()
    for number in range(CLIPS):
        small = noise.integers(0, 255, (24, 16, 16, 3), np.uint8)
        Video(small.repeat(8, axis=1).repeat(8, axis=2), 12).save(folder / f"{number}.mp4")
        (folder / f"{number}.txt").write_text("a red circle moving left")
    return folder


def batches_of(folder: Path, cache: Path | None = None) -> ClipSets:
    """The videos as training data."""
    settings = {"sources": [{"path": str(folder)}], "num_frames": [16], "size": [64, 64]}
    return ClipSets(DataSettings.model_validate(settings | ({} if cache is None else {"cache": str(cache)})))


def trainer_config(steps: int) -> TrainerConfig:
    """As the loop by hand, which keeps no average and no checkpoint."""
    return TrainerConfig(
        steps=steps,
        learning_rate=RATE,
        optimizer=OptimizerSettings(name="adamw"),
        schedule=ScheduleSettings(name="constant"),
        max_gradient_norm=CLIP,
        ema_decay=0.0,
        mixed_precision="no",
        checkpoint_seconds=1e9,
        trackers=(),
    )


def measure(name: str, steps: int, folder: Path) -> dict[str, Any]:
    """All figures of a method."""
    pipeline = load_pipeline(MODEL)
    wanted = wanted_clips(pipeline, StageByName(), 0.1, 16, pipeline.family.training)  # type: ignore[arg-type]
    clips = folder / "clips"
    plain, cached = batches_of(clips), batches_of(clips, folder / "cache")
    decoded = plain.clips(wanted)
    ready = [decoded(index) for index in range(2 * CLIPS // BATCH)]
    stored = cached.clips(wanted)
    for index in range(2 * CLIPS // BATCH):
        stored(index)  # all are encoded once

    def ready_batch(index: int) -> Batch:
        return ready[index % len(ready)]

    turns = Turns(ready_batch, ready_batch, step_by_hand(name))
    Trainer(our_method(name), turns, trainer_config(steps + 2), folder / f"{name}-plain").fit()
    from_disk = Turns(stored, ready_batch, step_by_hand(name))
    Trainer(our_method(name), from_disk, trainer_config(steps + 2), folder / f"{name}-cached").fit()
    waits = Waits(batches_of(clips).clips(wanted))
    began = time.perf_counter()
    Trainer(our_method(name), waits, trainer_config(steps + 2), folder / f"{name}-waits").fit()
    lasted = time.perf_counter() - began - waits.seconds[0]
    for each in (plain, cached):
        each.close()
    return {
        "plain": compared(turns),
        "cached": compared(from_disk),
        "waiting": sum(waits.seconds[1:]) / lasted,
        "memory": memory_of(name, ready[0], folder),
    }


def compared(turns: Turns) -> dict[str, float]:
    """Medians, without the first turn, which warms up."""
    ours, theirs = turns.trainer_times[1:], turns.hand_times[1:]
    found = {
        "trainer_seconds": statistics.median(each.wall for each in ours),
        "hand_seconds": statistics.median(each.wall for each in theirs),
        "trainer_cpu_seconds": statistics.median(each.cpu for each in ours),
        "hand_cpu_seconds": statistics.median(each.cpu for each in theirs),
    }
    return {
        **found,
        "speed": found["hand_seconds"] / found["trainer_seconds"],
        "speed_cpu": found["hand_cpu_seconds"] / found["trainer_cpu_seconds"],
    }


def memory_of(name: str, batch: Batch, folder: Path) -> dict[str, float]:
    """Most bytes of tensors above the weights in a second step, when the optimizer has its state."""
    by_hand = step_by_hand(name)
    by_hand(batch)
    with TensorMemory() as theirs:
        by_hand(batch)

    second: list[TensorMemory] = []

    def source(index: int) -> Batch:
        if index == 1:
            second.append(TensorMemory().__enter__())
        return batch

    config = replace(trainer_config(2), log_every=1)
    trainer = Trainer(our_method(name), source, config, folder / f"{name}-memory")

    def stop(step: int, *_: object) -> None:
        if step == 2:
            second[0].__exit__(None, None, None)

    trainer.fit(stop)
    ours = second[0].peak_bytes
    return {"trainer_bytes": ours, "hand_bytes": theirs.peak_bytes, "ratio": ours / theirs.peak_bytes}


def main(arguments: list[str]) -> int:
    """Measure, print, and write to `results` if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="write results/training-cpu.json")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    asked = parser.parse_args(arguments)
    if asked.threads is not None:
        torch.set_num_threads(asked.threads)
    warnings.filterwarnings("ignore", category=UserWarning)
    report: dict[str, Any] = {
        "machine": machine(torch.device("cpu")),
        "system": platform.system(),
        "model": MODEL,
        "clip": "16x64x64",
        "batch_size": BATCH,
        "steps": asked.steps,
    }
    with tempfile.TemporaryDirectory(prefix="muybridge-") as place:
        folder = Path(place)
        make_clips(folder / "clips")
        for name in asked.methods:
            report[name] = measure(name, asked.steps, folder)
            print(name, json.dumps(report[name], indent=1), flush=True)
    if asked.json:
        print(write_results("training-cpu", report))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
