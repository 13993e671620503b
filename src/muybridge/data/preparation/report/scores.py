"""What rules look at, over all clips: how values are spread, and what other limits would keep."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from muybridge.data.preparation.account import Account, Bound
from muybridge.data.preparation.stage import Rule
from muybridge.data.preparation.status import Outcome
from muybridge.data.record import Record

_LOOSER = (0.5, 1.0)
"""Shares of what a limit drops that looser ones would let through; the first that changes anything is shown."""
_STRICTER = (0.1, 0.25, 0.5)
"""Shares of what passes that stricter ones would drop; likewise."""
_OTHERS = 2


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


@dataclass(frozen=True)
class _Clip:
    """A clip as a rule sees it.

    Attributes:
        value: that the rule looks at; None where there is none.
        decides: whether it is kept if, and only if, this rule keeps it.
        kept: whether it is.
    """

    value: float | None
    decides: bool
    kept: bool


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
    others = [other.rule for other in account.bounds if other.rule.name == rule.name and other.rule != rule]
    seen = [_seen(rule, others, record, outcome) for record, outcome in clips]
    values = sorted(clip.value for clip in seen if clip.value is not None)
    if not values:
        return None
    kept = _kept(rule, seen)
    changed = [
        [(other, number) for other in side if (number := _kept(other, seen)) != kept] for side in _sides(rule, values)
    ]
    first = [side[0] for side in changed if side]
    more = [each for side in changed for each in side[1:]]
    return Score(bound, tuple(values), kept, tuple((first + more)[:_OTHERS]))


def _seen(rule: Rule, others: Sequence[Rule], record: Record, outcome: Outcome) -> _Clip:
    value = rule.value(record)
    if value is not None and not math.isfinite(value):
        value = None
    is_kept = outcome.status == "ok"
    only = bool(outcome.verdicts) and all(verdict.rule == rule.name for verdict in outcome.verdicts)
    # Several rules may share a name, as those of width and height do.
    decides = value is not None and (is_kept or only) and not any(other.verdict(record) for other in others)
    return _Clip(value, decides, is_kept)


def _kept(rule: Rule, clips: Sequence[_Clip]) -> int:
    return sum(clip.value is not None and _passes(rule, clip.value) if clip.decides else clip.kept for clip in clips)


def _passes(rule: Rule, value: float) -> bool:
    return (rule.least is None or value >= rule.least - rule.slack) and (
        rule.most is None or value <= rule.most + rule.slack
    )


def _sides(rule: Rule, values: Sequence[float]) -> Iterator[list[Rule]]:
    """Looser limits, and stricter ones, each in the order in which they are to be tried."""
    side = _busier_side(rule, values)
    limit = getattr(rule, side)
    within = replace(rule, **{"most" if side == "least" else "least": None})
    up = values if side == "least" else values[::-1]
    if limit is None:
        yield _rules(rule, side, [_at(up, share) for share in _STRICTER])
        return
    passing = [value for value in up if _passes(within, value)]
    dropped = up[: len(up) - len(passing)]
    yield _rules(rule, side, [_at(dropped[::-1], share) for share in _LOOSER] if dropped else [])
    yield _rules(rule, side, [_at(passing, share) for share in _STRICTER] if passing else [])


def _busier_side(rule: Rule, values: Sequence[float]) -> str:
    """Of two limits the one that drops more."""
    if rule.least is None or rule.most is None:
        return "least" if rule.most is None else "most"
    least, most = rule.least, rule.most
    return "least" if sum(value < least for value in values) >= sum(value > most for value in values) else "most"


def _at(values: Sequence[float], share: float) -> float:
    return values[min(len(values) - 1, int(share * len(values)))]


def _rules(rule: Rule, side: str, limits: Sequence[float]) -> list[Rule]:
    rules = [replace(rule, **{side: _typed(limit, down=side == "least")}) for limit in limits]
    return [other for place, other in enumerate(rules) if other != rule and other not in rules[:place]]


def _typed(value: float, down: bool) -> float:
    """A number of three digits at a value or, so that it lets this through, beside it."""
    if value == 0:
        return value
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - 2)
    whole = math.floor(value / unit + 1e-9) if down else math.ceil(value / unit - 1e-9)
    return float(f"{whole * unit:.3g}")
