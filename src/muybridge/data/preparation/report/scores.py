"""What rules look at, over all clips: how values are spread, and what other limits would keep."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from muybridge.data.preparation.account import Account, Bound
from muybridge.data.preparation.stage import Rule
from muybridge.data.preparation.status import Outcome
from muybridge.data.record import Record

_LOSING = (0.1, 0.25)
"""Shares of what passes that stricter limits would drop."""


@dataclass(frozen=True)
class Score:
    """A value that a rule looks at.

    Attributes:
        bound: the rule.
        values: of all clips that have one.
        kept: clips that are kept with the limits as they are.
        others: other limits, each as a rule, with the clips that would be kept.
    """

    bound: Bound
    values: tuple[float, ...]
    kept: int
    others: tuple[tuple[Rule, int], ...]


def scores_of(account: Account) -> list[Score]:
    """A score for each rule that any clip has a value for, in the order of the stages.

    What another limit would keep leaves out that stages which look only at kept clips have not seen the others.
    """
    clips = [
        (Record.from_json(outcome.record_json), outcome)
        for outcome in account.outcomes
        if outcome.status in ("ok", "dropped") and outcome.record_json.get("id")
    ]
    return [score for bound in account.bounds if (score := _score(bound, account, clips)) is not None]


def _score(bound: Bound, account: Account, clips: Sequence[tuple[Record, Outcome]]) -> Score | None:
    rule = bound.rule
    values = tuple(value for record, _ in clips if _is_finite(value := rule.value(record)))
    if not values:
        return None
    same_name = [other.rule for other in account.bounds if other.rule.name == rule.name and other.rule != rule]
    deciding = tuple(
        value
        for record, outcome in clips
        if _is_finite(value := rule.value(record))
        and not any(other.verdict(record) for other in same_name)
        and _is_only_dropped_by(outcome, rule.name)
    )
    without = sum(outcome.status == "ok" for _, outcome in clips if not _is_finite(rule.value(_)))
    others = tuple((other, without + sum(_passes(other, value) for value in deciding)) for other in _others(rule, values))
    return Score(bound, values, without + sum(_passes(rule, value) for value in deciding), others)


def _is_only_dropped_by(outcome: Outcome, rule: str) -> bool:
    if outcome.status == "ok":
        return True
    return bool(outcome.verdicts) and all(verdict.rule == rule for verdict in outcome.verdicts)


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _passes(rule: Rule, value: float) -> bool:
    return (rule.least is None or value >= rule.least) and (rule.most is None or value <= rule.most)


def _others(rule: Rule, values: Iterable[float]) -> list[Rule]:
    """Two other limits: a looser one that brings half of the dropped back, and a stricter one; or two stricter ones."""
    ordered = sorted(values)
    if rule.least is None and rule.most is None:
        return _distinct(rule, [("least", _share(ordered, share)) for share in _LOSING])
    side = _busier_side(rule, ordered)
    limit = getattr(rule, side)
    # As seen from the limit: what is dropped lies before it.
    passing = [value for value in ordered if (value >= limit if side == "least" else value <= limit)]
    dropped = [value for value in ordered if (value < limit if side == "least" else value > limit)]
    found: list[tuple[str, float]] = []
    if dropped:
        found.append((side, _share(dropped, 0.5)))
    if passing:
        shares = _LOSING if not dropped else _LOSING[:1]
        found += [(side, _share(passing, share if side == "least" else 1 - share)) for share in shares]
    return _distinct(rule, found)


def _busier_side(rule: Rule, values: Sequence[float]) -> str:
    """The limit that drops more, where there are two."""
    if rule.least is None or rule.most is None:
        return "least" if rule.most is None else "most"
    least, most = rule.least, rule.most
    return "least" if sum(value < least for value in values) >= sum(value > most for value in values) else "most"


def _share(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _distinct(rule: Rule, sides: Iterable[tuple[str, float]]) -> list[Rule]:
    """Each as a rule with a limit that can be typed, which is at least as loose as the value it is from."""
    found: list[Rule] = []
    for side, value in sides:
        other = replace(rule, **{side: _typed(value, down=side == "least")})
        if other != rule and other not in found:
            found.append(other)
    return found


def _typed(value: float, down: bool) -> float:
    """A number of three digits at or beside a value."""
    if value == 0 or not math.isfinite(value):
        return value
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - 2)
    whole = value / unit
    rounded = math.floor(whole + 1e-9) if down else math.ceil(whole - 1e-9)
    return float(f"{rounded * unit:.3g}")
