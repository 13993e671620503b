from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest

from muybridge.errors import ConfigError, InputFileError, MuybridgeError, NotFoundError, OutputError, StoreError
from muybridge.jobs import resolving
from muybridge.jobs.catalog import Catalog
from muybridge.jobs.files import About, FileStore
from muybridge.jobs.record import Job, new_job_id

PICTURE = About("picture", ".png", "me", 8, 8)


@pytest.fixture(params=["folder", "memory"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> FileStore:
    url = str(tmp_path / "files") if request.param == "folder" else f"memory://{tmp_path.name}"
    return FileStore.open(url, tmp_path / "cache")


def job(attempts: int = 1) -> Job:
    return Job(new_job_id(), "me", "in_progress", {}, "m", 1, 0.0, 1, attempts=attempts)


def test_an_upload_has_a_name_of_ours(files: FileStore) -> None:
    made = files.put_upload(io.BytesIO(b"pixels"), PICTURE, 5.0)
    assert files.upload(made.id) == files.upload(made.id, "me") == made
    assert files.upload(made.id, "you") is None
    assert (made.size, made.created, made.width) == (6, 5.0, 8)
    assert files.local_upload(made.id).read_bytes() == b"pixels"
    assert files.uploads() == [made]
    files.remove_upload(made.id)
    assert files.uploads() == []
    with pytest.raises(NotFoundError, match="upload it again"):
        files.local_upload(made.id)
    assert files.usage() == 0


@pytest.mark.parametrize("name", ["../secret", "upload_../../x", "", "upload_" + "g" * 32])
def test_names_that_are_none(files: FileStore, name: str) -> None:
    assert files.upload(name) is None
    with pytest.raises(NotFoundError):
        files.local_upload(name)


def test_too_much_and_broken_streams_leave_nothing(files: FileStore) -> None:
    with pytest.raises(OutputError, match="5 bytes"):
        files.put_upload(io.BytesIO(b"pixels"), PICTURE, 0.0, most_bytes=5)

    class Vanishing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise ConnectionResetError("the client is gone")

    with pytest.raises(OutputError):
        files.put_upload(Vanishing(), PICTURE, 0.0)
    assert files.usage() == 0
    with pytest.raises(OutputError, match="ending"):
        files.put_upload(io.BytesIO(), replace(PICTURE, suffix="/../x"), 0.0)


@pytest.mark.parametrize("damaged", [b"", b"{", b"[]", b'{"id": 1}', b"\xff"])
def test_what_is_said_of_an_upload_is_damaged(damaged: bytes, tmp_path: Path) -> None:
    files = FileStore.open(str(tmp_path))
    kept, other = (files.put_upload(io.BytesIO(b"x"), About("picture", ".png", "me"), 1.0) for _ in range(2))
    (tmp_path / "uploads" / f"{other.id}.json").write_bytes(damaged)
    assert files.upload(other.id) is None
    assert files.uploads() == [kept]


def test_results(files: FileStore, tmp_path: Path) -> None:
    own = job()
    made = tmp_path / "made.mp4"
    made.write_bytes(b"frames")
    key = files.put_result(own, "video", made)
    assert not made.exists()
    assert (files.size(key), files.local_result(key).read_bytes()) == (6, b"frames")
    with files.open_result(key) as file:
        file.seek(2)
        assert file.read(2) == b"am"
    assert files.size_of(own.id) == 6
    assert files.jobs_with_files() == {own.id}
    files.keep_only(replace(own, attempts=2))
    with pytest.raises(NotFoundError):
        files.size(key)
    for other in ("../../etc/passwd", "results/x/1/video.mp4", key.replace("/1/", "/../"), "jobs.db"):
        with pytest.raises(NotFoundError):
            files.open_result(other)
    files.remove(own.id)
    assert files.jobs_with_files() == set()
    for refused in (files.remove, files.has_segments, files.size_of, files.preview):
        with pytest.raises(NotFoundError):
            refused("../x")


def test_segments_and_previews(files: FileStore, tmp_path: Path) -> None:
    own = job()
    assert not files.has_segments(own.id)
    files.keep_segments(own.id, tmp_path / "none")
    with pytest.raises(NotFoundError, match="not kept"):
        files.take_segments(own.id, tmp_path / "taken")
    folder = tmp_path / "segments"
    folder.mkdir()
    (folder / "0").write_bytes(b"first")
    files.keep_segments(own.id, folder)
    files.take_segments(own.id, tmp_path / "taken")
    assert (tmp_path / "taken" / "0").read_bytes() == b"first"
    assert files.preview(own.id) is None
    files.work_folder(own)
    files.put_preview(own, b"1")
    files.put_preview(own, b"2")
    assert files.preview(own.id) == b"2"


def test_a_preview_that_was_not_ended_goes_with_its_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, own = FileStore.open(str(tmp_path)), job()
    files.work_folder(own)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            files.put_preview(own, b"half")
    (unfinished,) = tmp_path.rglob("*.part")
    assert unfinished.is_relative_to(files.work_folder(own))
    files.remove_work(own.id)
    assert list(tmp_path.rglob("*.part")) == []
    with pytest.raises(OutputError):  # lost, and the folder is not made anew
        files.put_preview(own, b"late")
    assert not files.jobs_with_files()


def test_the_next_attempt_takes_the_folder_over(files: FileStore) -> None:
    own = job()
    (files.work_folder(own) / "segment").write_text("made")
    second = replace(own, attempts=2)
    assert (files.work_folder(second) / "segment").read_text() == "made"
    assert not (files.work_folder(second).parent / "1").exists()
    files.remove_work(own.id)
    assert list(files.work_folder(second).iterdir()) == []


def test_places_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be kept"):
        FileStore.open("nonsense://x")
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be kept"):
        FileStore.open(str(tmp_path / "file" / "below"))


def test_a_catalog(tmp_path: Path) -> None:
    for name in ("loras/paint/ink.safetensors", "loras/a.ckpt", "loras/a.safetensors", "loras/.hidden.safetensors"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "models" / "big").mkdir(parents=True)
    (tmp_path / "models" / "big" / "model_index.json").touch()
    found = Catalog.scan(tmp_path, {"models": {"hub": "them/it"}})
    shipped = ["demo/animatediff-4-steps", "demo/easyanimate-4-steps"]
    assert found.names("loras") == ["a", "a.safetensors", *shipped, "paint/ink"]
    assert found.place("loras", shipped[0]) == shipped[0]
    assert found.names("models") == ["big", "demo/animatediff", "demo/easyanimate", "hub"]
    assert found.place("models", "hub") == "them/it"
    assert found.place("loras", "paint/ink") == str(tmp_path / "loras/paint/ink.safetensors")
    with pytest.raises(NotFoundError, match="did you mean 'paint/ink'"):
        found.place("loras", "paint/inc")
    with pytest.raises(ConfigError, match="no folder of models"):
        Catalog.scan(tmp_path / "none")
    with pytest.raises(ConfigError, match="no kind of networks"):
        Catalog.scan(None, {"nonsense": {}})


def test_a_catalog_of_a_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "here" / "loras" / "ink.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert Catalog.scan(Path("here")).place("loras", "ink") == str(path.resolve())


def keyframes(value: str) -> dict[str, object]:
    return {"conditions": [{"kind": "keyframes", "pictures": {"0": value}}]}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (keyframes("/etc/passwd"), "conditions.0.pictures: must be the id"),
        (keyframes("https://example.org/a.png"), "must be the id"),
        (keyframes("upload_" + "0" * 32), "there is no file"),
        ({"conditions": [{"kind": "source", "video": "x.mp4"}]}, "must be the id"),
        ({"conditions": [{"kind": "control", "model": "/etc", "frames": "x"}]}, "There is no control network"),
        ({"conditions": [{"kind": "image-prompt", "pictures": ["x.png"]}]}, "must be the id"),
        ({"model": "/models/x"}, "There is no model '/models/x'"),
        ({"model": {"motion_adapter": "hub/it"}}, "There is no motion adapter"),
        ({"model": {"loras": {"../x": 1.0}}}, "There is no LoRA"),
        ({"model": {"vae": "../x"}}, "There is no VAE"),
        ({"model": {"embeddings": {"x": "y"}}}, "There is no embedding"),
        ({"model": {"networks": {"image_prompt": "x"}}}, "There is no image prompt adapter"),
        ({"model": {"device": "cuda:7"}}, "model.device: is not for requests"),
        ({"model": {"memory": "1GB"}}, "model.memory: is not for requests"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_no_path_and_no_url_from_outside(document: dict[str, object], message: str, tmp_path: Path) -> None:
    files = FileStore.open(str(tmp_path))
    with pytest.raises(MuybridgeError, match=message):
        resolving.check({"prompt": "a", **document}, Catalog.scan(None), files, "me")


def test_uploads_of_others_are_not_there(tmp_path: Path) -> None:
    files = FileStore.open(str(tmp_path))
    made = files.put_upload(io.BytesIO(b"x"), PICTURE, 0.0)
    with pytest.raises(NotFoundError, match="there is no file"):
        resolving.check({"prompt": "a", **keyframes(made.id)}, Catalog.scan(None), files, "you")


def test_errors_about_inputs_name_no_path(tmp_path: Path) -> None:
    files = FileStore.open(str(tmp_path))
    made = files.put_upload(io.BytesIO(b"no picture"), PICTURE, 0.0)
    with pytest.raises(InputFileError, match=made.id) as error:
        resolving.check({"prompt": "a", **keyframes(made.id)}, Catalog.scan(None), files, "me")
    assert str(tmp_path) not in str(error.value)
