"""Which curves of a run stand together in a chart, and how."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from muybridge.training.monitoring.curves import Curve
from muybridge.training.monitoring.findings import USUAL_RATIOS
from muybridge.training.monitoring.record import StageRecord, in_order
from muybridge.training.monitoring.svg import COLOURS, Line, lines_of

_SMOOTHED_FROM = 20
_WIDE = 3.0


@dataclass(frozen=True)
class Chart:
    """Curves that stand together.

    Attributes:
        title: of the chart.
        lines: to draw.
        explanation: what it says, in a sentence; may be empty.
        band: of values that are as they should be.
        left_out: how many curves there are besides.
        by_log: whether it is first shown by the logarithm, where that shows more.
    """

    title: str
    lines: tuple[Line, ...]
    explanation: str = ""
    band: tuple[float, float] | None = None
    left_out: int = 0
    by_log: bool = False

    @property
    def values(self) -> list[float]:
        """All finite ones."""
        return [value for line in self.lines for value in line.curve.finite().values]

    @property
    def has_log(self) -> bool:
        """Whether a logarithm shows more than the values themselves."""
        return bool(self.values) and min(self.values) > 0 and max(self.values) > _WIDE * min(self.values)


_EXPLAINED = {
    "loss": "Of the steps themselves, each at a noise level drawn at random: it hardly falls, and that is as it should "
    "be.",
    "gap": "By how much the loss is higher on held-out clips than on those trained on; what grows is learned by heart.",
    "adapter_gap": "By how much the loss at fixed noise is higher without what was learned; 0 is nothing learned.",
    "shuffled_gap": "By how much the loss at fixed noise rises when frames are shuffled; 0 is no look at other frames.",
    "update_ratio": "Size of an update as a share of the weights' size; shaded is what is usual.",
    "clipped_share": "Share of the steps whose gradient was scaled down; above a half the rate or the limit is wrong.",
}
_TITLES = {
    "loss": "Loss",
    "gradient_norm": "Gradient norms",
    "update_ratio": "Sizes of updates",
    "clipped_share": "Steps that were clipped",
    "gap": "Held-out against training",
    "adapter_gap": "Without what was learned",
    "shuffled_gap": "Frames shuffled",
    "learning_rate": "Learning rates",
}
_FIRST = "loss", "held_out_loss", "gap", "adapter_gap", "shuffled_gap", "samples"
_TELLING = {
    "held_out_loss": "the held-out loss",
    "training_loss": "the loss of the training clips at fixed noise",
}
_LAST = "learning_rate", "gradient_norm", "update_ratio", "clipped_share"
_TOGETHER = "training_loss", "samples_without", "clips"  # shown in the charts of others


def charts_of(record: StageRecord) -> list[Chart]:
    """All curves of a stage, in charts, the most telling first."""
    groups = _groups(record)
    others = [name for name in groups if name not in (*_FIRST, *_LAST, *_TOGETHER)]
    charts: list[Chart] = []
    for name in (*_FIRST, *others, *_LAST):
        if name == "held_out_loss" and not groups.keys().isdisjoint(_TELLING):
            charts.append(_fixed_noise(groups))
        elif name == "samples" and name in groups:
            charts += _samples(groups)
        elif name in groups:
            charts.append(_plain(name, groups[name], _what_tells(groups) if name == "loss" else ""))
    return charts


def _what_tells(groups: Mapping[str, object]) -> str:
    found = next((words for name, words in _TELLING.items() if name in groups), None)
    return "" if found is None else f" What tells is {found}."


def _groups(record: StageRecord) -> dict[str, dict[str, Curve]]:
    groups: dict[str, dict[str, Curve]] = {}
    for name, curve in record.curves.items():
        start, _, own = name.partition("/")
        if name != "seconds":
            groups.setdefault(_kind(start), {})[own or start] = curve
    return {name: in_order(curves) for name, curves in groups.items()}


def _kind(name: str) -> str:
    if name.endswith("learning_rate"):
        return "learning_rate"
    return "clipped_share" if name == "clipped" else name


def _plain(name: str, curves: Mapping[str, Curve], more: str = "") -> Chart:
    if name == "clipped_share":  # of all groups together, mostly
        first = {curve.values[-3:]: own for own, curve in reversed(list(curves.items()))}
        curves = {own: curve for own, curve in curves.items() if own in first.values()}
    shown = dict(list(curves.items())[:COLOURS])
    rough = name in ("loss", "gradient_norm") or name not in _TITLES
    smoothed = rough and len(shown) == 1 and all(len(curve.steps) >= _SMOOTHED_FROM for curve in shown.values())
    return Chart(
        _TITLES.get(name, name),
        tuple(lines_of(shown, smoothed)),
        _EXPLAINED.get(name, "") + more,
        USUAL_RATIOS if name == "update_ratio" else None,
        len(curves) - len(shown),
        name.endswith("loss") or name in ("gradient_norm", "update_ratio"),
    )


def _fixed_noise(groups: Mapping[str, Mapping[str, Curve]]) -> Chart:
    held_out, training = groups.get("held_out_loss", {}), groups.get("training_loss", {})
    if not held_out:
        explanation = "At fixed noise, by noise level. No clips are held out to compare with."
        return Chart("Loss of the training clips", tuple(lines_of(training)), explanation, by_log=True)
    lines = lines_of(held_out)
    dashed = [
        Line(f"{line.name} training", training[line.name], line.colour, dashed=True)
        for line in lines
        if line.name in training
    ]
    explanation = "At fixed noise, by noise level; dashed on clips that are trained on."
    return Chart("Held-out loss", (*lines, *dashed), explanation, by_log=True)


def _samples(groups: Mapping[str, Mapping[str, Curve]]) -> Iterator[Chart]:
    for figure in groups["samples"]:
        named = {"samples": "samples", "before training": "samples_without", "training clips": "clips"}
        curves = {title: groups[key][figure] for title, key in named.items() if figure in groups.get(key, {})}
        yield Chart(f"Samples: {figure}", tuple(lines_of(curves)))
