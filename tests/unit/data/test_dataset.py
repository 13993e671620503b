"""Several sets of a run together, and the report on them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from muybridge.data.contact_sheet import draw_samples
from muybridge.data.dataset import Dataset, open_dataset
from muybridge.data.report import DatasetReport, write_report
from muybridge.data.settings import DataSettings
from muybridge.errors import ConfigError, InputFileError, TrainingError

ClipMaker = Callable[..., Path]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory, clips: Path) -> Path:
    """Two sets: `one` of four clips with captions and what is no clip, `two` of clips without and a picture."""
    above = tmp_path_factory.mktemp("sets")
    for name in ("one", "two"):
        (above / name).mkdir()
    for index in range(4):
        shutil.copy(clips / "a.mp4", above / f"one/{index}.mp4")
        (above / f"one/{index}.txt").write_text(f"A grey square number {index}")
    shutil.copy(clips / "a.mp4", above / "two/x.mp4")
    shutil.copy(clips / "b.mkv", above / "two/y.mkv")
    shutil.copy(clips / "c.png", above / "two/c.png")
    (above / "one/empty.mp4").touch()
    (above / "one/alone.txt").write_text("nothing")
    return above


def settings(sets: Path, **values: object) -> DataSettings:
    one = {"path": str(sets / "one"), "caption": "of those without"}
    sources = [one, {"path": str(sets / "two"), "caption": "plain", "trigger": "zxc"}]
    given = {"sources": sources, "num_frames": (4, 8), "size": (32, 32), "max_damaged": 0.5, "upscale": 2.0}
    return DataSettings.model_validate({**given, **values})


@pytest.fixture(scope="module")
def dataset(sets: Path) -> Dataset:
    return open_dataset(settings(sets))


def test_all_that_was_found_is_there_or_refused(dataset: Dataset) -> None:
    assert [source.format for source in dataset.sources] == ["sidecar", "sidecar"]
    assert sum(source.found for source in dataset.sources) == len(dataset.plan.clips) + len(dataset.refusals)
    assert sorted(refusal.rule for refusal in dataset.refusals) == ["no-file", "unreadable"]
    captions = {clip.record.text for clip in dataset.plan.clips}
    assert captions == {*(f"A grey square number {n}" for n in range(4)), "zxc, plain"}


def test_the_report_counts(dataset: Dataset, tmp_path: Path) -> None:
    report = DatasetReport(dataset, dataset.order(2, 0), 30)
    values = report.to_json()
    assert json.loads(json.dumps(values)) == values
    by_name = {bucket["bucket"]: bucket for bucket in values["buckets"]}
    whole = {"clips": 5, "seconds": 5.0, "steps_an_epoch": 3, "share": 0.6, "crop_loss": 0.0}
    assert by_name["32x32x8"] == {"bucket": "32x32x8", **whole}
    assert by_name["32x32x4"]["crop_loss"] == pytest.approx(1 / 3, abs=1e-3)
    assert values["clips"] == 7
    assert values["steps_an_epoch"] == 5
    assert values["epochs"] == 6
    assert values["captions"]["with"] == 7
    assert values["captions"]["words"] == {"least": 2, "median": 5, "most": 5}
    assert set(values["dropped"]) == {"unreadable", "no-file"}
    assert "empty.mp4: It is empty." in values["dropped"]["unreadable"][0]
    assert sum(each["times"] for each in values["seen"]) > 12
    text = str(report)
    assert "32x32x8      5      5.0" in text
    assert "left out by unreadable: 1" in text
    assert "30 steps of 2 are 6 epochs of 5 steps" in text
    assert "4 begin with 'a grey square'" in text
    write_report(report, tmp_path)
    assert json.loads((tmp_path / "data.json").read_text()) == values
    assert (tmp_path / "data.txt").read_text() == f"{text}\n"
    with Image.open(tmp_path / "data.png") as sheet:
        assert sheet.height > 7 * 144


def test_the_sheet_shows_what_is_trained(dataset: Dataset) -> None:
    pixels = np.asarray(draw_samples(dataset, 0, count=3))
    assert np.array_equal(pixels, np.asarray(draw_samples(dataset, 0, count=3)))
    assert len(np.unique(pixels[8:150].reshape(-1, 3), axis=0)) > 4


def test_draws_are_of_seed_turn_and_clip(dataset: Dataset) -> None:
    order = dataset.order(2, 0)
    slots = [slot for index in range(10) for slot in order[index].slots]
    again = dataset.frames(slots[0], 0)
    assert np.array_equal(dataset.frames(slots[0], 0), again)
    assert again.shape[1:] == (32, 32, 3)


def test_a_run_without_a_clip_does_not_begin(sets: Path, tmp_path: Path) -> None:
    long = open_dataset(settings(sets, num_frames=(99,), share_images=0))
    with pytest.raises(TrainingError, match=r"no clip to train on in .*one, .*two; all that was found was refused"):
        long.check_usable()
    rules = {refusal.rule for refusal in long.refusals}
    assert rules == {"too-short", "share-images", "unreadable", "no-file"}
    with pytest.raises(ConfigError, match="no clip"):
        long.order(1, 0)
    strict = open_dataset(settings(sets, max_damaged=0.1))
    with pytest.raises(TrainingError, match=r"1 of 8 files are damaged, 12%; 10% are allowed .*empty\.mp4"):
        strict.check_usable()
    with pytest.raises(InputFileError, match="no file or folder"):
        open_dataset(DataSettings.model_validate({"sources": [{"path": str(tmp_path / "gone")}]}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": (32, 30)}, "positive multiples of 16"),
        ({"area": 1024}, "area or size, not both"),
        ({"area": 5, "size": None}, "at least 256"),
        ({"num_frames": (0,)}, "from 1 on"),
        ({"sources": []}, "at least 1 item"),
        ({"colour": 1}, "Extra inputs"),
        ({"sources": [{"path": "x", "format": "webdata"}]}, "must be one of manifest, easyanimate, .*, sidecar"),
        ({"share_images": 2}, "less than or equal to 1"),
    ],
)
def test_settings_that_contradict(sets: Path, values: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings(sets, **values)
