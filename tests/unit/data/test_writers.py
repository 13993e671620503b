"""What is written is read again as it was."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from muybridge.data.probe import probe_all
from muybridge.data.readers import read_dataset
from muybridge.data.record import Record
from muybridge.data.writers import WRITERS, write_easyanimate, write_folder, write_manifest, write_webdataset
from muybridge.errors import ConfigError, InputFileError, OutputError


@pytest.fixture
def records(clips: Path, tmp_path: Path) -> list[Record]:
    """Three probed records with captions, in a folder beside where lists go; one has a name that is not UTF-8."""
    shutil.copytree(clips, tmp_path / "set")
    (tmp_path / "set/b.mkv").rename(tmp_path / "set" / os.fsdecode(b"\xe9.mkv"))
    kept, _ = probe_all(read_dataset(tmp_path / "set").records)
    captions = ('a "quoted", text', "two\nlines \u2028 \U0001f600", "")
    return [
        replace(record, text=text, extra={**record.extra, "score": 2})
        for record, text in zip(kept, captions, strict=True)
    ]


def texts_by_id(records: list[Record] | tuple[Record, ...]) -> dict[str, tuple[str, str]]:
    return {record.id: (record.text, record.kind) for record in records}


@pytest.mark.parametrize("inside", [True, False])
def test_a_manifest_gives_the_same_records(records: list[Record], tmp_path: Path, inside: bool) -> None:
    part = replace(records[0], id="part", start=0.25, end=0.5)
    above = tmp_path / "set" if inside else tmp_path / "elsewhere"
    above.mkdir(exist_ok=True)
    write_manifest([*records, part], above / "manifest.jsonl")
    written = (above / "manifest.jsonl").read_bytes()
    found = read_dataset(above)
    assert sorted(found.records, key=lambda r: r.id) == sorted([*records, part], key=lambda r: r.id)
    assert (b'"a.mp4"' in written) is inside
    write_manifest(found.records[::-1], above / "manifest.jsonl")
    assert (above / "manifest.jsonl").read_bytes() == written


def test_easyanimate(records: list[Record], tmp_path: Path) -> None:
    write_easyanimate(records, tmp_path / "train.json")
    rows = json.loads((tmp_path / "train.json").read_text())
    first = {"file_path": "set/a.mp4", "text": records[0].text, "type": "video", "width": 32, "height": 32, "score": 2}
    first |= {"fps": 24.0, "frames": 24}
    assert rows[0] == {**first, "duration": 1.0}
    found = read_dataset(tmp_path / "train.json")
    assert found.format == "easyanimate"
    assert texts_by_id(found.records) == texts_by_id(records)


@pytest.mark.usefixtures("records")
def test_the_control_of_a_clip_is_found_from_the_new_list(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    row = {"file_path": "a.mp4", "text": "x", "type": "video", "control_file_path": "poses/a.mp4", "control_path": ""}
    (tmp_path / "set/list.json").write_text(json.dumps([row]))
    read = read_dataset(tmp_path / "set/list.json").records
    for target, expected in (("new/list.json", str(tmp_path / "set/poses/a.mp4")), ("list.json", "set/poses/a.mp4")):
        write_easyanimate(read, tmp_path / target)
        (written,) = json.loads((tmp_path / target).read_text())
        assert (written["control_file_path"], written["control_path"]) == (expected, "")
        assert read_dataset(tmp_path / target).records == read


def test_a_folder_with_its_files_copied(records: list[Record], tmp_path: Path) -> None:
    for _ in range(2):  # the second time everything is there
        write_folder(records, tmp_path / "out")
        found = read_dataset(tmp_path / "out")
        assert found.format == "folder"
        assert not found.refusals
        assert texts_by_id(found.records) == texts_by_id(records)
    write_folder(records, tmp_path / "set")
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == sorted(
        ["a.mp4", "c.png", "metadata.jsonl", os.fsdecode(b"\xe9.mkv")]
    )
    assert texts_by_id(read_dataset(tmp_path / "set").records) == texts_by_id(records)


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_what_was_measured_comes_back(records: list[Record], tmp_path: Path, name: str) -> None:
    write_manifest(records, tmp_path / "manifest.jsonl")
    before = read_dataset(tmp_path / "manifest.jsonl").records
    WRITERS[name](before, tmp_path / f"out.{'jsonl' if name == 'manifest' else 'json'}")
    written = read_dataset(next(tmp_path.glob("out*"))).records
    write_manifest(written, tmp_path / "again.jsonl")
    again = read_dataset(tmp_path / "again.jsonl").records

    def measured(record: Record) -> dict[str, object]:
        elsewhere = {name: value for name, value in record.extra.items() if name != "packed"}
        return {**record.to_json(), "media": "", "extra": elsewhere}

    assert [measured(record) for record in again] == [measured(record) for record in before]
    assert {record.duration_s for record in again} == {1.0, 0.499, None}


def test_measures_of_others_that_are_none_stay_what_they_are(clips: Path, tmp_path: Path) -> None:
    said = {"width": "64", "height": True, "fps": 0, "frames": [1, 2], "duration": "PT1S"}
    row = {"video_path": str(clips / "a.mp4"), "caption": "x", **said}
    (tmp_path / "list.jsonl").write_text(json.dumps(row))
    (found,) = read_dataset(tmp_path / "list.jsonl").records
    assert (found.width, found.height, found.fps, found.frames, found.duration_s) == (None,) * 5
    assert found.extra == {name: value for name, value in said.items() if name != "duration"}


def test_webdataset_in_shards(records: list[Record], tmp_path: Path) -> None:
    write_webdataset([*records, records[0]], tmp_path / "shards", shard_bytes=2500)
    names = sorted(path.name for path in (tmp_path / "shards").iterdir())
    assert names == [f"train-{number:06}.tar" for number in range(len(names))]
    assert len(names) > 1
    found = read_dataset(tmp_path / "shards")
    assert not found.refusals
    assert texts_by_id(found.records) == texts_by_id(records)
    assert len(found.records) == 4
    assert found.records[0].extra["score"] == 2
    with tarfile.open(tmp_path / "shards" / names[0]) as archive:
        assert all(member.name.partition("/")[0].count(".") == 1 for member in archive)
    # A folder of them again, and a probe of what lies inside.
    kept, refused = probe_all(found.records)
    assert not refused
    write_folder(kept, tmp_path / "out")
    assert texts_by_id(read_dataset(tmp_path / "out").records) == texts_by_id(records)
    with pytest.raises(OutputError, match="is there already"):
        write_webdataset(records, tmp_path / "shards")


def test_parts_and_what_lies_inside_others_are_refused(records: list[Record], tmp_path: Path) -> None:
    cropped = replace(records[0], extra={"crop": [0, 0, 16, 16, 32, 32]})
    with pytest.raises(ConfigError, match=r"these are parts: .*a.mp4"):
        write_easyanimate([cropped], tmp_path / "out.json")
    part = [records[0], replace(records[0], start=0.5), replace(records[1], end=0.1)]
    writers: list[Callable[..., None]] = [write_easyanimate, write_folder, write_webdataset]
    for write in writers:
        with pytest.raises(ConfigError, match=r"these are parts: .*a.mp4 \[0.5- s\] and 1 more"):
            write(part, tmp_path / "out")
    write_webdataset(records, tmp_path / "shards")
    packed = read_dataset(tmp_path / "shards").records
    with pytest.raises(ConfigError, match="cannot name files that lie inside others"):
        write_easyanimate(packed, tmp_path / "out.json")
    write_manifest(packed, tmp_path / "shards/manifest.jsonl")
    again = read_dataset(tmp_path / "shards/manifest.jsonl")
    assert texts_by_id(again.records) == texts_by_id(records)


def test_nothing_is_left_of_what_fails(records: list[Record], tmp_path: Path) -> None:
    gone = replace(records[0], media=str(tmp_path / "gone.mp4"))
    for write in (write_folder, write_webdataset):
        with pytest.raises(InputFileError, match=r"gone\.mp4 cannot be read"):
            write([records[1], gone], tmp_path / "out" / write.__name__)
    assert not list((tmp_path / "out").rglob("*.tar"))
    assert not list((tmp_path / "out").rglob("metadata.jsonl"))
    with pytest.raises(OutputError, match=r"there is no folder|could not be written"):
        write_manifest(records, tmp_path / "none" / "manifest.jsonl")
