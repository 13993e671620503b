"""Checking motion modules: by kind or by class, and whether they learn one clip of the toy world."""

from __future__ import annotations

import importlib
from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from muybridge.authoring.check_subjects import registered_name
from muybridge.authoring.checks import CheckResult, MotionCheckReport, check_motion_module
from muybridge.checkpoints.quiet_loading import quiet_loading
from muybridge.demo import render, world
from muybridge.demo.batches import to_pixels, tokenize
from muybridge.errors import ConfigError
from muybridge.motion.integration import integrate_motion
from muybridge.pipelines import VideoPipeline, load_pipeline
from muybridge.training.methods.denoise import TrainedNetworks
from muybridge.training.objective.diffusion import DiffusionObjective
from muybridge.training.objective.settings import ObjectiveSettings
from muybridge.types import SettingsView

OVERFIT = "overfit"
_BASE = "demo/animatediff"
_SCENE = world.Scene("circle", "red", "moving right")
_FRAMES, _SHIFT, _RATE = 4, 3.0, 1e-3
_MEASURED, _UNSEEN = 4, 2**31  # draws, and the seed of the first
_MOST_LEFT = 0.75
"""Share of the image model's error that may be left; after sixty steps the built-in kinds leave 60 to 70 %."""


def check_motion(
    motion: str,
    config: SettingsView | None = None,
    only: Collection[str] | None = None,
    overfit_steps: int | None = None,
) -> MotionCheckReport:
    """Run the checks of the contract, and where asked for train on one clip.

    Args:
        motion: a kind, or `package.module:Class`.
        config: settings of the kind.
        only: names of checks; all if not given.
        overfit_steps: steps of training on one clip; none if not given.

    Raises:
        ConfigError: an unknown kind, setting or check, a class that cannot be imported or is not registered, or steps
            below 1.
    """
    if overfit_steps is not None and overfit_steps < 1:
        raise ConfigError(f"The steps of training must be at least 1; given {overfit_steps}.")
    kind = _import_kind(motion) if ":" in motion else motion
    report = check_motion_module(kind, config, only)
    if overfit_steps is None:
        return report
    return report.with_result(check_overfitting(kind, config, overfit_steps, report.passed))


def _import_kind(path: str) -> str:
    module_name, _, class_name = path.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in class_name.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:  # a stranger's module may do anything while it is imported
        raise ConfigError(
            f"{path!r} cannot be imported ({type(error).__name__}: {error}). Write package.module:Class, and install "
            "the package or run this where it lies."
        ) from error
    return registered_name(found)


def check_overfitting(kind: str, config: SettingsView | None, steps: int, sound: bool = True) -> CheckResult:
    """Train a fresh module on one clip, on the shipped image model, and see how much of that model's error is left.

    Args:
        kind: of the module.
        config: its settings.
        steps: of training; sixty are enough for the built-in kinds, and take a minute on a CPU.
        sound: whether the module has passed the other checks; what has not is not trained.
    """
    if not sound:
        return CheckResult(OVERFIT, "not applicable", "waits for the other checks to pass")
    with quiet_loading():
        pipeline = load_pipeline(_BASE)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        adapter = integrate_motion(pipeline, kind, mode="replace", config=dict(config or {})).adapter
        pipeline.backbone.requires_grad_(False)
        adapter.requires_grad_(True)
        clip = _Clip(pipeline)
        before = clip.error()
        optimizer = torch.optim.AdamW(adapter.parameters(), lr=_RATE, weight_decay=0.0)
        adapter.train()
        for step in range(steps):
            clip.loss(step).backward()
            torch.nn.utils.clip_grad_norm_(adapter.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        adapter.eval()
        left = clip.error() / before
    detail = f"{left:.0%} of the image model's error on one clip is left after {steps} steps (at most {_MOST_LEFT:.0%})"
    return CheckResult(OVERFIT, "passed" if left <= _MOST_LEFT else "failed", detail)


class _Clip:
    """One clip, encoded once, and how well a pipeline's backbone takes noise off it."""

    def __init__(self, pipeline: VideoPipeline) -> None:
        how = pipeline.family.training
        if how is None:
            raise ConfigError(f"{_BASE} is a {pipeline.family.name}, which is not trained here.")
        positions = np.arange(0, render.CLIP_FRAMES, render.CLIP_FRAMES // _FRAMES)
        frames = render.render([_SCENE], positions[None], render.place([_SCENE], np.random.default_rng(0)))
        batch = {
            "pixels": to_pixels(frames),
            "input_ids": tokenize(pipeline.tokenizer, [world.full_caption(_SCENE)]),
            "frame_positions": torch.from_numpy(positions).float(),
        }
        with torch.no_grad():
            networks = TrainedNetworks(pipeline.backbone, pipeline.text_encoder, pipeline.vae)
            self.latents, self.told = how.latents(networks, batch), how.told(networks, batch)
        self.backbone: Any = pipeline.backbone
        scheduler: Any = DDIMScheduler.from_config(pipeline.scheduler.config)
        self.objective = DiffusionObjective(scheduler, ObjectiveSettings.shifted(_SHIFT))

    def loss(self, seed: int) -> Tensor:
        """Mean squared error of the prediction for a noisy copy."""
        drawn = self.objective.draw(self.latents, torch.Generator().manual_seed(seed))
        return self.objective.loss(drawn, self.backbone(drawn.noisy, drawn.timesteps, **self.told).sample)["loss"]

    @torch.no_grad()
    def error(self) -> float:
        """At noise levels and noise that no step of training sees."""
        return sum(float(self.loss(_UNSEEN + index)) for index in range(_MEASURED)) / _MEASURED
