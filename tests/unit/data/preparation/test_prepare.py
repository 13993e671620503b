"""Preparing a set: what is run, what is kept from before, and what becomes of each entry."""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.preparation_stages import (
    Double,
    Largest,
    OfKept,
    Read,
    ReadSettings,
    Unloadable,
    recipe,
    runs,
    write_files,
)
from tests.unit.data.conftest import ClipMaker

from muybridge.data.preparation.account import Account
from muybridge.data.preparation.engine.journal import Journal
from muybridge.data.preparation.inputs import Part
from muybridge.data.preparation.prepare import PrepareSettings, Watching, prepare, probe_set
from muybridge.data.preparation.recipe import Recipe
from muybridge.data.preparation.schedule import Advance
from muybridge.data.readers import read_dataset
from muybridge.data.record import Record
from muybridge.errors import ConfigError, OutputError, PreparationError
from muybridge.files.folder_lock import locked_folder

SMALL = {"min_side": 0}
SERIAL = PrepareSettings(engine="serial")
ALL = recipe(Read(), Double(), Largest(), OfKept())


def run(raw: Path, out: Path, asked: Recipe = ALL, settings: PrepareSettings = SERIAL) -> Account:
    account = prepare(raw, out, asked, settings)
    assert account is not None
    return account


def numbers(account: Account) -> list[int]:
    return sorted(record.extra["number"] for record in account.kept)


def test_every_entry_ends_as_one_thing(tmp_path: Path) -> None:
    raw = write_files(tmp_path / "raw", "1", "11", "25", "raise", "refuse", "parts 3", "parts 0", "11")
    (raw / "notes.doc").write_text("no video")

    account = run(raw, tmp_path / "out")

    assert numbers(account) == [0, 2, 11, 25]
    assert account.inputs == {"ok": 3, "dropped": 3, "unreadable": 2, "failed": 1}
    assert sum(account.inputs.values()) == 9
    rules = {(o.stage, o.rule, o.status) for o in account.outcomes if o.status != "ok"}
    assert rules == {
        (None, "same-file", "dropped"),
        (None, "unknown-kind", "unreadable"),
        ("read", "error", "failed"),
        ("read", "ugly", "unreadable"),
        ("read", "read", "dropped"),
        ("largest", "not-largest", "dropped"),
    }
    assert all(record.extra["seen"] and "doubled" in record.extra for record in account.kept)
    assert sum(step.clips for step in account.steps()) + len(account.kept) == len(account.outcomes)


def test_a_file_with_two_captions_is_not_like_itself(tmp_path: Path, make_clip: ClipMaker) -> None:
    make_clip(tmp_path / "a.mp4", noise=100)
    rows = [{"video_path": "a.mp4", "caption": text} for text in ("one", "two")]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))

    account = run(tmp_path / "list.jsonl", tmp_path / "out", Recipe.of({"stages": [{"probe": SMALL}, "duplicates"]}))

    assert sorted(record.text for record in account.kept) == ["one", "two"]


def test_a_file_that_changed_behind_a_manifest_is_looked_at_anew(tmp_path: Path) -> None:
    raw, out = write_files(tmp_path / "raw", "1"), tmp_path / "out"
    row = {"id": "ab", "media": "000.mp4", "kind": "video"}
    (raw / "manifest.jsonl").write_text(json.dumps(row))
    assert numbers(run(raw, out)) == [1]
    write_files(raw, "22")
    assert numbers(run(raw, out)) == [22]


def test_what_is_written_is_the_account(tmp_path: Path) -> None:
    raw = write_files(tmp_path / "raw", "1", "11", "25", "raise", "refuse", "write")
    account = run(raw, tmp_path / "out")

    assert Account.read(tmp_path / "out") == account
    ids = [json.loads(line)["id"] for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    assert ids == sorted(ids)
    read = read_dataset(tmp_path / "out")
    assert read.format == "manifest"
    assert {record.media for record in read.records} == {record.media for record in account.kept}
    assert any(Path(record.media).parent == tmp_path / "out" / "clips" for record in read.records)


def test_a_folder_may_be_moved(tmp_path: Path) -> None:
    raw = write_files(tmp_path / "raw", "write")
    run(raw, tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "moved")
    runs(tmp_path / "moved")

    account = run(raw, tmp_path / "moved")

    assert runs(tmp_path / "moved") == []
    assert account.kept[0].media.startswith(str(tmp_path / "moved"))
    assert Path(account.kept[0].media).exists()


def test_nothing_is_done_twice(tmp_path: Path) -> None:
    raw, out = write_files(tmp_path / "raw", "1", "2", "3", "refuse"), tmp_path / "out"
    first = run(raw, out)
    assert sorted(runs(out)) == sorted(["read"] * 4 + ["double", "largest", "of-kept"] * 3)

    assert run(raw, out) == first
    assert runs(out) == []
    write_files(raw / "more", "4")
    assert numbers(run(raw, out)) == [1, 2, 3, 4]
    assert runs(out) == ["read", "double", "largest", "of-kept"]
    (raw / "000.mp4").rename(raw / "renamed.mp4")
    assert numbers(run(raw, out)) == [1, 2, 3, 4]
    assert runs(out) == []


def test_another_threshold_runs_no_stage(tmp_path: Path) -> None:
    raw, out = write_files(tmp_path / "raw", "1", "2", "3"), tmp_path / "out"
    run(raw, out)
    runs(out)

    account = run(raw, out, recipe(Read(ReadSettings(least=2)), Double(), Largest(), OfKept()))

    assert numbers(account) == [2, 3]
    assert runs(out) == []
    assert [(step.rule, step.clips) for step in account.steps()] == [("few", 1)]
    assert account.bounds[0].rule.least == 2


def test_another_setting_runs_its_stage_and_what_uses_it(tmp_path: Path) -> None:
    raw, out = write_files(tmp_path / "raw", "1", "2"), tmp_path / "out"
    run(raw, out)
    runs(out)

    account = run(raw, out, recipe(Read(ReadSettings(factor=2)), Double(), Largest(), OfKept()))

    assert [record.extra["doubled"] for record in account.kept] in ([4, 8], [8, 4])
    assert "of-kept" not in runs(out)


def test_what_is_dear_is_run_on_what_is_kept(tmp_path: Path) -> None:
    raw, out = write_files(tmp_path / "raw", "1", "2", "3"), tmp_path / "out"

    run(raw, out, recipe(Read(ReadSettings(least=3)), OfKept()))

    assert runs(out).count("of-kept") == 1


def test_failures_are_tried_again_and_deadly_ones_if_asked(tmp_path: Path) -> None:
    raw, out = write_files(tmp_path / "raw", "raise", "refuse", "bomb"), tmp_path / "out"
    account = run(raw, out)
    assert account.inputs == {"crashed": 1, "failed": 1, "unreadable": 1}
    runs(out)

    assert run(raw, out).inputs == account.inputs
    assert runs(out) == ["read"]
    assert run(raw, out, settings=PrepareSettings(engine="serial", retry=True)).inputs == account.inputs
    assert runs(out) == ["read"] * 2


def test_a_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    raw, out = write_files(tmp_path / "raw", "1", "touch"), tmp_path / "out"

    account = run(raw, out)

    assert account.inputs == {"ok": 1, "failed": 1}
    assert [outcome.rule for outcome in account.outcomes if outcome.status == "failed"] == ["changed"]
    assert numbers(run(raw, out)) == [1, 3]


def test_parts_put_together_are_the_whole(tmp_path: Path) -> None:
    raw = write_files(tmp_path / "raw", *map(str, range(12)), "parts 2", "refuse", "12")
    run(raw, tmp_path / "whole")
    out = tmp_path / "out"

    done = [prepare(raw, out, ALL, PrepareSettings(engine="serial", part=Part(k, 3))) for k in (1, 2, 3)]
    assert done == [None] * 3
    # A part knows nothing of the others, and leaves out no clip for their sake.
    assert len(runs(out)) > 0
    assert not (out / "manifest.jsonl").exists()
    run(raw, out)

    assert runs(out) == []
    for name in ("manifest.jsonl", "dropped.jsonl"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_torn_line_is_cut_off_and_done_again(tmp_path: Path) -> None:
    raw, out = write_files(tmp_path / "raw", "1", "2"), tmp_path / "out"
    run(raw, out)
    expected = (out / "manifest.jsonl").read_bytes()
    journal = out / "journal" / "results.jsonl"
    content = journal.read_bytes()
    runs(out)

    journal.write_bytes(content[:-20])
    run(raw, out)

    assert runs(out) == ["of-kept"]
    assert (out / "manifest.jsonl").read_bytes() == expected
    assert sorted(journal.read_bytes().splitlines()) == sorted(content.splitlines())


def test_damaged_lines_of_a_journal_count_as_not_there(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_bytes(b'\0\0\0\0\n{"key": 3}\n[]\n{"half')

    with Journal(tmp_path) as journal:
        assert journal.get("00") is None
    assert (tmp_path / "results.jsonl").read_bytes().endswith(b"[]\n")


def test_two_programs_do_not_share_a_folder(tmp_path: Path) -> None:
    raw, out = write_files(tmp_path / "raw", "1"), tmp_path / "out"
    out.mkdir()

    with locked_folder(out, "prepares clips"), pytest.raises(OutputError, match="Another program prepares clips"):
        run(raw, out)
    part = PrepareSettings(engine="serial", part=Part(1, 2))
    with locked_folder(out, "prepares clips"), pytest.raises(OutputError, match="Another program prepares clips"):
        prepare(raw, out, ALL, part)
    prepare(raw, out, ALL, part)
    with (
        locked_folder(out / "journal" / "parts" / "1-of-2", "prepares clips"),
        pytest.raises(OutputError, match="Another program prepares clips"),
    ):
        run(raw, out)


@pytest.fixture
def short_of_space() -> Iterator[Callable[[int], None]]:
    """No file may grow beyond so many bytes, from when it is called."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda most: resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_lists_as_they_were(tmp_path: Path, short_of_space: Callable[[int], None]) -> None:
    raw, out = write_files(tmp_path / "raw", "1", "2", "3"), tmp_path / "out"
    run(raw, out)
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    write_files(raw / "more", *map(str, range(10, 40)))

    length = (out / "journal" / "results.jsonl").stat().st_size
    for most in (length + 1000, length + 4000):
        short_of_space(most)
        with pytest.raises(OutputError, match="Free some space"):
            run(raw, out)
        assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before
    short_of_space(resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    assert len(run(raw, out).kept) == 10


class Interrupts(Read):
    """Is interrupted at the third file, as by Ctrl-C."""

    def run(self, record: Record, work: Path) -> list[Record]:
        if record.media.endswith("002.mp4") and not (work / "interrupted").exists():
            (work / "interrupted").touch()
            raise KeyboardInterrupt
        return super().run(record, work)


def test_an_interruption_keeps_what_is_done(tmp_path: Path) -> None:
    raw, out = write_files(tmp_path / "raw", "1", "2", "3", "4"), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run(raw, out, recipe(Interrupts()))
    assert runs(out) == ["read"] * 2

    assert numbers(run(raw, out, recipe(Interrupts()))) == [1, 2, 3, 4]
    assert runs(out) == ["read"] * 2


def test_the_set_does_not_lie_in_its_source(tmp_path: Path) -> None:
    raw = write_files(tmp_path / "raw", "1")

    with pytest.raises(ConfigError, match="lies in"):
        run(raw, raw / "out")
    assert not (raw / "out").exists()
    (raw / "link").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match=r"out lies in .*raw, by a link to"):
        run(raw, tmp_path / "out")


def test_a_stage_that_cannot_begin_stops_all(tmp_path: Path) -> None:
    raw = write_files(tmp_path / "raw", "1")

    with pytest.raises(PreparationError, match=r"The stage unloadable cannot begin: its model is not there\."):
        run(raw, tmp_path / "out", recipe(Unloadable()))


def test_names_that_are_no_text(tmp_path: Path) -> None:
    raw = write_files(tmp_path / "raw")
    for name in (b"caf\xe9.mp4", b'line\nbreak "quoted".mp4', "😀.mp4".encode()):
        Path(raw, os.fsdecode(name)).write_bytes(name.hex().encode())

    account = run(raw, tmp_path / "out", recipe(Read()))

    assert account.inputs == {"ok": 3}
    assert {Path(record.media).parent for record in Account.read(tmp_path / "out").kept} == {raw}
    assert str(account).isprintable() or "\n" in str(account)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    raw = write_files(tmp_path / "raw", "1")
    os.mkfifo(raw / "pipe.mp4")

    assert run(raw, tmp_path / "out").inputs == {"ok": 1, "unreadable": 1}


def test_files_that_did_not_change_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, out = write_files(tmp_path / "raw", "1", "2"), tmp_path / "out"
    for path in raw.iterdir():
        os.utime(path, (time.time() - 100, time.time() - 100))
    first = run(raw, out)
    os.utime(raw / "001.mp4", (time.time() - 50, time.time() - 50))

    read: list[object] = []
    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *a, **k: read.append(path.name) or opened(path, *a, **k))
    assert run(raw, out) == first
    assert read.count("000.mp4") == 0
    assert read.count("001.mp4") == 1


def test_files_that_are_only_looked_at(clips: Path) -> None:
    found = {Path(o.record_json["media"]).name: o for o in probe_set(clips, SERIAL)}
    assert {name: outcome.status for name, outcome in found.items()} == {"a.mp4": "ok", "b.mkv": "ok", "c.png": "ok"}
    assert found["a.mp4"].record_json["frames"] == 24

    only = probe_set(clips / "b.mkv", SERIAL)
    assert [outcome.record_json["width"] for outcome in only] == [48]


def test_how_far_it_is(tmp_path: Path) -> None:
    raw = write_files(tmp_path / "raw", "1", "2", "parts 2", "refuse")
    told: list[Advance] = []
    files: list[tuple[int, int]] = []

    prepare(raw, tmp_path / "out", ALL, SERIAL, Watching(lambda *n: files.append(n), told.append))

    assert files[-1] == (4, 4)
    assert [(a.leg, a.legs, a.done, a.total) for a in told if a.share == 1.0] == [(1, 2, 4, 4), (2, 2, 4, 4)]
    assert [a.share for a in told if a.leg == 1] == sorted(a.share for a in told if a.leg == 1)


@pytest.mark.parametrize(("changes", "rule"), [((), "black"), (("black.max_share=1",), None), (("black=off",), None)])
def test_what_is_black_from_end_to_end_is_dropped_as_such(
    tmp_path: Path, make_clip: ClipMaker, changes: tuple[str, ...], rule: str | None
) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    black = make_clip(raw / "black.mp4", 60, (64, 64), black=True)
    recipe = Recipe.load("quick", ["probe.min_side=0", "motion=off", "static=off", *changes])

    (outcome,) = run(raw, tmp_path / "out", recipe).outcomes

    assert outcome.rule == rule
    assert outcome.record_json["media"] == str(black)
    assert outcome.record_json["extra"].get("empty") == (None if changes == ("black=off",) else 1.0)


def test_black_is_named_before_other_reasons(tmp_path: Path, make_clip: ClipMaker) -> None:
    (tmp_path / "raw").mkdir()
    make_clip(tmp_path / "raw/black.mp4", 60, (64, 64), black=True)
    (outcome,) = run(tmp_path / "raw", tmp_path / "out", Recipe.load("quick", ["probe.min_side=0"])).outcomes
    assert (outcome.rule, outcome.verdicts[0].rule) == ("black", "black")
