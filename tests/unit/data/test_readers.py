"""Sets in every format, and what is wrong with them."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from muybridge.data.readers import read_dataset, reader_names
from muybridge.data.record import Record
from muybridge.errors import ConfigError, InputFileError


@pytest.fixture
def folder(clips: Path, tmp_path: Path) -> Path:
    """A copy to put lists into."""
    shutil.copytree(clips, tmp_path / "set")
    return tmp_path / "set"


def write_json(path: Path, *rows: Any) -> Path:
    path.write_text(json.dumps(list(rows)))
    return path


def write_lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def names(found: Any) -> list[tuple[str, str]]:
    return [(Path(record.media).name, record.text) for record in found.records]


def reasons(found: Any) -> list[str]:
    return [str(refusal) for refusal in found.refusals]


def test_easyanimate_json(folder: Path) -> None:
    rows = [
        {"file_path": "a.mp4", "text": "one", "type": "video", "control_file_path": "x.mp4"},
        {"file_path": str(folder / "c.png"), "text": "two"},  # absolute, and of no type
        {"file_path": "clips/z.mp4", "text": "three", "type": "video"},
        {"file_path": "b.mkv", "type": "image"},
        {"text": "nothing"},
        "a.mp4",
    ]
    found = read_dataset(write_json(folder / "train.json", *rows))
    assert found.format == "easyanimate"
    assert [(r.kind, r.text, r.extra) for r in found.records] == [
        ("video", "one", {"control_file_path": str(folder / "x.mp4")}),
        ("image", "two", {}),
    ]
    assert reasons(found) == [
        "row 3: no file clips/z.mp4",
        "row 4: b.mkv is said to be of the kind image, and is of the kind video",
        "row 5: it names no file",
        "row 6: it is no object of JSON",
    ]


def test_easyanimate_csv_of_a_folder_with_its_list(folder: Path) -> None:
    (folder / "train.csv").write_text('file_path,text,type\na.mp4,"red, ""round""\nand slow",video\nb.mkv,x\n')
    found = read_dataset(folder)
    assert found.format == "easyanimate"
    assert names(found) == [("a.mp4", 'red, "round"\nand slow')]
    assert reasons(found) == [
        "row 2: it has 2 cells, and the header 3",
        "b.mkv: no complete row names it",
        "c.png: no complete row names it",
    ]


def test_webvid_flat_and_by_page(folder: Path) -> None:
    (folder / "007").mkdir()
    shutil.copy(folder / "a.mp4", folder / "0012.mp4")
    shutil.copy(folder / "a.mp4", folder / "007/34.mp4")
    text = (
        "videoid,contentUrl,duration,page_dir,name\n0012,u,PT00H00M21S,,flat\n34,u,PT1S,007,paged\n56,u,PT1S,007,gone\n"
    )
    (folder / "results.csv").write_text(text)
    found = read_dataset(folder / "results.csv")
    assert found.format == "webvid"
    assert names(found) == [("0012.mp4", "flat"), ("34.mp4", "paged")]
    assert found.records[0].extra["videoid"] == "0012"  # digits, and no number
    assert "duration" not in found.records[0].extra
    assert reasons(found) == ["row 3: no file 56.mp4"]


def test_metadata_of_huggingface(folder: Path) -> None:
    shutil.move(folder / "b.mkv", folder / "b b.mkv")
    rows = [
        {"file_name": "a.mp4", "text": "one", "score": 3},
        {"file_name": "z.mp4"},
        {"text": "x"},
        {"file_name": "c.png"},
    ]
    write_lines(folder / "metadata.jsonl", *rows)
    found = read_dataset(folder)
    assert found.format == "folder"
    assert names(found) == [("a.mp4", "one"), ("c.png", "")]
    assert found.records[0].extra == {"score": 3}
    assert [refusal.rule for refusal in found.refusals] == ["no-file", "no-name", "not-listed"]
    assert reasons(found)[2] == "b b.mkv: no complete row names it"


def test_metadata_in_subfolders_and_other_names_of_the_column(folder: Path) -> None:
    for name, column in (("train", "video_file_name"), ("test", "file_name")):
        (folder / name).mkdir()
        shutil.copy(folder / "a.mp4", folder / name / "a.mp4")
        (folder / name / "metadata.csv").write_text(f"{column},prompt\na.mp4,{name}\nz.mp4,\n")
    found = read_dataset(folder)
    assert [record.text for record in found.records][:2] == ["test", "train"]
    assert reasons(found) == [f"{name}/metadata.csv row 2: no file z.mp4" for name in ("test", "train")]


def test_a_list_in_a_subfolder_says_nothing_of_files_elsewhere(folder: Path) -> None:
    (folder / "a.txt").write_text("one")
    (folder / "in/deep").mkdir(parents=True)
    for name in ("in/listed.mp4", "in/deep/not.mp4"):
        shutil.copy(folder / "a.mp4", folder / name)
    write_lines(folder / "in/metadata.jsonl", {"file_name": "listed.mp4", "text": "two"})
    found = read_dataset(folder)
    assert names(found) == [("listed.mp4", "two"), ("a.mp4", "one"), ("b.mkv", ""), ("c.png", "")]
    assert reasons(found) == ["in/deep/not.mp4: no complete row names it"]


def test_a_tar_beside_videos_makes_no_webdataset(folder: Path) -> None:
    tar = write_tar(folder / "backup.tar", {"k1.mp4": (folder / "a.mp4").read_bytes()})
    found = read_dataset(folder)
    assert (found.format, len(found.records)) == ("sidecar", 3)
    (said,) = reasons(found)
    assert said.startswith("backup.tar: it is no video or picture")
    assert said.endswith("a set in tar files is to be named by itself")
    assert read_dataset(folder, "webdataset").records[0].name.endswith("/k1.mp4")
    (folder / "alone").mkdir()
    tar.rename(folder / "alone/backup.tar")
    assert read_dataset(folder / "alone").format == "webdataset"
    write_tar(folder / "alone/backup.tar", {"notes.txt": b"no video"})
    with pytest.raises(ConfigError, match="holds no set"):
        read_dataset(folder / "alone")


def test_parquet_without_pyarrow_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (folder / "metadata.parquet").write_bytes(b"PAR1")
    found = read_dataset(folder)
    assert not found.records
    assert found.refusals[0].rule == "pyarrow"
    assert "install it" in found.refusals[0].reason


def test_captions_beside_files(folder: Path) -> None:
    (folder / "a.txt").write_bytes(b"\xef\xbb\xbfa caption\n")  # with a byte order mark
    (folder / "c.txt").write_bytes(b"caf\xe9")
    (folder / "z.txt").write_text("of nothing")
    (folder / "d.pdf").touch()
    (folder / ".hidden.mp4").touch()
    found = read_dataset(folder)
    assert found.format == "sidecar"
    assert names(found) == [("a.mp4", "a caption"), ("b.mkv", "")]
    assert reasons(found) == [
        "c.png: its caption is not in UTF-8",
        "d.pdf: it is no video or picture, by its name, and no caption",
        "z.txt: there is no video or picture of this name",
    ]


def test_links_to_folders_are_followed_once(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere/deep").mkdir(parents=True)
    shutil.move(folder / "b.mkv", tmp_path / "elsewhere/deep/b.mkv")
    (tmp_path / "elsewhere/deep/b.txt").write_text("linked")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "again").symlink_to(tmp_path / "elsewhere/deep")  # the same by another way
    (folder / "round").symlink_to(folder)
    (tmp_path / "elsewhere/back").symlink_to(tmp_path)
    found = read_dataset(folder)
    assert names(found) == [("a.mp4", ""), ("c.png", ""), ("b.mkv", "linked")]
    assert not found.refusals


def test_a_folder_that_cannot_be_read_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def denied(path: str) -> Any:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    (folder / "locked").mkdir()
    monkeypatch.setattr(os, "scandir", denied)
    found = read_dataset(folder)
    assert len(found.records) == 3
    assert reasons(found) == ["locked: the folder cannot be read: Permission denied"]
    for path in ("a.mp4", "b.mkv", "c.png"):
        (folder / path).unlink()
    with pytest.raises(InputFileError, match="that can be seen: locked: the folder cannot be read"):
        read_dataset(folder)


def test_two_lists(folder: Path) -> None:
    (folder / "videos.txt").write_text("a.mp4\n\nb.mkv\n")
    (folder / "prompts.txt").write_text("one\ntwo\n\n")
    found = read_dataset(folder)
    assert found.format == "two-lists"
    assert names(found) == [("a.mp4", "one"), ("b.mkv", "")]
    assert reasons(found) == ["videos.txt line 2: it names no file"]
    (folder / "prompts.txt").write_text("one\ntwo\n")
    with pytest.raises(InputFileError, match=r"3 lines and prompts\.txt 2"):
        read_dataset(folder)


def test_webdataset(folder: Path) -> None:
    clip = (folder / "a.mp4").read_bytes()
    picture = (folder / "c.png").read_bytes()
    members = {
        "k1.mp4": clip,
        "k1.txt": b"one",
        "k1.json": b'{"score": 1, "packed": "foreign"}',
        "in/k2.png": picture,
        "in/k2.json": b'{"caption": "two"}',
        "k3.txt": b"alone",
        "a.1.mp4": clip,
        "a.2.mp4": clip,
        "k4.mp4": clip,
        "k4.json": b"{",
    }
    path = write_tar(folder / "train-000000.tar", members)
    found = read_dataset(folder, "webdataset")
    assert found.format == "webdataset"
    assert [(record.kind, record.text) for record in found.records] == [("video", "one"), ("image", "two")]
    assert found.records[0].extra["score"] == 1
    with found.records[0].source.open("rb") as file:
        assert file.read() == clip
    assert [refusal.rule for refusal in found.refusals] == ["no-file", "name", "row", *["not-listed"] * 3]
    assert "rename them" in found.refusals[1].reason
    whole = path.read_bytes()
    path.write_bytes(whole[: len(clip) + 600])
    assert [refusal.rule for refusal in read_dataset(path).refusals] == ["broken-tail"]
    path.write_bytes(b"\x1f\x8b" + whole)
    assert [refusal.rule for refusal in read_dataset(path).refusals] == ["unreadable"]


def test_musubi(folder: Path) -> None:
    rows = [{"video_path": "a.mp4", "caption": "one"}, {"image_path": "c.png", "caption": "two"}, {"caption": "x"}]
    path = write_lines(folder / "list.jsonl", *rows)
    with path.open("a") as file:
        file.write('\n{"video_path": 3}\n{broken\n{"video_path": "a.mp4", "source_fps": "fast"}\n')
    found = read_dataset(path)
    assert found.format == "musubi"
    assert names(found) == [("a.mp4", "one"), ("c.png", "two")]
    assert [refusal.where for refusal in found.refusals] == ["row 3", "row 5", "row 6", "row 7"]
    assert [refusal.rule for refusal in found.refusals] == ["no-name", "row", "row", "row"]


def test_a_manifest_keeps_ids_and_refuses_bad_rows(folder: Path) -> None:
    good = {"id": "ab", "media": "a.mp4", "kind": "video", "start": 0.25, "end": 0.5}
    rows = [good, {**good, "media": "z.mp4"}, {**good, "kind": "song"}, {**good, "end": "x"}, {**good, "size": 1}]
    rows += [{**good, "text": "half a letter \ud800"}]
    rows += [{**good, "extra": {"packed": extra}} for extra in ("x", {"member": "a", "offset": -1, "size": 2})]
    found = read_dataset(write_lines(folder / "manifest.jsonl", *rows))
    assert found.format == "manifest"
    assert [(record.id, record.start, record.end) for record in found.records] == [("ab", 0.25, 0.5)]
    assert [refusal.where for refusal in found.refusals] == [f"row {number}" for number in range(2, 9)]


@pytest.mark.parametrize(
    "name", ["smile \U0001f600.mp4", 'say "so".mp4', "two\nlines.mp4", os.fsdecode(b"caf\xe9.mp4")]
)
def test_names_of_any_kind(folder: Path, name: str) -> None:
    shutil.copy(folder / "a.mp4", folder / name)
    by_list = read_dataset(write_lines(folder / "list.jsonl", {"video_path": name, "caption": "x"}))
    (folder / "list.jsonl").unlink()
    by_folder = next(record for record in read_dataset(folder).records if Path(record.media).name == name)
    (listed,) = by_list.records
    assert Path(listed.media).read_bytes() == (folder / "a.mp4").read_bytes()
    assert listed.id == by_folder.id == read_dataset(folder).records[0].id
    assert listed.name.isprintable()
    assert json.loads(json.dumps(listed.to_json())) == listed.to_json()


def test_ids_are_of_content_and_part(folder: Path) -> None:
    shutil.copy(folder / "a.mp4", folder / "again.mp4")
    found = read_dataset(folder)
    by_name = {Path(record.media).name: record.id for record in found.records}
    assert by_name["a.mp4"] == by_name["again.mp4"] != by_name["b.mkv"]
    assert all(len(record.id) == 16 for record in found.records)


def test_files_relative_to_a_root(folder: Path, tmp_path: Path) -> None:
    path = write_json(tmp_path / "list.json", {"file_path": "a.mp4", "text": ""})
    assert reasons(read_dataset(path)) == ["row 1: no file a.mp4"]
    assert names(read_dataset(path, root=folder)) == [("a.mp4", "")]


def test_what_cannot_be_read_as_a_set(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="There is no file or folder"):
        read_dataset(tmp_path / "gone")
    with pytest.raises(ConfigError, match="Known are manifest"):
        read_dataset(tmp_path / "set/c.png")
    with pytest.raises(ConfigError, match="no format of sets 'x'"):
        read_dataset(folder, "x")
    with pytest.raises(ConfigError, match="no set of the format webvid, which needs a CSV file"):
        read_dataset(folder, "webvid")
    for name in ("one.json", "two.json"):
        write_json(folder / name, {"file_path": "a.mp4"})
    with pytest.raises(ConfigError, match=r"several files with file_path: 'one.json', 'two.json'"):
        read_dataset(folder)
    (folder / "one.json").write_text('[{"file_path": "a.mp4"')
    with pytest.raises(InputFileError, match="is not JSON"):
        read_dataset(folder / "one.json")
    assert len(reader_names()) == 8


@pytest.mark.parametrize("identity", ["../up", "/etc/x", "a.b", "a b", "x" * 65, "é"])
def test_an_id_that_is_no_name_is_refused(identity: str) -> None:
    with pytest.raises(InputFileError, match="id must be") as caught:
        Record.from_json({"id": identity, "media": "a.mp4", "kind": "video"})
    assert caught.value.fault == "row"


@pytest.mark.parametrize(
    "crop",
    ["left", 1, [1, 2], [0, 0, 8, 8, 16, 16.0], [0, 0, 0, 8, 16, 16], [-1, 0, 8, 8, 16, 16], [9, 0, 8, 8, 16, 16]],
)
def test_a_crop_that_is_no_part_is_refused(crop: object) -> None:
    values = {"id": "ab", "media": "a.mp4", "kind": "video"}
    with pytest.raises(InputFileError, match=r"extra\.crop must be") as caught:
        Record.from_json({**values, "extra": {"crop": crop}})
    assert caught.value.fault == "row"
    assert Record.from_json({**values, "extra": {"crop": [8, 0, 8, 8, 16, 16]}}).extra["crop"][0] == 8


def test_a_column_named_crop_is_not_taken_for_a_part(folder: Path) -> None:
    write_lines(folder / "metadata.jsonl", {"file_name": "a.mp4", "crop": "centre", "score": 1})
    assert read_dataset(folder).records[0].extra == {"score": 1}
