"""From the name of a model to its folder."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from muybridge.checkpoints import SHIPPED_MODELS, locate_model
from muybridge.errors import CheckpointError


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
