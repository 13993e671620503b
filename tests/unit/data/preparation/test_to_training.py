"""What was prepared is trained on as it lies there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from muybridge.data.dataset import open_dataset
from muybridge.data.preparation.account import Account
from muybridge.data.preparation.prepare import PrepareSettings, prepare
from muybridge.data.preparation.recipe import Recipe
from muybridge.data.settings import DataSettings
from muybridge.errors import TrainingError
from muybridge.training.newcomer import ClipsRun, write_run_file


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, make_clip: Callable[..., Path]) -> Path:
    """A folder that three of four files were prepared into, with captions."""
    folder = tmp_path_factory.mktemp("prepared")
    raw = folder / "raw"
    raw.mkdir()
    for number in range(3):
        make_clip(raw / f"{number}.mp4", 24, (64, 64), noise=5 + number)
        (raw / f"{number}.txt").write_text(f"a thing of kind {number}")
    (raw / "broken.mp4").write_text("no video")
    recipe = Recipe.of({"stages": [{"probe": {"min_side": 64, "min_seconds": 0.5}}]})
    prepare(raw, folder / "out", recipe, PrepareSettings(engine="serial"))
    return folder / "out"


def settings(path: Path) -> DataSettings:
    return DataSettings.model_validate({"sources": [{"path": str(path)}], "num_frames": [8], "size": [64, 64]})


def test_a_run_file_names_the_folder(prepared: Path) -> None:
    dataset = open_dataset(settings(prepared))

    dataset.check_usable()
    assert [source.format for source in dataset.sources] == ["manifest"]
    assert {clip.record.text for clip in dataset.plan.clips} == {f"a thing of kind {n}" for n in range(3)}
    assert dataset.refusals == ()


def test_training_takes_the_folder_without_a_run_file(prepared: Path, tmp_path: Path) -> None:
    written, picked = write_run_file(ClipsRun(prepared), tmp_path)

    assert yaml.safe_load(written.read_text())["data"]["sources"][0]["path"] == str(prepared)
    assert any("3 clips" in line for line in picked)


def test_a_set_of_which_nothing_is_kept(prepared: Path, tmp_path: Path) -> None:
    recipe = Recipe.of({"stages": [{"probe": {"min_seconds": 100}}]})
    prepare(prepared.parent / "raw", tmp_path / "out", recipe, PrepareSettings(engine="serial"))

    assert Account.read(tmp_path / "out").inputs == {"dropped": 3, "unreadable": 1}
    with pytest.raises(TrainingError, match=r"There is no clip to train on in .*nothing was found"):
        open_dataset(settings(tmp_path / "out")).check_usable()
