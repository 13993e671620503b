"""`muybridge train --watch`, `--compare` and `--report`."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import typer
from rich.console import Console

from muybridge.cli import training_looks
from muybridge.cli.train import train
from muybridge.errors import ConfigError

app = typer.Typer()
app.command()(train)


def run(*arguments: object) -> None:
    app([str(each) for each in arguments], standalone_mode=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, loss in (("a", 1.0), ("b", 0.5)):
        stage = tmp_path / name / "lora"
        stage.mkdir(parents=True)
        lines = [{"step": s, "seconds": s, "loss": loss, "held_out_loss/t350": loss} for s in (0, 10, 20)]
        (stage / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (stage / "settings.json").write_text(json.dumps({"steps": 20, "base": f"[red]{name}"}))
    return tmp_path


def test_compare_prints_what_differs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("--compare", folder / "a", folder / "b")
    text = capsys.readouterr().out
    for expected in ("lora:", "base", "[red]b", "loss at step 20", "-50.0%", "held_out_loss/t350"):
        assert expected in text


def test_report_says_where_it_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("--report", folder / "a")
    assert capsys.readouterr().out == f"{folder / 'a' / 'report.html'}\n"


def test_watch_shows_it_once_where_there_is_no_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("--watch", folder / "a")
    assert "step 20/20" in capsys.readouterr().out


def test_watch_goes_on_until_it_is_interrupted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    def sleep(_: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(training_looks.time, "sleep", sleep)
    text = io.StringIO()
    training_looks.watch(folder / "a", Console(file=text, force_terminal=True, color_system=None, width=80))
    assert text.getvalue().count("step 20/20") >= 3


@pytest.mark.parametrize("ready", ["run.yaml", "lora/settings.json"])
def test_watch_waits_for_a_run_that_is_starting(
    folder: Path, ready: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = folder / "c"
    (started / ready).parent.mkdir(parents=True)
    (started / ready).write_text("{}")
    run("--watch", started)
    assert "is starting" in capsys.readouterr().out

    looks = 0

    def sleep(_: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            (folder / "a" / "lora").rename(started / "begun")
        if looks == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(training_looks.time, "sleep", sleep)
    text = io.StringIO()
    training_looks.watch(started, Console(file=text, force_terminal=True, color_system=None, width=300))
    assert "is starting" in text.getvalue()
    assert "step 20/20" in text.getvalue()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "run_file"),
        (("run.yaml", "--watch", "a"), "--watch looks at a run that there is; leave out a run file"),
        (("--report", "a", "--watch", "b", "--set", "x=1"), "leave out --report, --set"),
        (("--report", "nowhere"), "no training run in nowhere"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        run(*arguments)
