"""Two runs side by side: which settings differ, and which of them learned more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from muybridge.errors import ConfigError
from muybridge.training.monitoring.record import StageRecord, read_run
from muybridge.types import SettingsView

_SHARES = 0.1, 0.25, 0.5, 0.75, 1.0
_COMPARED = "held_out_loss", "training_loss", "adapter_gap", "shuffled_gap"


@dataclass(frozen=True)
class StageComparison:
    """A stage of two runs.

    Attributes:
        name: of the stage, or of both where they have other names.
        settings: those that differ, with both values; None where one has none of that name.
        losses: steps of both, and the smoothed loss of each there.
        held_out: values at fixed noise by name, as they were at the last step that both have.
        step: that step; None where the values have none in common.
    """

    name: str
    settings: dict[str, tuple[str | None, str | None]]
    losses: list[tuple[int, float, float]]
    held_out: dict[str, tuple[float, float]]
    step: int | None


def compare_runs(first: Path, second: Path) -> list[StageComparison]:
    """Compare the stages that two runs have in common; two runs of one stage each, whatever those are called.

    Raises:
        ConfigError: a folder without a run, or runs without a stage in common.
    """
    one, other = ({record.name: record for record in read_run(folder)} for folder in (first, second))
    if len(one) == len(other) == 1:
        ((a,), (b,)) = (list(records.values()) for records in (one, other))
        return [_compare(a, b)]
    if not (names := [name for name in one if name in other]):
        raise ConfigError(
            f"{first} has the stages {', '.join(one)}, and {second} {', '.join(other)}; none is in both. Give the "
            "folder of a stage of each."
        )
    return [_compare(one[name], other[name]) for name in names]


def flat_settings(settings: SettingsView) -> dict[str, str]:
    """Settings by their full names (`motion.kind`), as text."""
    return dict(_flat(settings, ""))


def _flat(settings: SettingsView, start: str) -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{start}{name}.")
        else:
            yield f"{start}{name}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _compare(a: StageRecord, b: StageRecord) -> StageComparison:
    one, other = flat_settings(a.settings), flat_settings(b.settings)
    names = [*one, *(name for name in other if name not in one)]
    differing = {n: (one.get(n), other.get(n)) for n in names if one.get(n) != other.get(n)}
    held_out, step = _held_out(a, b)
    name = a.name if a.name == b.name else f"{a.name} and {b.name}"
    return StageComparison(name, differing, list(_losses(a, b)), held_out, step)


def _losses(a: StageRecord, b: StageRecord) -> Iterator[tuple[int, float, float]]:
    if "loss" not in a.curves or "loss" not in b.curves:
        return
    one, other = a.curves["loss"].smoothed(0.8), b.curves["loss"].smoothed(0.8)
    if not one.steps or not other.steps:
        return
    last = min(one.steps[-1], other.steps[-1])
    for step in sorted({round(last * share) for share in _SHARES}):
        first, second = one.at(step), other.at(step)
        if first is not None and second is not None:
            yield step, first, second


def _held_out(a: StageRecord, b: StageRecord) -> tuple[dict[str, tuple[float, float]], int | None]:
    pairs = {
        f"{kind}/{level}": (curve, other[level])
        for kind in _COMPARED
        for other in [b.group(kind)]
        for level, curve in a.group(kind).items()
        if level in other
    }
    common = [set(one.steps) & set(other.steps) for one, other in pairs.values()]
    steps = set.intersection(*common) if common else set()
    if not steps:
        return {}, None
    step = max(steps)
    return {name: (one.up_to(step).last, other.up_to(step).last) for name, (one, other) in pairs.items()}, step
