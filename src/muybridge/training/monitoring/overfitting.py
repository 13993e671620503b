"""The first question to a new training: does it learn a handful of clips by heart? And if not, why not."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import product
from statistics import mean
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from muybridge.errors import ConfigError
from muybridge.training.data import Batch, on_device
from muybridge.training.methods.denoise import DenoisingSteps
from muybridge.training.monitoring.clip_figures import ClipFigures, figures_of_batch
from muybridge.training.monitoring.curves import Curve, short
from muybridge.training.monitoring.findings import STILL, Finding, UpdateCurves, update_findings
from muybridge.training.monitoring.held_out import (
    MIDDLE,
    NOISES,
    HasAdapter,
    Losses,
    fixed_losses,
    fixed_noise,
    is_denoising,
    rise,
    scaled_timestep,
)
from muybridge.training.optimizers import OptimizerSettings, TrainingOptimizer, make_optimizer
from muybridge.types import SettingsDict

if TYPE_CHECKING:
    from muybridge.training.stages.stage import StageWork

LEAST_FALL_OF_ADAPTERS, LEAST_FALL = 0.3, 0.5
"""Share of the loss that must go: an adapter has less to learn with than a whole network."""
_SLOW = 0.1
_ALL = "the weights"


@dataclass(frozen=True)
class OverfitSettings:
    """How clips are learned by heart.

    Attributes:
        steps: of training; a hundred to three hundred.
        learning_rate: of the run that is to follow.
        other_learning_rate: likewise.
        rate_factor: what both are multiplied with, as little is to be learned from little; they stay constant.
        optimizer: of the run.
        max_gradient_norm: gradients are scaled down to it.
        look_every: steps between two looks at gradients and updates.
    """

    steps: int = 200
    learning_rate: float = 2e-3
    other_learning_rate: float = 1.4e-3
    rate_factor: float = 3.0
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    max_gradient_norm: float = 1.0
    look_every: int = 10


@dataclass(frozen=True)
class OverfitRecord:
    """What was seen.

    Attributes:
        before: the loss at the middle noise levels before training.
        after: likewise after it.
        without: likewise after it, without what was learned; None where that cannot be taken out.
        weights: what each trained tensor got at each look, by name.
        together: likewise all of them.
        clips: how much happens in the clips.
        steps: of training that were done; fewer than asked for where the loss became NaN or infinite.
    """

    before: Losses
    after: Losses
    without: Losses | None
    weights: Mapping[str, UpdateCurves]
    together: UpdateCurves
    clips: ClipFigures
    steps: int


@dataclass(frozen=True)
class OverfitVerdict:
    """Whether the clips were learned.

    Attributes:
        passed: so far as they must be.
        fall: share of the loss that is gone, the mean over the middle noise levels.
        least_fall: share that must be gone.
        adapter_gap: by how much the loss is higher without what was learned, as a share; None where that cannot be
            taken out.
        reasons: what is wrong, what to look at first in front; of a passed one only what got no gradient or did not
            move.
    """

    passed: bool
    fall: float
    least_fall: float
    adapter_gap: float | None
    reasons: tuple[Finding, ...]

    def __str__(self) -> str:
        went = f"fell by {self.fall:.0%}" if self.fall >= 0 else f"rose by {-self.fall:.0%}"
        if not math.isfinite(self.fall):
            went = "became NaN or infinite"
        gap = "" if self.adapter_gap is None else f"; without what was learned it is {self.adapter_gap:+.0%}"
        word = "passed" if self.passed else "failed"
        lines = [f"overfit: {word}: the loss on the clips {went} (more than {self.least_fall:.0%} is asked for){gap}"]
        return "\n".join([*lines, *(f"  - {reason.text}" for reason in self.reasons)])


def overfit(
    work: StageWork, settings: OverfitSettings, progress: Callable[[int, int], None] | None = None
) -> OverfitVerdict:
    """Train on the clips of batch 0, at the noise at which the loss is then measured, and judge.

    The stage should be prepared with as many clips a batch as are to be learned, and no captions dropped. What `work`
    holds is trained afterwards.

    Args:
        work: of the stage.
        settings: of the training.
        progress: told (steps done, steps in all).

    Raises:
        ConfigError: the stage trains no denoising network, nothing is trainable, or fewer than one step.
    """
    method = work.method
    if not is_denoising(method):
        raise ConfigError("Only what takes noise off can be tried on a few clips; this stage trains something else.")
    if min(settings.steps, settings.look_every) < 1:
        raise ConfigError(f"Overfitting takes one step at least; given {settings.steps}.")
    device = next(method.parameters()).device
    batch = on_device(work.batches(0), device)
    record = _train(method, batch, settings, progress)
    return judge(record, LEAST_FALL_OF_ADAPTERS if isinstance(method, HasAdapter) else LEAST_FALL)


def judge(record: OverfitRecord, least_fall: float) -> OverfitVerdict:
    """What a record says."""
    falls = [1 - record.after[t] / record.before[t] for t in record.before if record.before[t] > 0]
    fall = mean(falls) if falls else 0.0
    gap = None if record.without is None else mean(rise(record.after, record.without).values() or [0.0])
    finite = math.isfinite(fall) and (gap is None or math.isfinite(gap))
    passed = finite and fall > least_fall and (gap is None or gap > 0)
    reasons = update_findings(record.weights)
    stuck = [reason for reason in reasons if reason.kind in ("no-gradient", "no-update")]
    if passed:
        return OverfitVerdict(True, fall, least_fall, gap, tuple(stuck))
    causes = [*stuck, *_about_rate(record, finite), *_about_clips(record)]
    return OverfitVerdict(False, fall, least_fall, gap, tuple(causes or [_otherwise(record, fall, fall > least_fall)]))


def _about_rate(record: OverfitRecord, finite: bool) -> list[Finding]:
    if not finite:
        text = f"The loss became NaN or infinite after {record.steps} steps: the learning rate is too high."
        return [Finding("rate", text)]
    return [reason for reason in update_findings({_ALL: record.together}) if reason.kind in ("slow", "fast")]


def _about_clips(record: OverfitRecord) -> list[Finding]:
    if record.clips.identical < STILL:
        return []
    share = record.clips.identical
    text = f"{share:.0%} of the clips' neighbouring frames are identical: there is no motion in them to be learned."
    return [Finding("identical-frames", text)]


def _otherwise(record: OverfitRecord, fall: float, fell: bool) -> Finding:
    if fell:
        text = "The loss fell, but not because of the adapter: without it it is no higher. Look at what is trained."
        return Finding("no-difference", text)
    if fall > _SLOW:
        text = f"It learns, but slowly, and nothing is wrong with it: give it more than {record.steps} steps."
        return Finding("slow-learning", text)
    losses = ", ".join(f"{short(record.after[t])} at timestep {t}" for t in record.after)
    return Finding(
        "floor",
        f"Gradients, updates and clips are as they should be, and the loss stays ({losses}): the model may do as well "
        "on these clips already as it can. Take clips that it does not know, a higher rank, or more layers.",
    )


def _train(
    method: nn.Module, batch: Batch, settings: OverfitSettings, progress: Callable[[int, int], None] | None
) -> OverfitRecord:
    steps = cast("DenoisingSteps", method)
    factor = settings.rate_factor
    optimizer = make_optimizer(
        settings.optimizer, method, settings.learning_rate * factor, settings.other_learning_rate * factor
    )
    looks = _Looks(method, settings.max_gradient_norm)
    lessons = list(product(range(NOISES), MIDDLE))
    method.eval()  # nothing is dropped
    before = _measured(method, batch)
    done = 0
    latents, told = steps.encode(batch)
    for step in range(settings.steps):
        if any(isinstance(value, Tensor) and value.requires_grad for value in told.values()):
            latents, told = steps.encode(batch)  # the text encoder learns too
        loss = _loss(steps, latents, told, *lessons[step % len(lessons)])
        if not torch.isfinite(loss):
            break
        loss.backward()
        looks.update(optimizer, step + 1, step % settings.look_every == 0)
        done = step + 1
        if progress is not None:
            progress(done, settings.steps)
    with optimizer.averaged():
        after = _measured(method, batch) if done == settings.steps else dict.fromkeys(before, math.inf)
        without = None
        if isinstance(method, HasAdapter):
            with method.without():
                without = _measured(method, batch)
    weights, together = looks.curves()
    return OverfitRecord(before, after, without, weights, together, figures_of_batch(batch["pixels"]), done)


def _loss(steps: DenoisingSteps, latents: Tensor, told: SettingsDict, number: int, timestep: int) -> Tensor:
    own = torch.full((len(latents),), scaled_timestep(steps, timestep), device=latents.device)
    drawn = steps.objective.show(latents, fixed_noise(steps, latents, 0, number), own)
    return steps.objective.loss(drawn, steps.predict(drawn, told))["loss"]


@torch.no_grad()
def _measured(method: nn.Module, batch: Batch) -> Losses:
    return fixed_losses(cast("DenoisingSteps", method), batch, 0, MIDDLE)


class _Looks:
    """Updates weights, and at some steps notes what each of them got."""

    def __init__(self, method: nn.Module, max_gradient_norm: float) -> None:
        self._weights = {name: weight for name, weight in method.named_parameters() if weight.requires_grad}
        self._limit = max_gradient_norm
        self._steps: list[int] = []
        self._seen: dict[str, list[tuple[float, float, float]]] = {name: [] for name in (*self._weights, _ALL)}

    def update(self, optimizer: TrainingOptimizer, step: int, look: bool) -> None:
        norm = nn.utils.clip_grad_norm_(self._weights.values(), self._limit)
        if not look:
            optimizer.step()
            return
        clipped = float(norm > self._limit)
        gradients = {n: 0.0 if w.grad is None else float(w.grad.norm()) for n, w in self._weights.items()}
        before = {name: weight.detach().clone() for name, weight in self._weights.items()}
        optimizer.step()
        changes = {name: float((weight.detach() - before[name]).norm()) for name, weight in self._weights.items()}
        sizes = {name: float(weight.norm()) for name, weight in before.items()}
        self._steps.append(step)
        for name in self._weights:
            self._seen[name].append((gradients[name], _ratio(changes[name], sizes[name]), clipped))
        change, size = math.hypot(*changes.values()), math.hypot(*sizes.values())
        self._seen[_ALL].append((float(norm), _ratio(change, size), clipped))

    def curves(self) -> tuple[dict[str, UpdateCurves], UpdateCurves]:
        made = {name: self._curves(values) for name, values in self._seen.items()}
        return made, made.pop(_ALL)

    def _curves(self, values: list[tuple[float, float, float]]) -> UpdateCurves:
        steps = tuple(self._steps)
        return UpdateCurves(*(Curve(steps, tuple(column)) for column in zip(*values, strict=True)))


def _ratio(change: float, size: float) -> float:
    return change / size if size else math.inf if change else 0.0
