"""Running a pipeline with a tool around it."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muybridge.checkpoints.quiet_loading import quiet_loading
from muybridge.debug import (
    AnomalyGuard,
    AttentionMaps,
    Divergence,
    GradientReport,
    GradientWatch,
    MemoryReport,
    MemoryWatch,
    Probe,
    ProfileReport,
    Recording,
    Replay,
    StageProfile,
    replay_anomaly,
)
from muybridge.debug.memory_watch import Measure
from muybridge.errors import ConfigError
from muybridge.pipelines import VideoPipeline, load_pipeline
from muybridge.service.generation import pick_device
from muybridge.types import SettingsDict

DTYPES = ("float32", "bfloat16", "float16")
Pipeline = VideoPipeline


@dataclass(frozen=True)
class DebugRun:
    """One short run of a pipeline; None is the pipeline's own default.

    Attributes:
        model: a shipped model, a folder, or a hub id.
        prompt: what to show.
        num_frames: of the video.
        width: in pixels.
        height: in pixels.
        steps: denoising steps.
        seed: of the noise.
        device: as for `pick_device`.
        dtype: one of `DTYPES`.
    """

    model: str
    prompt: str
    num_frames: int | None = None
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    seed: int = 0
    device: str | None = None
    dtype: str = "float32"

    def load(self) -> Pipeline:
        """The pipeline, on its device.

        Raises:
            ConfigError: an unknown dtype or device.
            CheckpointError: a model that cannot be loaded.
        """
        if self.dtype not in DTYPES:
            raise ConfigError(f"dtype must be one of {', '.join(DTYPES)}; given {self.dtype!r}.")
        device = pick_device(self.device)
        with quiet_loading():
            pipeline = load_pipeline(self.model, getattr(torch, self.dtype))
        pipeline.to(device)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def arguments(self) -> SettingsDict:
        """What the pipeline is called with."""
        given = {
            "prompt": self.prompt,
            "num_frames": self.num_frames,
            "width": self.width,
            "height": self.height,
            "num_inference_steps": self.steps,
            "seed": self.seed,
        }
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class TrainingRun:
    """Steps of training that leave no trace, on a video that the model makes itself.

    Attributes:
        steps: of the optimizer (AdamW).
        learning_rate: of it.
        everything: train the whole backbone, and not its motion modules only.
    """

    steps: int = 4
    learning_rate: float = 1e-4
    everything: bool = False


def guard_run(
    run: DebugRun, folder: Path | None = None, training: TrainingRun | None = None, autograd: bool = False
) -> float:
    """Run a pipeline, and train it if asked to, with the anomaly guard around; returns the seconds it took.

    Raises:
        NonFiniteError: with the module, the step and the statistics; the call is in `folder`.
        ConfigError: `autograd` without training, which has no backward pass to look at.
    """
    if autograd and training is None:
        raise ConfigError("Autograd's anomaly mode looks at backward passes; add training steps with --train.")
    pipeline = run.load()
    started = time.perf_counter()
    with AnomalyGuard(pipeline, folder=folder, autograd=autograd):
        if training is None:
            pipeline(**run.arguments())
        else:
            for loss in _train(pipeline, run, training):
                loss.backward()
    return time.perf_counter() - started


def replay(path: Path, run: DebugRun) -> Replay:
    """Run the saved call of an anomaly again, in the modules of a model.

    Raises:
        InputFileError: not such a file.
        ConfigError: another model.
    """
    return replay_anomaly(path, run.load())


def gradient_run(run: DebugRun, training: TrainingRun, folder: Path) -> GradientReport:
    """Train for some steps and watch gradients and updates; the report is in `folder` too.

    Raises:
        ConfigError: no step, or a model without motion modules where only those are to be trained.
    """
    pipeline = run.load()
    steps = _train(pipeline, run, training)
    first = next(steps)  # by now it is known which weights are trained
    with GradientWatch(pipeline.backbone) as watch:
        first.backward()
        for loss in steps:
            loss.backward()
    report = watch.report()
    report.save(folder)
    return report


def memory_run(run: DebugRun, folder: Path, measure: Measure = "tensors") -> MemoryReport:
    """Run a pipeline and measure the memory of each module; on CUDA with the allocator's snapshot."""
    pipeline = run.load()
    on_cuda = next(pipeline.backbone.parameters()).is_cuda
    watch = MemoryWatch(pipeline, measure, folder / "snapshot.pickle" if on_cuda else None)
    with watch:
        pipeline(**run.arguments())
    report = watch.report()
    report.save(folder)
    return report


def probe_run(run: DebugRun, pattern: list[str], path: Path, full: bool = False) -> tuple[Path, int, list[str]]:
    """Record a run; returns the file, the number of calls in it, and the modules that were not called.

    Raises:
        ConfigError: a pattern that matches nothing, or only what was not called.
    """
    pipeline = run.load()
    with Probe(pipeline, pattern, full) as probe:
        pipeline(**run.arguments())
    if not probe.recording.modules:
        raise ConfigError(
            f"None of the modules was called: {', '.join(probe.silent[:4])}. A faster path uses their weights "
            "directly, or this run does without them; probe what is around them."
        )
    return probe.recording.save(path), len(probe.recording.modules), probe.silent


def compare_runs(one: Path, other: Path, tolerance: float = 0.0) -> Divergence | None:
    """The first place where two recordings differ, or None."""
    return Recording.load(one).first_divergence(Recording.load(other), tolerance)


def attention_run(run: DebugRun, folder: Path, sites: list[str]) -> list[Path]:
    """Draw the attention between frames of the motion sites; returns the files."""
    pipeline = run.load()
    with AttentionMaps(pipeline, sites) as maps:
        pipeline(**run.arguments())
    return maps.save(folder)


def profile_run(run: DebugRun, folder: Path) -> ProfileReport:
    """Time every module, after a run that warms up, and trace every stage in a third."""
    pipeline = run.load()
    pipeline(**run.arguments())
    with StageProfile(pipeline) as timed:
        pipeline(**run.arguments())
    with StageProfile(pipeline, folder) as traced:
        pipeline(**run.arguments())
    report = timed.report()
    report = ProfileReport(report.stage_seconds, report.modules, traced.report().traces)
    report.save(folder)
    return report


def _train(pipeline: Pipeline, run: DebugRun, training: TrainingRun) -> Iterator[Tensor]:
    """Losses to call `backward` on; the weights are updated when the next is asked for, and after the last."""
    if training.steps < 1:
        raise ConfigError(f"There must be one training step at least; given {training.steps}.")
    latents, conditions = _own_video(pipeline, run)
    backbone = pipeline.backbone
    weights = _choose_weights(backbone, training.everything)
    optimizer = torch.optim.AdamW(weights, lr=training.learning_rate)
    generator = torch.Generator().manual_seed(run.seed)
    backbone.train()
    for _ in range(training.steps):
        with torch.enable_grad():
            loss = _loss(pipeline, latents, conditions, generator)
        yield loss
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def _own_video(pipeline: Pipeline, run: DebugRun) -> tuple[Tensor, SettingsDict]:
    """Latents that the pipeline makes, and what its backbone was told besides."""
    names = list(inspect.signature(pipeline.backbone.forward).parameters)
    told: SettingsDict = {}

    def note(_module: nn.Module, args: tuple[Any, ...], kwargs: SettingsDict) -> None:
        told.update({**dict(zip(names, args, strict=False)), **kwargs})

    handle = pipeline.backbone.register_forward_pre_hook(note, with_kwargs=True)
    try:
        latents: Tensor = pipeline(**run.arguments(), guidance_scale=1.0, output_type="latent")
    finally:
        handle.remove()
    return latents, told


def _choose_weights(backbone: nn.Module, everything: bool) -> list[nn.Parameter]:
    adapter = getattr(backbone, "motion_adapter", None)
    trained: nn.Module | None = backbone if everything else adapter
    if trained is None:
        raise ConfigError("This model has no motion modules to train; train everything with --all.")
    backbone.requires_grad_(False)
    trained.requires_grad_(True)
    return list(trained.parameters())


def _loss(pipeline: Pipeline, latents: Tensor, conditions: SettingsDict, generator: torch.Generator) -> Tensor:
    """The usual loss of diffusion, at one noise level a video."""
    scheduler, backbone = cast("Any", pipeline.scheduler), pipeline.backbone
    levels = torch.randint(scheduler.config["num_train_timesteps"], (len(latents),), generator=generator)
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    levels = levels.to(latents.device)
    noisy = scheduler.add_noise(latents, noise, levels)
    kind = scheduler.config["prediction_type"]
    targets = {"epsilon": lambda: noise, "sample": lambda: latents}
    targets["v_prediction"] = lambda: scheduler.get_velocity(latents, noise, levels)
    first = next(iter(inspect.signature(backbone.forward).parameters))
    given = {**conditions, first: noisy.to(cast("Any", backbone).dtype), "timestep": levels, "return_dict": False}
    # What follows the latents' channels is the variance, which this loss leaves alone.
    prediction = backbone(**given)[0][:, : latents.shape[1]]
    return F.mse_loss(prediction.float(), targets[kind]().float())
