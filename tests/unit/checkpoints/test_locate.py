"""From the name of a model to its folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import errors
from huggingface_hub.utils import filter_repo_objects

from muybridge.checkpoints import SHIPPED_MODELS, locate_model, locate_weights
from muybridge.checkpoints.lora import LoraChange, read_lora, write_lora
from muybridge.checkpoints.motion_export import write_motion
from muybridge.checkpoints.motion_files import read_motion
from muybridge.errors import CheckpointError
from muybridge.motion import MotionAdapter, MotionSite


@pytest.mark.parametrize("name", SHIPPED_MODELS)
def test_shipped_models_are_inside_the_package(name: str) -> None:
    package = Path(str(files("muybridge")))
    if not (package / SHIPPED_MODELS[name]).is_dir():
        pytest.skip(f"this checkout has no weights for {name}")

    folder = locate_model(name)

    assert folder.is_relative_to(package)
    assert (folder / "model_index.json").is_file()


def test_a_folder_is_itself(tmp_path: Path) -> None:
    assert locate_model(tmp_path) == tmp_path
    assert locate_model(str(tmp_path)) == tmp_path


def test_a_relative_folder_comes_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "somebody" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    assert locate_model("somebody/model").resolve() == tmp_path / "somebody" / "model"


def test_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.touch()

    with pytest.raises(CheckpointError, match=r"model.safetensors is a file; a model is a folder with a model_index"):
        locate_model(file)


@pytest.mark.parametrize("name", ["demo", "/no/such/folder", "two words", "a/b/c"])
def test_unknown_names_list_the_shipped_models(name: str) -> None:
    with pytest.raises(CheckpointError, match=f"There is no model '{name}'.*shipped models .demo/animatediff"):
        locate_model(name)


def test_a_hub_id_that_cannot_be_reached() -> None:
    with pytest.raises(CheckpointError, match=r"no such folder, not one of the shipped.*and the hub did not give it"):
        locate_model("nobody/no-such-model")


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, Path], None]:
    """A cache as huggingface_hub lays it out; the maker puts a file of this machine there: repository, name, file."""
    cache, commit = tmp_path / "hub", "0123456789abcdef0123456789abcdef01234567"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))

    def put(repository: str, name: str, file: Path) -> None:
        folder = cache / f"models--{repository.replace('/', '--')}"
        content = file.read_bytes()
        blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
        link = folder / "snapshots" / commit / name
        for each in (blob, link, folder / "refs" / "main"):
            each.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link.symlink_to(os.path.relpath(blob, link.parent))
        (folder / "refs" / "main").write_text(commit)

    return put


def test_weights_of_this_machine_are_never_looked_for_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "somebody" / "motion").mkdir(parents=True)
    (tmp_path / "somebody" / "motion" / "mm.ckpt").touch()
    monkeypatch.chdir(tmp_path)
    for name in ("somebody/motion", "somebody/motion/mm.ckpt", tmp_path / "somebody" / "motion"):
        assert locate_weights(name) == Path(name)


@pytest.mark.parametrize("name", ["mm.ckpt", "loras/mm.safetensors", "/a/b/c.ckpt", "./a/b", "../a/b/c.ckpt", "~/a/b"])
def test_what_can_only_be_a_path_is_one(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert locate_weights(name) == Path(name)


@pytest.mark.usefixtures("hub_cache")
def test_what_is_about_this_machine_is_not_asked_of_a_stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing file in a folder that is here, and a `Path`, which has lost the dot it began with."""
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("models/Motion_Module/v3.ckpt", "models/motion", Path("./nobody/x/v3.ckpt"), Path("nobody/x")):
        assert locate_weights(name) == Path(name)
    with pytest.raises(CheckpointError, match="the folder models is here and has no sd15, so it is not looked for on"):
        locate_model("models/sd15")
    for name in (Path("nobody/sd15"), "./sd15", "../sd15"):
        with pytest.raises(CheckpointError, match=r"neither a folder, nor a hub id|the folder \.\. is here"):
            locate_model(name)


@pytest.fixture
def refusing_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The hub may be asked, through a proxy of this machine that lets nobody through."""

    def serve(server: socket.socket) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _ = server.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    server = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve, args=(server,), daemon=True)
    thread.start()
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{server.getsockname()[1]}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    huggingface_hub.close_session()
    yield
    huggingface_hub.close_session()
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join(timeout=10)


@pytest.mark.usefixtures("hub_cache", "refusing_proxy")
def test_a_proxy_that_refuses_is_said() -> None:
    for name in ("nobody/nothing/mm.ckpt", "nobody/nothing"):
        with pytest.raises(CheckpointError, match=r"the hub did not give it \(403 Forbidden\)"):
            locate_weights(name)
    with pytest.raises(CheckpointError, match=r"the hub did not give it \(403 Forbidden\)"):
        locate_model("nobody/nothing")


@pytest.mark.parametrize("name", ["nobody/nothing", "nobody/nothing/motion/mm.ckpt", "nobody/nothing/folder"])
@pytest.mark.usefixtures("hub_cache")
def test_a_place_that_is_neither_here_nor_cached(name: str) -> None:
    with pytest.raises(CheckpointError, match=rf"There is no {'/'.join(name.split('/')[:2])}.*HF_HUB_OFFLINE is set"):
        locate_weights(name)


def test_a_file_in_the_hubs_cache(hub_cache: Callable[..., None], tmp_path: Path) -> None:
    for name in ("mm.ckpt", "config.json", "model.safetensors"):
        (tmp_path / name).write_text(name)
    hub_cache("some.body/motion-modules", "old/mm_sd_v15.ckpt", tmp_path / "mm.ckpt")
    hub_cache("some.body/motion-modules", "old/image_encoder/config.json", tmp_path / "config.json")

    found = locate_weights("some.body/motion-modules/old/mm_sd_v15.ckpt", beside="image_encoder")

    assert (found.name, found.read_text()) == ("mm_sd_v15.ckpt", "mm.ckpt")
    assert (found.parent / "image_encoder" / "config.json").is_file()
    with pytest.raises(CheckpointError, match=r"no some\.body/motion-modules/mm\.ckpt here, nor in the cache"):
        locate_weights("some.body/motion-modules/mm.ckpt")


def test_a_folder_in_the_hubs_cache(hub_cache: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    hub_cache("somebody/adapter", "config.json", tmp_path / "x")
    hub_cache("somebody/adapter", "parts/vision/model.safetensors", tmp_path / "x")
    with pytest.raises(CheckpointError, match=r"somebody/adapter/weights\.safetensors"):
        locate_weights("somebody/adapter")
    hub_cache("somebody/adapter", "diffusion_pytorch_model.fp16.safetensors", tmp_path / "x")
    assert (locate_weights("somebody/adapter") / "config.json").is_file()
    assert (locate_weights("somebody/adapter/parts/vision") / "model.safetensors").is_file()


def test_adapters_are_read_from_the_hubs_cache(hub_cache: Callable[..., None], tmp_path: Path) -> None:
    """Through the readers themselves; the name that decides the variant is the repository's, not the cache's."""
    widths = {"down_blocks.0": 2, "up_blocks.0": 3}
    sites = [MotionSite(f"{block}.motion_modules.{i}", 32) for block, count in widths.items() for i in range(count)]
    adapter = MotionAdapter.for_sites([*sites, MotionSite("mid_block.motion_modules.0", 32)])
    file = write_motion(adapter, tmp_path / "x.safetensors", "original")
    hub_cache("somebody/modules", "mm_sd_v15_v2.safetensors", file)
    assert read_motion("somebody/modules/mm_sd_v15_v2.safetensors").variant.name == "animatediff-v2"
    for each in write_motion(adapter, tmp_path / "folder", "diffusers").iterdir():
        hub_cache("somebody/AnimateLCM", each.name, each)
    assert read_motion("somebody/AnimateLCM").variant.name == "animatelcm"

    change = LoraChange(torch.ones(2, 8), torch.ones(8, 2), 2.0)
    lora = write_lora(tmp_path / "l.safetensors", {"backbone": {"a.b": change}}, "unet", "diffusers")
    hub_cache("somebody/loras", "style.safetensors", lora)
    hub_cache("somebody/lora", "pytorch_lora_weights.safetensors", lora)
    for name in ("somebody/loras/style.safetensors", "somebody/lora"):
        assert [pair.name for pair in read_lora(name)] == ["a_b"]
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE"):
        read_lora("somebody/loras/other.safetensors")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[set[str]], list[str]]:
    """A hub with some files in every repository; the maker gives a list in which what was fetched is noted."""

    def make(names: set[str]) -> list[str]:
        fetched: list[str] = []

        def snapshot_download(_repository: str, allow_patterns: list[str]) -> str:
            for name in filter_repo_objects(sorted(names), allow_patterns=allow_patterns):
                path = tmp_path / "snapshot" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                if not path.exists():
                    path.write_text("{}")
                    fetched.append(name)
            return str(tmp_path / "snapshot")

        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
        return fetched

    return make


SETTINGS = {
    *("model_index.json", "unet/config.json", "vae/config.json", "tokenizer/vocab.json", "tokenizer/merges.txt"),
    *("text_encoder/config.json", "tokenizer/tokenizer_config.json", "scheduler/scheduler_config.json"),
}


@pytest.mark.parametrize(
    ("wanted", "others"),
    [
        (
            {"unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"},
            {"unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.non_ema.safetensors", "v1-5.ckpt"},
        ),
        (
            {"unet/diffusion_pytorch_model.bin", "vae/diffusion_pytorch_model.bin", "text_encoder/pytorch_model.bin"},
            {"unet/diffusion_pytorch_model.fp16.bin", "unet/openvino_model.bin", "unet/diffusion_flax_model.msgpack"},
        ),
        (
            {"unet/diffusion_pytorch_model.fp16.safetensors", "vae/diffusion_pytorch_model.fp16.bin"},
            {"unet/diffusion_pytorch_model.bin"},
        ),
        (
            {"text_encoder/model.safetensors.index.json", "text_encoder/model-00001-of-00002.safetensors"},
            {"text_encoder/model-00001-of-00002.fp16.safetensors", "text_encoder/pytorch_model.bin.index.json"},
        ),
        (
            {"unet/diffusion_pytorch_model.bin.index.json", "unet/diffusion_pytorch_model-00001-of-00002.bin"},
            {"unet/diffusion_pytorch_model-00001-of-00002.fp16.bin"},
        ),
    ],
)
def test_of_a_model_on_the_hub_the_best_weights_come(
    hub: Callable[[set[str]], list[str]], wanted: set[str], others: set[str]
) -> None:
    """And no others; they may be pickles, or half precision, part by part."""
    fetched = hub(SETTINGS | wanted | others)
    folder = locate_model("somebody/model")
    assert set(fetched) == SETTINGS | wanted
    assert (folder / "model_index.json").is_file()


def test_of_one_network_on_the_hub_the_best_weights_come(hub: Callable[[set[str]], list[str]]) -> None:
    names = {"config.json", "diffusion_pytorch_model.bin", "diffusion_pytorch_model.fp16.bin", "other.bin"}
    fetched = hub(names)
    assert (locate_weights("somebody/network") / "diffusion_pytorch_model.bin").is_file()
    assert set(fetched) == {"config.json", "diffusion_pytorch_model.bin"}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (errors.GatedRepoError, "its licence must be accepted there first"),
        (errors.RepositoryNotFoundError, "it has no such repository"),
        (errors.RemoteEntryNotFoundError, "the repository has no such file"),
    ],
)
def test_what_the_hub_refuses_is_said_in_few_words(
    kind: type[errors.HfHubHTTPError], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise kind.__new__(kind, "Client error, with a request id and advice for programmers")  # of no response

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(CheckpointError, match=rf"the hub did not give it \({words}[^)]*\)\. Check the name"):
        locate_model("somebody/model")
