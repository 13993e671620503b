"""Gradients of every weight while it is trained: how large, how much they change it, and which never come."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

from muybridge.debug.drawing import bars, save_picture
from muybridge.debug.modules import Target, modules_of
from muybridge.debug.tables import text_table
from muybridge.errors import ConfigError
from muybridge.files.atomic import new_file

VANISHING = 1e-7
EXPLODING = 1e3
Verdict = Literal["healthy", "vanishing", "exploding", "dead"]


@dataclass(frozen=True)
class WeightGradients:
    """What one weight got.

    Attributes:
        name: in full.
        block: the part of the network it belongs to, as in `block_of`.
        norms: of its gradient, as it came out of the backward pass, at each observed step; 0 where none came.
        update_ratios: size of each update as a share of the weight's own size; empty without an optimizer.
        verdict: "exploding" if a norm exceeds 1e3 or is not finite, "dead" if no gradient came or all were exactly
            zero, "vanishing" if none reached 1e-7.
    """

    name: str
    block: str
    norms: list[float]
    update_ratios: list[float]
    verdict: Verdict


@dataclass(frozen=True)
class GradientReport:
    """What was seen of all trained weights.

    Attributes:
        weights: in the order of the network.
        steps: observed.
    """

    weights: list[WeightGradients]
    steps: int

    def named(self, verdict: Verdict) -> list[str]:
        """Names of the weights with a verdict."""
        return [weight.name for weight in self.weights if weight.verdict == verdict]

    def block_norms(self) -> dict[str, list[float]]:
        """Norm of the gradients of each block, of all its weights together, at each step."""
        squares: dict[str, list[float]] = {}
        for weight in self.weights:
            sums = squares.setdefault(weight.block, [0.0] * self.steps)
            squares[weight.block] = [total + norm**2 for total, norm in zip(sums, weight.norms, strict=True)]
        return {block: [math.sqrt(value) for value in sums] for block, sums in squares.items()}

    def __str__(self) -> str:
        rows = []
        for block, norms in self.block_norms().items():
            own = [weight for weight in self.weights if weight.block == block]
            ratios = [ratio for weight in own for ratio in weight.update_ratios]
            counts = [str(sum(w.verdict == v for w in own)) for v in ("vanishing", "exploding", "dead")]
            shown = [f"{value:.3g}" for value in (min(norms), median(norms), max(norms))]
            rows.append([block, *shown, f"{median(ratios):.2g}" if ratios else "-", *counts])
        header = ["block", "smallest", "median", "largest", "update/weight", "vanishing", "exploding", "dead"]
        text = text_table(header, rows)
        for verdict in ("dead", "vanishing", "exploding"):
            if names := self.named(verdict):
                text += f"\n{verdict}: {', '.join(names)}"
        return text

    def save(self, folder: str | Path) -> list[Path]:
        """Write `gradients.json` and `gradients.png`, the norms of each block with both limits marked.

        Raises:
            OutputError: the folder cannot be written.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "gradients.json"
        with new_file(path) as temporary:
            values = {"steps": self.steps, "weights": [asdict(weight) for weight in self.weights]}
            temporary.write_text(json.dumps(_finite(values), indent=1) + "\n")
        norms = {block: (min(each), median(each), max(each)) for block, each in self.block_norms().items()}
        picture = bars(norms, f"gradient norms by block, {self.steps} steps", (VANISHING, EXPLODING))
        return [path, save_picture(picture, folder / "gradients.png")]


class GradientWatch:
    """A context around steps of training: sees gradients as they arrive, and weights before and after an optimizer.

    Norms are taken before anything scales or clips the gradients. A step ends with `optimizer.step()`, or, where there
    is none, with `end_step()`; several optimizers that step in turn make one step. Copies the weights for the time of
    the update; nothing waits for the device before `report`.
    """

    def __init__(self, target: Target) -> None:
        """Watch the weights of `target` that have `requires_grad`.

        Raises:
            ConfigError: there is none.
        """
        self._weights = dict(_trained(target))
        if not self._weights:
            raise ConfigError("No gradient to watch: every weight is frozen. Set requires_grad on those to be trained.")
        self._names = {id(weight): name for name, weight in self._weights.items()}
        self._handles: list[RemovableHandle] = []
        self._arrived: dict[str, Tensor] = {}
        self._before: dict[str, Tensor] = {}
        self._norms: list[dict[str, Tensor]] = []
        self._ratios: dict[str, list[Tensor]] = {name: [] for name in self._weights}
        self._stepped: set[str] = set()

    def __enter__(self) -> Self:
        if self._handles:
            raise ConfigError("This GradientWatch is in use already; make another one.")
        for name, weight in self._weights.items():
            self._handles.append(weight.register_post_accumulate_grad_hook(partial(self._on_gradient, name)))
        self._handles.append(register_optimizer_step_pre_hook(self._on_update))
        self._handles.append(register_optimizer_step_post_hook(self._on_updated))
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._before.clear()
        if self._arrived or self._stepped:
            self.end_step()

    def end_step(self) -> None:
        """Close a step; the next gradients belong to another."""
        self._norms.append(self._arrived)
        self._arrived, self._stepped = {}, set()

    def report(self) -> GradientReport:
        """What was seen so far.

        Raises:
            ConfigError: no step was observed.
        """
        if not self._norms:
            raise ConfigError("No step was observed; run backward() and optimizer.step() inside the context.")
        weights = []
        for name in self._weights:
            pairs = [step[name].tolist() if name in step else [0.0, 0.0] for step in self._norms]
            norms = [float(norm) for norm, _ in pairs]
            ratios = [float(ratio) for ratio in self._ratios[name]]
            weights.append(WeightGradients(name, block_of(name), norms, ratios, _verdict(pairs)))
        return GradientReport(weights, len(self._norms))

    def _on_gradient(self, name: str, weight: Tensor) -> None:
        if self._stepped:  # the first gradient after an update
            self.end_step()
        gradient = weight.grad
        if gradient is not None:
            # The largest value tells a gradient of exact zeros from one whose squares underflow.
            values = gradient.detach().float()
            self._arrived[name] = torch.stack([torch.linalg.vector_norm(values), values.abs().amax()])

    def _on_update(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        for name, weight in self._of(optimizer):
            self._before[name] = weight.detach().clone()

    def _on_updated(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        for name, weight in self._of(optimizer):
            held = self._before.pop(name, None)
            if held is None:  # the step of a class of optimizers that calls its base's: told once for each
                continue
            before = held.float()
            # A weight of zeros has no size to compare with, so its ratio is infinite, or 0 where it stays.
            change, size = (weight.detach().float() - before).norm(), before.norm()
            self._ratios[name].append(torch.where(change > 0, change / size, change))
            self._stepped.add(name)

    def _of(self, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, nn.Parameter]]:
        for group in optimizer.param_groups:
            for weight in group["params"]:
                name = self._names.get(id(weight))
                if name is not None:
                    yield name, weight


def block_of(name: str) -> str:
    """The shortest beginning of a weight's name that ends in a number, or all but its last part.

    `unet.down_blocks.0.resnets.1.conv1.weight` is of `unet.down_blocks.0`.
    """
    parts = name.split(".")
    starts = list(accumulate(parts[:-1], lambda start, part: f"{start}.{part}"))
    return next((start for start, part in zip(starts, parts, strict=False) if part.isdigit()), (starts or [name])[-1])


def _trained(target: Target) -> Iterator[tuple[str, nn.Parameter]]:
    seen: set[int] = set()
    for name, module in modules_of(target).items():
        for own, weight in module.named_parameters(recurse=False):
            if weight.requires_grad and id(weight) not in seen:
                seen.add(id(weight))
                yield ".".join(filter(None, (name, own))), weight


def _verdict(pairs: list[list[float]]) -> Verdict:
    norms = [norm for norm, _ in pairs]
    if any(not math.isfinite(norm) or norm > EXPLODING for norm in norms):
        return "exploding"
    if all(largest == 0 for _, largest in pairs):
        return "dead"
    return "vanishing" if max(norms) < VANISHING else "healthy"


def _finite(value: object) -> object:
    """JSON has no infinity and no NaN; they become their names."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value
