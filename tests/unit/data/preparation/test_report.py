from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
import shlex
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from muybridge.data.preparation.account import Account, Bound, ordered
from muybridge.data.preparation.recipe import Recipe
from muybridge.data.preparation.report.captions import look_at_captions
from muybridge.data.preparation.report.contents import Contents, Wanted
from muybridge.data.preparation.report.histogram import draw_histogram, span_of, ticks
from muybridge.data.preparation.report.markup import safe, share
from muybridge.data.preparation.report.pictures import ClipPictures
from muybridge.data.preparation.report.report import write_report
from muybridge.data.preparation.report.scores import scores_of
from muybridge.data.preparation.stage import Rule
from muybridge.data.preparation.status import Outcome, Status
from muybridge.data.record import Record
from muybridge.types import VideoShape

STILL = Rule("still", "motion.mean", "motion", least=1.0)
LARGE = Rule("large", "motion.mean", "motion", most=100.0)
TEXT = Rule("text", "text_area.most", "writing", most=0.02)
HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(2)>\n\u202e\udcff & {title} 😀'


def clip(number: int, motion: float, record: Record, text: str = "A wall gets brighter.") -> Outcome:
    identity = hashlib.sha256(str(number).encode()).hexdigest()[:16]
    found = Record(identity, record.media, "video", text, 0.0, 0.5, 64, 48, 24.0, 12, {"motion": {"mean": motion}})
    verdict = STILL.verdict(found)
    values = found.to_json()
    if verdict is None:
        return Outcome(values, "ok")
    return Outcome(values, "dropped", verdict.rule, verdict.reason, (verdict,), "motion")


def failure(name: str, status: Status, reason: str) -> Outcome:
    return Outcome({"media": name}, status, status, reason)


def account(folder: Path, *outcomes: Outcome, rules: tuple[Rule, ...] = (STILL,)) -> Account:
    return Account(
        folder=folder,
        recipe="quick",
        settings=({"probe": {"min_side": 256}}, {"motion": {"min_motion": 1.0}}),
        idle={"caption": "no model is named"},
        bounds=tuple(Bound("motion", rule) for rule in rules),
        source="raw",
        version="1",
        inputs={"ok": 1},
        outcomes=ordered(outcomes),
    )


class Page(HTMLParser):
    """Elements and attributes of a page, which must nest."""

    VOID = frozenset(("meta", "br", "img", "path", "rect", "circle"))

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_says_what_became_of_the_clips(tmp_path: Path, record: Record) -> None:
    outcomes = [clip(number, 0.1 * number, record) for number in range(30)]
    path = write_report(account(tmp_path, *outcomes, failure("a.mp4", "crashed", "SIGKILL")), tmp_path)
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert "20 of 31 clips kept (65 %)" in page.text
    assert "Most were taken by still: 10 clips." in page.text
    assert "caption did nothing: no model is named." in page.text
    assert "still: 10 clips" in page.text
    assert "1 entry ended the process that worked on them" in page.text
    assert "a.mp4: SIGKILL" in page.text
    pictures = [attributes["src"] or "" for tag, attributes in page.found if tag == "img"]
    assert len(pictures) == 20 + 10
    assert all(each.startswith("data:image/webp;base64,") for each in pictures)
    links = {attributes["href"] for tag, attributes in page.found if tag == "a"}
    assert links == {f"#{attributes['id']}" for tag, attributes in page.found if tag == "section"}
    values = json.loads((tmp_path / "report.json").read_text())
    assert values["clips"] == {"ok": 20, "dropped": 10, "crashed": 1}
    assert values["scores"][0]["kept"] == 20
    assert values["captions"]["with"] == 20
    assert values["failures"] == {"crashed": [{"name": "a.mp4", "reason": "SIGKILL"}]}
    assert values["tables"]["size"] == [{"value": "64x48", "clips": 20, "seconds": 10.0}]


def test_the_page_needs_no_network_and_no_script(tmp_path: Path, record: Record) -> None:
    outcomes = [
        clip(1, 2.0, record, HOSTILE.replace("\udcff", "")),
        clip(2, 0.0, record),
        failure(HOSTILE, "unreadable", HOSTILE),
    ]
    text = write_report(account(tmp_path, *outcomes), tmp_path).read_text(encoding="utf-8")
    page = Page(text)
    assert not {tag for tag, _ in page.found} & {"script", "link", "iframe", "object", "base", "form"}
    assert not any(name.startswith("on") for _, attributes in page.found for name in attributes)
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", text)
    assert "url(" not in text
    assert "\\u202e\\udcff" in page.text
    assert "\u202e" not in text
    json.loads((tmp_path / "report.json").read_text())


def test_the_second_report_needs_no_videos(tmp_path: Path, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "journal").mkdir()
    known = account(tmp_path, clip(1, 2.0, record), clip(2, 0.0, record))
    first = write_report(known, tmp_path).read_bytes()
    monkeypatch.setattr("muybridge.data.preparation.report.pictures.spread_frames", lambda *_: pytest.fail("decoded"))
    assert write_report(known, tmp_path).read_bytes() == first


def test_clips_that_went_away_are_said_to_have(tmp_path: Path) -> None:
    gone = Record("x", str(tmp_path / "gone.mp4"), "video")
    text = write_report(account(tmp_path, clip(1, 2.0, gone)), tmp_path).read_text(encoding="utf-8")
    assert "cannot be read any more" in text


def test_nothing_kept_and_nothing_at_all(tmp_path: Path, record: Record) -> None:
    text = write_report(account(tmp_path, clip(1, 0.0, record)), tmp_path).read_text(encoding="utf-8")
    assert "Nothing is kept." in Page(text).text
    text = write_report(account(tmp_path), tmp_path).read_text(encoding="utf-8")
    assert "0 of 0 clips kept" in Page(text).text


def test_buckets_are_those_of_a_chosen_shape(tmp_path: Path, record: Record) -> None:
    write_report(account(tmp_path, clip(1, 2.0, record)), tmp_path, Wanted(VideoShape(4, 48, 64)))
    buckets = json.loads((tmp_path / "report.json").read_text())["buckets"]
    assert buckets["for"] == "64x48x4"
    assert buckets["clips"] == {"64x48x4": 1}


def test_other_limits_are_counted_with_all_other_rules(tmp_path: Path, record: Record) -> None:
    outcomes = [clip(number, 0.1 * number, record) for number in range(20)]
    (score,) = scores_of(account(tmp_path, *outcomes))
    assert score.kept == 10
    (looser, kept), (stricter, fewer) = score.others
    assert (looser.least, kept) == (0.4, 16)
    assert (stricter.least, fewer) == (1.1, 9)
    # What another rule drops as well does not come back.
    text = Rule("text", "width", "writing", most=0.0)
    both = [
        Outcome(o.record_json, "dropped", "still", "", (*o.verdicts, text.verdict(record) or o.verdicts[0]), "motion")
        if o.verdicts
        else o
        for o in outcomes
    ]
    (score,) = scores_of(account(tmp_path, *both))
    assert score.kept == 10
    assert all(rule.least is not None and rule.least > 1 for rule, _ in score.others)


def test_a_rule_that_no_clip_has_a_value_for_has_no_figure(tmp_path: Path, record: Record) -> None:
    found = scores_of(account(tmp_path, clip(1, 2.0, record), rules=(STILL, TEXT, LARGE)))
    assert [score.bound.rule for score in found] == [STILL, LARGE]


@pytest.mark.parametrize(
    "values",
    [[0.0], [5.0] * 9, [-1e-9, 1e-9], [1e9, -1e9], [0.0] * 50 + [1e6], list(map(float, range(100))), [1e300, -1e300]],
)
def test_any_values_can_be_drawn(values: list[float]) -> None:
    for limits in ((None, None), (1.0, None), (None, -3.0), (-1e12, 1e12)):
        text = draw_histogram("a <name>", values, *limits)
        assert "nan" not in text
        assert "inf" not in text
        Page(text)
    span = span_of(values)
    assert span.low < span.high
    assert 1 <= len(ticks(span)) <= 7
    assert all(math.isfinite(tick) for tick in ticks(span))


def test_values_that_leave_no_room_stand_in_the_last_bar() -> None:
    span = span_of([*map(float, range(100)), 1e6])
    assert (span.low, span.high, span.above) == (0, 98, True)


def test_neighbouring_ticks_have_different_names() -> None:
    for values in ([12.401, 12.409], [0.0, 0.05], [1e5, 1e5 + 3], [-2.0, 2.0]):
        names = re.findall(r'text-anchor="middle">([^<]*)<', draw_histogram("x", values))
        assert len(names) == len(set(names)) > 1


def test_captions_are_counted() -> None:
    found = look_at_captions(["A cat sits down.", "a cat  sits up.", "", "A dog runs.", "A dog runs."])
    assert sorted(found.words) == [3, 3, 4, 4]
    assert (found.missing, found.different) == (1, 3)
    assert dict(found.openings) == {"a cat sits": 2, "a dog runs.": 2}
    assert set(found.samples) == {"A cat sits down.", "a cat sits up.", "A dog runs."}


def test_text_is_safe_and_shares_are_honest() -> None:
    assert safe("a\n b & <c>") == "a b &amp; &lt;c&gt;"
    assert safe("abcdef", 4) == "abc…"
    assert [share(0, 3), share(1, 1000), share(999, 1000), share(3, 3), share(0, 0)] == [
        "0 %",
        "<1 %",
        ">99 %",
        "100 %",
        "-",
    ]


def test_each_part_of_the_picture_is_shown(record: Record, tmp_path: Path) -> None:
    pictures = ClipPictures(tmp_path)
    cropped = replace(record, extra={**record.extra, "crop": [0, 0, 32, 48, 64, 48]})
    assert pictures.address(record) != pictures.address(cropped)
    assert pictures.address(cropped) == ClipPictures(tmp_path / "other").address(cropped)


def test_the_command_has_what_was_set(record: Record, tmp_path: Path) -> None:
    changes = ("probe.min_seconds=2.5", "split.threshold=12.5", "trim=off", "write.clips=copy")
    used = Recipe.load("quick", changes)
    made = replace(account(tmp_path, clip(0, 5.0, record)), settings=tuple(used.settings()), idle=used.idle)
    words = shlex.split(Contents(made, Wanted(VideoShape(8, 64, 64)), ClipPictures(tmp_path)).command)
    found = [change for flag, change in itertools.pairwise(words) if flag == "--set"]
    assert set(changes[:3]) <= set(found)
    assert Recipe.load("quick", found).settings() == used.settings()
