"""`muybridge data`, in one process."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from rich.console import Console

from muybridge.cli.data import _wanted_of
from muybridge.cli.data_progress import PreparationProgress, advance_text
from muybridge.cli.main import main
from muybridge.data.preparation.report.contents import Wanted
from muybridge.data.preparation.schedule import Advance
from muybridge.types import VideoShape
from muybridge.video import Video


def run(*arguments: object) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(["data", *map(str, arguments)])
    return ended.value.code


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of 64x64 and 1.5 s, and a file that is none."""
    import numpy as np

    folder = tmp_path_factory.mktemp("data") / "raw"
    folder.mkdir()
    for number in range(2):
        noise = np.random.default_rng(number).integers(0, 255, (8, 8, 3), np.uint8).repeat(16, 0).repeat(16, 1)
        Video(np.stack([np.roll(noise, 2 * k, 1)[:64, :64] for k in range(12)]), 8.0).save(folder / f"{number}.mp4")
    (folder / "broken.mp4").write_text("no video")
    return folder


@pytest.fixture(scope="module")
def prepared(raw: Path) -> Path:
    out = raw.parent / "out"
    (raw.parent / "recipe.yaml").write_text("stages: [{probe: {min_side: 0}}]")
    assert run("prepare", raw, out, "--recipe", raw.parent / "recipe.yaml", "--engine", "serial") == 0
    return out


def test_what_is_printed_and_written(raw: Path, prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run("report", prepared) == 0

    said = capsys.readouterr()
    assert f"3 entries of {raw}: 2 ok, 1 unreadable" in said.out
    assert "broken.mp4: unreadable:" in said.out
    assert said.out.splitlines()[-1] == str(prepared / "manifest.jsonl")
    assert {"manifest.jsonl", "dropped.jsonl", "prepared.json", "report.html", "report.json"} <= {
        path.name for path in prepared.iterdir()
    }


def test_numbers_for_machines(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run("report", prepared, "--json") == 0

    found = json.loads(capsys.readouterr().out)
    assert found["inputs"] == {"ok": 2, "unreadable": 1}
    assert [step["rule"] for step in found["steps"]] == ["unreadable"]


def test_clips_are_sorted_by_what_a_model_makes(prepared: Path) -> None:
    shape = VideoShape(16, 64, 64)
    assert _wanted_of("demo/easyanimate") == Wanted(shape, 24.0, 8)
    assert _wanted_of("demo/animatediff") == Wanted(shape, 8.0, 4)
    for wanted, said in (("demo/easyanimate", "at 24 fps"), ("64x48x9", "at 8 fps")):
        assert run("report", prepared, "--for", wanted) == 0
        assert said in (prepared / "report.html").read_text()
    assert json.loads((prepared / "report.json").read_text())["buckets"]["for"] == "64x48x9"


def test_a_folder_whose_name_is_not_in_utf8(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / os.fsdecode(b"caf\xe9")
    (raw.parent / "recipe.yaml").write_text("stages: [{probe: {min_side: 0}}]")
    assert run("prepare", raw, out, "--recipe", raw.parent / "recipe.yaml", "--engine", "serial") == 0
    assert run("report", out, "--for", "64x64x8") == 0
    assert json.loads((out / "report.json").read_text())["buckets"]["clips"] == {"64x64x8": 2}


def test_a_clip_by_the_beginning_of_its_id(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = json.loads((prepared / "manifest.jsonl").read_text().splitlines()[0])
    capsys.readouterr()
    assert run("show", prepared, first["id"][:6]) == 0
    said = capsys.readouterr().out
    assert "  ok\n" in said
    assert "width: 64" in said

    assert run("show", prepared, "zz") == 2
    assert "has no clip whose id begins with 'zz'" in capsys.readouterr().err


def test_what_a_set_is_can_be_said(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "some.jsonl").write_text(f'{{"video_path": "{raw}/0.mp4", "file_name": "{raw}/1.mp4", "caption": "x"}}')
    found = []
    for read_as in ("musubi", "folder"):
        to = tmp_path / f"{read_as}.jsonl"
        assert run("convert", tmp_path / "some.jsonl", to, "--to", "manifest", "--format", read_as) == 0
        found.append(Path(json.loads(to.read_text())["media"]).name)
        capsys.readouterr()
        assert run("probe", tmp_path / "some.jsonl", "--format", read_as, "--workers", 1) == 0
        assert f"{found[-1]}: 64x64" in capsys.readouterr().out
    assert found == ["0.mp4", "1.mp4"]
    recipe = ("--recipe", raw.parent / "recipe.yaml", "--engine", "serial")
    (raw.parent / "recipe.yaml").write_text("stages: [{probe: {min_side: 0}}]")
    assert run("prepare", tmp_path / "some.jsonl", tmp_path / "out", *recipe, "--format", "musubi") == 0
    assert "--format musubi" in (tmp_path / "out" / "report.html").read_text()
    assert run("prepare", raw, tmp_path / "out", *recipe, "--format", "webdatase") == 2
    assert "There are: manifest," in capsys.readouterr().err


@pytest.mark.parametrize("to", ["videofolder", "webdataset", "easyanimate", "manifest"])
def test_other_formats(prepared: Path, tmp_path: Path, to: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("convert", prepared, tmp_path / "out", "--to", to, "--json") == 0

    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["records"], found["from"]) == (2, "manifest")
    assert (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{raw}", "{out}", "--engine", "dream"), "--engine is one of pool, serial, ray; given 'dream'"),
        (("{raw}", "{out}", "--shard", "5/4"), "--shard is which part of how many, as in 1/4; given '5/4'"),
        *(
            (("{raw}", "{out}", flag, value), f"{flag} must be a number above 0; given {value}")
            for flag in ("--timeout", "--worker-memory")
            for value in ("0", "-1", "nan", "inf", "-inf")
        ),
        (("{raw}", "{out}", "--engine", "serial", "--timeout", "9"), "--timeout is for processes that are watched"),
        (("{raw}", "{out}", "--engine", "serial", "--worker-memory", "9"), "--worker-memory is for processes that"),
        (("{raw}", "{out}", "--ray-address", "auto"), "goes with the engine ray"),
        (("{raw}", "{out}", "--recipe", "quik"), "did you mean 'quick'"),
        (("{raw}", "{out}", "--set", "prob.min_side=1", "--set", "probe.min_sides=1"), "did you mean 'min_side'"),
        (("{raw}", "{out}", "--write-clips", "--encode"), "--write-clips copies what --encode encodes anew; give one"),
        (("{raw}/nowhere", "{out}"), "There is no file or folder"),
    ],
)
def test_what_is_wrong_is_said(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert run("prepare", *(each.format(raw=raw, out=tmp_path / "out") for each in arguments)) == 2
    assert message in capsys.readouterr().err
    if "nowhere" in arguments[0]:
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flag", ["--write-clips", "--encode"])
def test_clips_are_written(raw: Path, tmp_path: Path, flag: str) -> None:
    (raw.parent / "recipe.yaml").write_text("stages: [{probe: {min_side: 0}}, write]")
    recipe = ("--recipe", raw.parent / "recipe.yaml", "--engine", "serial")
    assert run("prepare", raw, tmp_path / "out", *recipe, flag) == 0
    assert len(list((tmp_path / "out/clips").glob("*.mp4"))) == 2
    said = json.loads((tmp_path / "out/prepared.json").read_text())["settings"]
    assert said[-1]["write"]["clips"] == {"--write-clips": "copy", "--encode": "encode"}[flag]


def test_nothing_kept_is_no_success(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (raw.parent / "recipe.yaml").write_text("stages: [{probe: {min_side: 65}}]")
    for more in ((), ("--json",)):
        found = run(
            "prepare", raw, tmp_path / "out", "--recipe", raw.parent / "recipe.yaml", "--engine", "serial", *more
        )
        assert found == 2
        assert f"nothing is kept of {raw}: dropped.jsonl and report.html" in capsys.readouterr().err
    assert {"manifest.jsonl", "dropped.jsonl", "prepared.json", "report.html"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }


def test_parts_say_what_is_to_be_done_next(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = ("--recipe", raw.parent / "recipe.yaml", "--engine", "serial")
    (raw.parent / "recipe.yaml").write_text("stages: [{probe: {min_side: 0}}]")
    assert run("prepare", raw, tmp_path / "out", *recipe, "--shard", "1/2") == 0
    assert "the same command without --shard puts them together" in capsys.readouterr().out
    assert not (tmp_path / "out" / "manifest.jsonl").exists()


def test_how_far_it_is_in_words() -> None:
    assert advance_text(Advance(1, 1, 5, 20, 12, 90.0, 0.25), 60.0) == (
        "5 of 20 entries; 12 clips, 1.5 minutes; about 4.5 minutes left, in 3:00"
    )
    assert advance_text(Advance(2, 2, 20, 20, 12, 90.0, 1.0), 60.0) == "2/2: 20 of 20 clips; 12 clips, 1.5 minutes"


def test_a_line_that_stays_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    progress = PreparationProgress(Console(force_terminal=True, width=120))
    progress.on_file(1, 2)
    progress.on_advance(Advance(1, 1, 1, 2, 1, 30.0, 0.5))
    progress.close()

    assert "1 of 2 entries; 1 clips" in capsys.readouterr().out


def test_stages_and_their_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("stages") == 0
    said = capsys.readouterr().out
    assert "quick: probe" in said
    assert "  probe.min_side = 256\n    Pixels of the shorter side." in said
    assert run("stages", "--json") == 0
    assert json.loads(capsys.readouterr().out)["stages"]["probe"]["min_side"]["default"] == 256
