"""A prepared set as one page: what is kept, what is not and why, and what it looks like."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TypeVar

from muybridge.data.buckets import Clip, shown_shape
from muybridge.data.preparation.account import DROPPED, Account, shown_name
from muybridge.data.preparation.report.contents import Contents, Wanted
from muybridge.data.preparation.report.histogram import draw_histogram, short
from muybridge.data.preparation.report.markup import count, listed, minutes, safe, section, share, table
from muybridge.data.preparation.report.page import PAGE
from muybridge.data.preparation.report.pictures import ClipPictures
from muybridge.data.preparation.report.scores import Score
from muybridge.data.preparation.stage import Rule
from muybridge.data.preparation.status import Outcome
from muybridge.data.record import Record
from muybridge.files.atomic import new_file
from muybridge.types import VideoShape

_Item = TypeVar("_Item")
REPORT_JSON, REPORT_HTML = "report.json", "report.html"
_JOURNAL = "journal"
_USUAL = Wanted(VideoShape(16, 512, 512))
_NAMED = 20
_LETTERS = 160
_STATUSES = {
    "unreadable": "could not be read",
    "crashed": "ended the process that worked on them",
    "timeout": "took too long",
    "failed": "met an error",
    "caption-failed": "got no caption",
}


def write_report(account: Account, out: Path, wanted: Wanted | None = None) -> Path:
    """Write `report.json` and `report.html` into a folder; returns the latter.

    Args:
        account: of a prepared set.
        out: the folder.
        wanted: what a model would be trained on, to show which clips go where; if not given, what AnimateDiff on
            Stable Diffusion is.

    Raises:
        OutputError: they cannot be written.
    """
    contents = Contents(account, wanted or _USUAL, ClipPictures(out / _JOURNAL / "pictures"))
    with new_file(out / REPORT_JSON) as temporary:
        temporary.write_text(f"{json.dumps(contents.to_json(), indent=1)}\n", encoding="ascii")
    with new_file(out / REPORT_HTML) as temporary:
        temporary.write_text(report_page(contents), encoding="utf-8")
    return out / REPORT_HTML


def report_page(contents: Contents) -> str:
    """The page."""
    wanted = contents.wanted
    parts = {
        "way": ("From all clips to those that are kept", _way),
        "scores": ("What rules look at", _scores),
        "kept": ("Some of what is kept", _kept),
        "dropped": ("What rules drop", _dropped),
        "failures": ("What could not be used", _failures),
        "duplicates": ("Duplicates", _duplicates),
        "captions": ("Captions", _captions),
        "buckets": (f"What {shown_shape(wanted.shape)} at {wanted.fps:g} fps would be trained on", _buckets),
        "tables": ("Sizes, rates and lengths of what is kept", _tables),
        "made": ("How it was made", _made),
    }
    sections = {name: section(name, title, *draw(contents)) for name, (title, draw) in parts.items()}
    links = (f'<a href="#{name}">{escape(parts[name][0])}</a>' for name, text in sections.items() if text)
    body = [_summary(contents.account), f"<nav>{''.join(links)}</nav>", *sections.values()]
    return PAGE.format(title=safe(contents.account.folder.name), body="\n".join(filter(None, body)))


def _summary(account: Account) -> str:
    kept, clips = len(account.kept), len(account.outcomes)
    entries = sum(account.inputs.values())
    lines = [
        f'<p class="big"><b>{kept:,}</b> of {count(clips, "clip")} kept ({share(kept, clips)}), '
        f"{minutes(account.seconds)} of {minutes(account.all_seconds)}.</p>",
        f'<p class="note">From {count(entries, "entry", "entries")} of {safe(account.source)}.</p>',
    ]
    steps = account.steps()
    if steps:
        most = max(steps, key=lambda step: step.clips)
        lines.append(f"<p>Most were taken by <b>{safe(most.rule)}</b>: {count(most.clips, 'clip')}.</p>")
    notes = [f"{safe(stage)} did nothing: {safe(reason)}." for stage, reason in account.idle.items()]
    if not kept:
        notes.insert(0, "Nothing is kept. The limits below say what other limits would keep.")
    if notes:
        lines.append(f'<ul class="notes">{"".join(f"<li>{note}</li>" for note in notes)}</ul>')
    return "\n".join(lines)


def _way(contents: Contents) -> Iterable[str]:
    account = contents.account
    clips = len(account.outcomes)
    rows = [_way_row("all", "", clips, account.all_seconds, (clips, 0), clips)]
    for step in account.steps():
        status = step.status if step.status not in ("dropped", step.rule) else ""
        where = ", ".join(filter(None, (step.stage if step.stage != step.rule else "", status)))
        lost = f"−{step.clips:,}", f"−{minutes(step.seconds)}" if step.seconds else ""
        rows.append(_way_row(step.rule, where, *lost, (step.clips_left, step.clips), clips))
    kept = len(account.kept)
    rows.append(_way_row("kept", "", kept, account.seconds, (kept, 0), clips))
    head = "<tr><th>what</th><th class=n>clips</th><th class=n>time</th><th>left</th></tr>"
    yield f'<table class="funnel"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>'


def _way_row(
    name: str, where: str, clips: int | str, time: float | str, left_and_lost: tuple[int, int], whole: int
) -> str:
    parts = zip(("kept", "lost"), left_and_lost, strict=True)
    bars = "".join(f'<i class="{kind}" style="width:{100 * each / max(whole, 1):.2f}%"></i>' for kind, each in parts)
    note = f' <span class="note">{safe(where)}</span>' if where else ""
    cells = [
        f'<td class="name">{safe(name)}{note}</td>',
        f"<td class=n>{clips if isinstance(clips, str) else f'{clips:,}'}</td>",
    ]
    cells.append(f"<td class=n>{time if isinstance(time, str) else minutes(time)}</td>")
    return f'<tr>{"".join(cells)}<td class="bar"><div class="bars">{bars}</div></td></tr>'


def _scores(contents: Contents) -> Iterable[str]:
    figures = "".join(_score(score) for score in contents.scores)
    if figures:
        key = '<span class="key"></span>kept by the rule<span class="key lost"></span>dropped by it'
        yield f'<p class="note">{key}</p>'
        yield f'<div class="grid">{figures}</div>'


def _score(score: Score) -> str:
    rule = score.bound.rule
    drawing = draw_histogram(rule.what, score.values, rule.least, rule.most)
    lines = [f"{safe(_limits(rule))}: {score.kept:,} clips kept in the end"]
    for other, kept in score.others:
        more = kept - score.kept
        lines.append(f"{safe(_limits(other))}: {kept:,} ({more:+,})".replace("-", "−"))
    name = safe(rule.name if rule.name == score.bound.stage else f"{score.bound.stage}: {rule.name}")
    return (
        f'<figure><figcaption>{name}</figcaption><p class="note">{safe(rule.what)}, {count(len(score.values), "clip")}'
        f"</p>{drawing}{listed(lines)}</figure>"
    )


def _limits(rule: Rule) -> str:
    if rule.least is None and rule.most is None:
        return "no limit"
    if rule.most is None:
        return f"from {short(rule.least or 0.0)} on"
    return f"up to {short(rule.most)}" if rule.least is None else f"{short(rule.least)} to {short(rule.most)}"


def _kept(contents: Contents) -> Iterable[str]:
    pictures = contents.pictures
    clips = [_clip(record, record.text or "(no caption)", pictures) for record in contents.kept_samples]
    if clips:
        yield f'<div class="sheet">{"".join(clips)}</div>'
        if (left := len(contents.account.kept) - len(clips)) > 0:
            yield f'<p class="note">{left:,} more in manifest.jsonl.</p>'


def _dropped(contents: Contents) -> Iterable[str]:
    numbers = Counter(o.rule for o in contents.account.outcomes if o.status == "dropped")
    most = max(numbers.values(), default=0)
    for rule, outcomes in contents.dropped_samples.items():
        number = numbers[rule]
        clips = "".join(_outcome(outcome, contents.pictures) for outcome in outcomes)
        shown = f", the {len(outcomes)} nearest to the limit" if number > len(outcomes) else ""
        state = " open" if number == most else ""
        yield f"<details{state}><summary>{safe(rule)}: {count(number, 'clip')}{shown}</summary>"
        yield f'<div class="sheet">{clips}</div></details>'


def _outcome(outcome: Outcome, pictures: ClipPictures) -> str:
    return _clip(Record.from_json(outcome.record_json), outcome.reason or "", pictures)


def _clip(record: Record, text: str, pictures: ClipPictures) -> str:
    address = pictures.address(record)
    picture = f'<img alt="" src="{address}">' if address else '<div class="gone">cannot be read any more</div>'
    about = " ".join(filter(None, (_name(record.name), f"({record.id[:6]})")))
    return f'<div class="clip">{picture}<div>{safe(text, _LETTERS)}</div><div class="name">{safe(about)}</div></div>'


def _name(name: str) -> str:
    """The end of a path, which is what tells one from another."""
    return name.rpartition("/")[2]


def _failures(contents: Contents) -> Iterable[str]:
    for status, outcomes in contents.failures.items():
        yield f"<h3>{count(len(outcomes), 'entry', 'entries')} {_STATUSES.get(status, safe(status))}</h3>"
        yield _some(outcomes, lambda o: f"{safe(_name(shown_name(o)))}: {safe(o.reason or '', 2 * _LETTERS)}")


def _duplicates(contents: Contents) -> Iterable[str]:
    groups = contents.duplicates
    if not groups:
        return
    names = {record.id: _name(record.name) for record in contents.account.kept}
    lines = [
        f"{safe(names.get(same, same))}: {', '.join(safe(_name(shown_name(o))) for o in outcomes[:_NAMED])}"
        + (f" and {len(outcomes) - _NAMED} more" if len(outcomes) > _NAMED else "")
        for same, outcomes in groups.items()
    ]
    yield "<p>Each that stays, and what is like it:</p>"
    yield _some(lines, lambda line: line)


def _some(items: Sequence[_Item], draw: Callable[[_Item], str]) -> str:
    """The first of them as a list, and how many more there are."""
    more = [f"and {len(items) - _NAMED:,} more in {DROPPED}"] if len(items) > _NAMED else []
    return listed([*map(draw, items[:_NAMED]), *more])


def _captions(contents: Contents) -> Iterable[str]:
    captions = contents.captions
    if not contents.account.kept:
        return
    if not captions.words:
        yield "<p>No clip has a caption. Train with one for all, or have a model write them (caption.model).</p>"
        return
    yield (
        f"<p>{count(len(captions.words), 'clip')} with a caption, {captions.different:,} of them different; "
        f"{captions.missing:,} without.</p>"
    )
    drawing = draw_histogram("words of a caption", [float(words) for words in captions.words])
    openings = table(("first words", "captions"), captions.openings, numbers=(1,)) if captions.openings else ""
    yield (
        f'<div class="grid"><figure><figcaption>Words of a caption</figcaption>{drawing}</figure>'
        + (f"<figure><figcaption>How most begin</figcaption>{openings}</figure>" if openings else "")
        + "</div>"
    )
    yield f"<details><summary>{count(len(captions.samples), 'caption')}</summary>"
    yield f"{listed(safe(text, 800) for text in captions.samples)}</details>"


def _buckets(contents: Contents) -> Iterable[str]:
    plan = contents.buckets
    if not contents.account.kept:
        return
    rows = [
        (shown_shape(shape), len(clips), minutes(sum(clip.record.duration_s or 0.0 for clip in clips)), _cut_off(clips))
        for shape, clips in plan.buckets.items()
    ]
    if rows:
        yield table(("size and frames", "clips", "time", "cut off"), rows, numbers=(1, 2, 3))
    left_out: dict[str, list[str]] = {}
    for refusal in plan.refusals:
        left_out.setdefault(refusal.rule, []).append(refusal.reason)
    yield listed(
        f"{count(len(reasons), 'clip')} left out as {safe(rule)}, as one that {safe(reasons[0])}"
        for rule, reasons in left_out.items()
    )
    yield listed(map(safe, plan.notes)) if plan.notes else ""


def _cut_off(clips: Sequence[Clip]) -> str:
    losses = [clip.crop_loss for clip in clips]
    return share(sum(losses), len(losses))


def _tables(contents: Contents) -> Iterable[str]:
    if not contents.account.kept:
        return
    figures = []
    for name, rows in contents.tables().items():
        shown = [(value, clips, minutes(seconds)) for value, clips, seconds in rows]
        figures.append(f"<figure>{table((name, 'clips', 'time'), shown, numbers=(1, 2))}</figure>")
    yield f'<div class="grid">{"".join(figures)}</div>'


def _made(contents: Contents) -> Iterable[str]:
    account = contents.account
    yield f"<p>By this command, with the settings below:</p><pre>{safe(contents.command)}</pre>"
    rows = [(f"{stage}.{name}", json.dumps(value)) for stage, name, value in _flat(account)]
    yield f"<details><summary>Settings</summary>{table(('setting', 'value'), rows)}</details>"
    yield f'<p class="note">{safe(", ".join(f"{name} {number}" for name, number in contents.versions.items()))}</p>'


def _flat(account: Account) -> Iterable[tuple[str, str, object]]:
    for entry in account.settings:
        for stage, settings in entry.items():
            for name, value in settings.items():
                yield stage, name, value
