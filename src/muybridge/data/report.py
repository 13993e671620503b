"""What a run will be trained on, before it begins: buckets, what is left out and why, captions, and samples."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from muybridge.data.buckets import Clip, shown_shape
from muybridge.data.dataset import Dataset
from muybridge.data.order import BatchOrder
from muybridge.data.record import shown
from muybridge.types import SettingsDict

_NAMED = 5
_COMMONEST = 5
_TAGS = 500
"""Parts of captions, between their commas, that are counted of a set; those that come most often."""


class DatasetReport:
    """An account of a set of clips."""

    def __init__(self, dataset: Dataset, order: BatchOrder, steps: int) -> None:
        """Of `steps` batches in this order."""
        self.dataset = dataset
        self.order = order
        self.steps = steps

    def to_json(self) -> SettingsDict:
        """As plain values; every name that was refused is in it."""
        dataset, order = self.dataset, self.order
        clips = dataset.plan.clips
        return {
            "sources": [self._source(number) for number in range(len(dataset.sources))],
            "clips": len(clips),
            "seconds": round(_seconds(clips), 3),
            "buckets": [self._bucket(clips) for clips in dataset.plan.buckets.values()],
            "notes": list(dataset.plan.notes),
            "dropped": self._dropped(),
            "captions": _captions([clip.record.text for clip in clips]),
            "batch_size": order.batch_size,
            "steps": self.steps,
            "steps_an_epoch": order.steps,
            "epochs": round(self.steps / order.steps, 3),
            "seen": self._seen(),
        }

    def __str__(self) -> str:
        values = self.to_json()
        parts = [_about_sources(values), _about_buckets(values), *values["notes"], _about_dropped(values)]
        parts += [_about_captions(values), _about_steps(values)]
        return "\n\n".join(filter(None, parts))

    def _source(self, number: int) -> SettingsDict:
        source = self.dataset.sources[number]
        clips = [clip for clip in self.dataset.plan.clips if clip.source == number]
        parts = (part.strip() for clip in clips for part in clip.record.text.split(","))
        return {
            "path": source.path,
            "format": source.format,
            "found": source.found,
            "clips": len(clips),
            "is_prior": number == self.dataset.prior,
            "tags": dict(Counter(filter(None, parts)).most_common(_TAGS)),
        }

    def _bucket(self, clips: Sequence[Clip]) -> SettingsDict:
        steps = self.order.steps_by_bucket.get(clips[0].shape, 0)
        return {
            "bucket": shown_shape(clips[0].shape),
            "clips": len(clips),
            "seconds": round(_seconds(clips), 3),
            "steps_an_epoch": steps,
            "share": round(steps / self.order.steps, 4),
            "crop_loss": round(statistics.fmean(clip.crop_loss for clip in clips), 4),
        }

    def _dropped(self) -> SettingsDict:
        rules: dict[str, list[str]] = {}
        for refusal in self.dataset.refusals:
            rules.setdefault(refusal.rule, []).append(str(refusal))
        return dict(sorted(rules.items(), key=lambda item: -len(item[1])))

    def _seen(self) -> list[SettingsDict]:
        """How often the clips of each set are seen in all steps, from a count of one epoch."""
        counts: Counter[int] = Counter()
        for batch in self.order.epoch(0):
            counts.update(slot.clip.source for slot in batch.slots)
        clips = Counter(clip.source for clip in self.dataset.plan.clips)
        epochs = self.steps / self.order.steps
        paths = [source.path for source in self.dataset.sources]
        return [
            {"path": paths[number], "times": round(counts[number] / clips[number] * epochs, 2)}
            for number in sorted(clips)
        ]


def _seconds(clips: Sequence[Clip]) -> float:
    return sum(clip.record.duration_s or 0.0 for clip in clips)


def _captions(texts: Sequence[str]) -> SettingsDict:
    words = [len(text.split()) for text in texts if text]
    openings = Counter(" ".join(text.lower().split()[:3]) for text in texts if text)
    longest = max(texts, key=len, default="")
    return {
        "with": len(words),
        "without": len(texts) - len(words),
        "different": len({text for text in texts if text}),
        "words": {"least": min(words), "median": statistics.median(words), "most": max(words)} if words else {},
        "openings": [[opening, count] for opening, count in openings.most_common(_COMMONEST) if count > 1],
        "longest": longest,
    }


def _about_sources(values: SettingsDict) -> str:
    lines = [f"{shown(s['path'])} ({s['format']}): {s['found']} entries" for s in values["sources"]]
    return "\n".join(lines) + f"\n{values['clips']} clips to train on, {values['seconds'] / 60:.1f} minutes"


def _about_buckets(values: SettingsDict) -> str:
    header = ("bucket", "clips", "seconds", "steps an epoch", "share", "crop loss")
    rows = [
        (
            bucket["bucket"],
            str(bucket["clips"]),
            f"{bucket['seconds']:.1f}",
            str(bucket["steps_an_epoch"]),
            f"{bucket['share']:.0%}",
            f"{bucket['crop_loss']:.0%}",
        )
        for bucket in values["buckets"]
    ]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    aligned = (
        [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        for row in (header, *rows)
    )
    return "\n".join("  ".join(cells) for cells in aligned) if rows else ""


def _about_dropped(values: SettingsDict) -> str:
    lines: list[str] = []
    for rule, reasons in values["dropped"].items():
        lines.append(f"left out by {rule}: {len(reasons)}")
        lines += [f"  {reason}" for reason in reasons[:_NAMED]]
        lines += [f"  and {len(reasons) - _NAMED} more"] if len(reasons) > _NAMED else []
    return "\n".join(lines)


def _about_captions(values: SettingsDict) -> str:
    captions = values["captions"]
    lines = [f"captions: {captions['with']} ({captions['different']} different), {captions['without']} clips have none"]
    if words := captions["words"]:
        lines.append(f"  words: {words['least']} to {words['most']}, {words['median']:g} in the middle")
    lines += [f"  {count} begin with {shown(opening)!r}" for opening, count in captions["openings"]]
    return "\n".join(lines)


def _about_steps(values: SettingsDict) -> str:
    lines = [
        f"{values['steps']} steps of {values['batch_size']} are {values['epochs']:g} epochs of "
        f"{values['steps_an_epoch']} steps"
    ]
    lines += [f"  each clip of {shown(each['path'])} is seen {each['times']:g} times" for each in values["seen"]]
    return "\n".join(lines)


def write_report(report: DatasetReport, folder: Path) -> None:
    """Write `data.json`, `data.txt` and the contact sheet `data.png` into a folder.

    Raises:
        OutputError: it cannot be written.
    """
    import json

    from muybridge.data.contact_sheet import draw_samples
    from muybridge.files.atomic import new_file

    with new_file(folder / "data.json") as temporary:
        temporary.write_text(json.dumps(report.to_json(), indent=1), encoding="utf-8")
    with new_file(folder / "data.txt") as temporary:
        temporary.write_text(f"{report}\n", encoding="utf-8", errors="backslashreplace")
    with new_file(folder / "data.png") as temporary:
        draw_samples(report.dataset, report.order.seed).save(temporary, format="PNG")
