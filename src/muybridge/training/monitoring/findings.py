"""What the values of a run say about how it goes, in words: what is wrong, and what to do about it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from muybridge.training.damaged_files import DAMAGED_FILE
from muybridge.training.monitoring.curves import Curve, short
from muybridge.training.monitoring.record import StageRecord

USUAL_RATIOS = 1e-4, 1e-2
"""Size of an update as a share of the weights' size: below it hardly anything is learned, above it is unlearned."""
MOST_CLIPPED = 0.5
STILL = 0.5
"""Share of neighbouring frames that are identical, from which a clip counts as a still."""
_NAMED = 4  # groups of weights in a sentence
_WORSE = 1.05
_NOTHING = 0.002


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Attributes:
        kind: by which it is known again when its figures have changed.
        text: for people.
    """

    kind: str
    text: str


@dataclass(frozen=True)
class UpdateCurves:
    """What one group of weights got over the steps that were looked at.

    Attributes:
        gradient_norm: of its gradient.
        update_ratio: size of the update as a share of the weights' own size.
        clipped_share: of the steps until then, those whose gradients were scaled down.
    """

    gradient_norm: Curve
    update_ratio: Curve
    clipped_share: Curve


def findings(record: StageRecord) -> list[Finding]:
    """All that a stage's record tells, the gravest first; empty where there is nothing to say."""
    return [
        *_about_log(record),
        *_about_files(record),
        *(update_findings(groups, _warmup(record)) if (groups := update_curves(record)) else _about_steps(record)),
        *_about_adapter(record),
        *_about_held_out(record),
        *_about_samples(record),
    ]


def _warmup(record: StageRecord) -> int:
    schedule = record.settings.get("schedule")
    steps = (schedule if isinstance(schedule, dict) else record.settings).get("warmup_steps")
    return steps if isinstance(steps, int) else 0


def update_curves(record: StageRecord) -> dict[str, UpdateCurves]:
    """What each group of weights got, from the log."""
    gradients, ratios, clipped = (record.group(name) for name in ("gradient_norm", "update_ratio", "clipped_share"))
    return {
        name: UpdateCurves(gradients[name], ratios[name], clipped[name])
        for name in gradients
        if name in ratios and name in clipped
    }


def update_findings(groups: Mapping[str, UpdateCurves], warmup: int = 0) -> list[Finding]:
    """What is wrong with gradients and sizes of updates.

    Args:
        groups: of weights, by name.
        warmup: steps in which the rate rises, whose sizes of updates do not count.
    """
    seen = {name: group for name, group in groups.items() if _after(group.gradient_norm, 0)}
    silent = [name for name, group in seen.items() if not any(_after(group.gradient_norm, 0))]
    moved = {name: group for name, group in seen.items() if any(_after(group.update_ratio, 0))}
    fixed = [name for name in seen if name not in silent and name not in moved]
    ratios = {name: ratio for name, group in moved.items() if (ratio := _usual_ratio(group, warmup)) is not None}
    clipped = {name: group.clipped_share.last for name, group in seen.items()}
    return [*_about_stuck(silent, fixed, seen), *_about_ratios(ratios, seen), *_about_clipping(clipped)]


def _about_stuck(silent: Sequence[str], fixed: Sequence[str], groups: Mapping[str, object]) -> Iterator[Finding]:
    if silent:
        yield Finding(
            "no-gradient",
            f"No gradient reaches {_names(silent, groups)}: frozen, or cut off by something frozen before it. Look at "
            "which layers are trained, and at gradient checkpointing.",
        )
    if fixed:
        yield Finding(
            "no-update",
            f"Gradients reach {_names(fixed, groups)} and nothing moves: the learning rate is 0, or so small that the "
            "precision of the weights swallows it.",
        )


def _usual_ratio(group: UpdateCurves, warmup: int) -> float | None:
    # What starts at zero has no size to compare with at first.
    ratios = [ratio for ratio in _after(group.update_ratio, warmup) if math.isfinite(ratio)]
    return median(ratios) if ratios else None


def _about_ratios(ratios: Mapping[str, float], groups: Mapping[str, object]) -> Iterator[Finding]:
    least, most = USUAL_RATIOS
    if slow := [name for name, ratio in ratios.items() if ratio < least]:
        yield Finding(
            "slow",
            f"An update changes {_names(slow, groups)} by {short(min(ratios[name] for name in slow))} of the weights' "
            f"size, and usual is {least:g} to {most:g}: raise the learning rate.",
        )
    if fast := [name for name, ratio in ratios.items() if ratio > most]:
        yield Finding(
            "fast",
            f"An update changes {_names(fast, groups)} by {short(max(ratios[name] for name in fast))} of the weights' "
            f"size, and usual is {least:g} to {most:g}: lower the learning rate if the loss is unsteady.",
        )


def _about_clipping(shares: Mapping[str, float]) -> Iterator[Finding]:
    if clipped := [name for name, share in shares.items() if share > MOST_CLIPPED]:
        yield Finding(
            "clipped",
            f"In {max(shares[name] for name in clipped):.0%} of the steps gradients are scaled down to "
            f"max_gradient_norm ({_names(clipped, shares)}): lower the learning rate, or raise the limit.",
        )


def _about_steps(record: StageRecord) -> Iterator[Finding]:
    if "clipped" in record.curves:
        yield from _about_clipping({"all weights": record.curves["clipped"].last})


def _about_log(record: StageRecord) -> Iterator[Finding]:
    if record.unread_lines:
        yield Finding("log", f"{record.unread_lines} lines of the log are damaged and left out.")
    broken = [name for name, curve in record.curves.items() if "loss" in name and not math.isfinite(curve.last)]
    if broken:
        yield Finding("loss", f"The value of {_names(broken, {})} is not finite: the learning rate is too high.")


def _about_files(record: StageRecord) -> Iterator[Finding]:
    if record.damaged:
        files = "1 file" if len(record.damaged) == 1 else f"{len(record.damaged)} files"
        yield Finding(
            "files",
            f"{files} turned out to be damaged and left out, with another clip in the place: "
            f"{_names(sorted(record.damaged), {})}. Copy them again, or take them out; {DAMAGED_FILE} has the reasons.",
        )


def _about_adapter(record: StageRecord) -> Iterator[Finding]:
    if _is_nothing(record.group("adapter_gap")):
        yield Finding(
            "adapter",
            "Without what was learned the loss at fixed noise is as low as with it: nothing of use is learned yet.",
        )
    if _is_nothing(record.group("shuffled_gap")):
        yield Finding(
            "shuffled",
            "The loss is the same when the frames are shuffled: their order is not looked at, so no motion is learned.",
        )


def _is_nothing(gaps: Mapping[str, Curve]) -> bool:
    late = [curve.last for curve in gaps.values() if curve.steps[-1] > 0]
    return bool(late) and max(late) < _NOTHING


def _about_held_out(record: StageRecord) -> Iterator[Finding]:
    training, turns = record.group("training_loss"), []
    for name, curve in record.group("held_out_loss").items():
        known = curve.finite()
        if len(known.values) < 3 or name not in training:
            continue
        lowest = min(known.values)
        if known.last > _WORSE * lowest and training[name].last < training[name].values[0]:
            turns.append(known.steps[known.values.index(lowest)])
    if len(turns) * 2 > len(training):
        yield Finding(
            "overfitting",
            f"Since about step {round(median(turns))} the loss on held-out clips rises, and that on the training clips "
            "has fallen: it learns them by heart. Use the weights from there, more clips, or fewer steps.",
        )


def _about_samples(record: StageRecord) -> Iterator[Finding]:
    samples, clips = record.group("samples"), record.group("clips")
    if "identical" in samples and (share := samples["identical"].last) >= STILL:
        also = "identical" in clips and clips["identical"].last >= STILL
        words = "as they are in the training clips" if also else "which they are not in the training clips"
        yield Finding("still", f"{share:.0%} of the samples' neighbouring frames are identical, {words}.")


def _after(curve: Curve, step: int) -> list[float]:
    return [value for at, value in zip(curve.steps, curve.values, strict=True) if at > step]


def _names(names: Sequence[str], groups: Mapping[str, object]) -> str:
    if len(groups) > 1 and len(names) == len(groups):
        return "everything that is trained"
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
