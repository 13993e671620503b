"""The report of a run: one file that fetches nothing, with everything from outside escaped."""

from __future__ import annotations

import json
import logging
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from tests.unit.training.monitoring.small import Trainer
from torch import nn

from muybridge.training.monitoring.curves import Axis, Curve, axis_of
from muybridge.training.monitoring.report import ReportFile, write_report
from muybridge.training.monitoring.sheets import write_sheet
from muybridge.training.monitoring.svg import Line, draw_chart

EVIL = "<script>alert('x')</script>\"&{title}"
VOID = {"meta", "img", "input", "circle", "path", "rect"}


class Page(HTMLParser):
    """Notes tags that are not closed in order, and all that could fetch something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), name
            if name in ("src", "href") and not (value or "").startswith(("data:image/png;base64,", "#")):
                self.fetched.append(str(value))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        assert tag in VOID, tag

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def make_stage(folder: Path, steps: int = 60, sheets: int = 1) -> None:
    folder.mkdir(parents=True)
    with (folder / "log.jsonl").open("w") as log:
        for step in range(0, steps + 1, 2):
            line: dict[str, float] = {"step": step, "seconds": step, "loss": 1 / (step + 1), "learning_rate": 1e-4}
            line["gradient_norm"] = float("inf") if step == 10 else 1.0
            if step % 20 == 0:
                line |= {f"held_out_loss/t{level}": 0.5 / (step + 1) for level in (50, 350)}
                line |= {f"training_loss/t{level}": 0.4 / (step + 1) for level in (50, 350)}
                line |= {f"clipped_share/{EVIL}": 0.9, f"gradient_norm/{EVIL}": 1.0, f"update_ratio/{EVIL}": 1e-3}
                line |= {"samples/motion": step, "samples_without/motion": 0.0, "clips/motion": 5.0}
            log.write(json.dumps(line) + "\n")
    (folder / "settings.json").write_text(json.dumps({"steps": steps, "base": EVIL, "motion": {"kind": "temporal"}}))
    clip = np.zeros((4, 8, 8, 3), np.uint8)
    for step in range(sheets):
        write_sheet(folder / "sheets", step, [(EVIL, clip)])


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("run") / "work"
    make_stage(folder / "lora", sheets=12)
    make_stage(folder / "motion")
    (folder / "data.txt").write_text(f"16 clips\n{EVIL}\n")
    (folder / "lora" / "sheets" / "step-000099.png").write_bytes(b"no picture")
    return write_report(folder).read_text()


def test_it_is_whole_and_fetches_nothing(text: str):
    page = Page(text)
    assert page.open == []
    assert page.fetched == []
    assert "script" not in page.tags
    assert not re.search(r"https?://|url\(|@import", text.replace("http-equiv", ""))


def test_what_comes_from_outside_is_escaped(text: str):
    assert "<script" not in text
    assert any(EVIL in word for word in Page(text).words)
    assert text.count("&lt;script&gt;") >= 5


def test_it_holds_curves_sheets_settings_data_and_warnings(text: str):
    page = Page(text)
    words = "\n".join(page.words)
    assert page.tags.count("section") == 2
    assert page.tags.count("svg") > 10
    assert page.tags.count("img") == 10  # of 13 sheets some are left out, and one is no picture
    for expected in (
        "step 60 of 60",
        "Held-out loss",
        "motion.kind",
        "16 clips",
        "90% of the steps",
        "step-000099.png",
    ):
        assert expected in words
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text


@pytest.mark.parametrize(
    ("losses", "said", "unsaid"),
    [
        (("held_out_loss", "training_loss"), ("What tells is the held-out loss", "<h3>Held-out loss"), "No clips are"),
        (("training_loss",), ("What tells is the loss of the training clips", "No clips are held out"), "the held-out"),
        ((), ("that is as it should be.",), "What tells"),
    ],
)
def test_it_speaks_of_the_losses_that_there_are(
    tmp_path: Path, losses: tuple[str, ...], said: tuple[str, ...], unsaid: str
):
    lines = [{"step": step, "loss": 1.0} | {f"{name}/t350": 0.5 - step / 100 for name in losses} for step in (0, 20)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = write_report(tmp_path).read_text()
    assert all(words in text for words in said)
    assert unsaid not in text
    assert ("-40.0%" in text) == bool(losses)  # the table


def test_a_stage_alone_and_a_run_without_anything_but_a_log(tmp_path: Path):
    (tmp_path / "log.jsonl").write_text('{"step": 5, "seconds": 1, "loss": NaN}\n{"step": 6, "loss": NaN}\n')
    page = Page(write_report(tmp_path).read_text())
    assert page.open == []
    assert "svg" not in page.tags
    assert any("not finite" in word for word in page.words)


def test_it_is_written_anew_and_nothing_is_left_beside_it(tmp_path: Path):
    make_stage(tmp_path / "lora", steps=2)
    first = write_report(tmp_path).read_text()
    assert write_report(tmp_path).read_text() == first
    assert {path.name for path in tmp_path.iterdir()} == {"lora", "report.html"}


def test_an_observer_keeps_it_up_to_date_and_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    report = ReportFile(tmp_path, every=10)
    trainer = Trainer(nn.Identity(), tmp_path / "lora")
    assert report.observe(trainer, 0) == {}
    assert not (tmp_path / "report.html").exists()
    make_stage(tmp_path / "lora", steps=10)
    report.observe(trainer, 10)
    assert "step 10 of 10" in (tmp_path / "report.html").read_text()
    (tmp_path / "lora" / "settings.json").write_text("{broken")
    with caplog.at_level(logging.WARNING):
        report.observe(trainer, 20)
    assert "step 20: no report" in caplog.text


def test_one_step_is_named_once_and_two_kinds_of_lines_stay_apart():
    lines = [Line("held out", Curve((0,), (0.0,)), 0), Line("training", Curve((0,), (0.5,)), 0, dashed=True)]
    drawn = draw_chart("loss", lines, is_log=False)
    assert re.findall(r'text-anchor="middle">([^<]*)<', drawn) == ["0"]
    assert 'class="dot c0"' in drawn
    assert 'class="ring c0"' in drawn
    assert not re.findall(r">-[0-9]", drawn)  # an axis of what is never below 0 ends there
    assert axis_of([0.0, 0.0]) == Axis(0.0, 1.0)


def test_slow_steps_are_told_in_seconds(tmp_path: Path):
    (tmp_path / "log.jsonl").write_text("".join(f'{{"step": {n}, "seconds": {9 * n}, "loss": 1}}\n' for n in (0, 2, 4)))
    assert "9 seconds a step" in write_report(tmp_path).read_text()
