"""People's own clips in the place of a set that ships."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from transformers import PreTrainedTokenizerBase

from muybridge.data.settings import DataSettings
from muybridge.demo.models import make_tokenizer
from muybridge.errors import ConfigError
from muybridge.training.clip_sets import ClipSets, content_of
from muybridge.training.data import ClipsWanted, UsualClip
from muybridge.training.run_file import TrainingRun
from muybridge.training.stages.registry import training_data
from muybridge.types import VideoShape
from muybridge.video import Video


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return make_tokenizer()


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five clips of 16 frames, whose frames grow lighter, and a picture."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(5):
        grey = 20 * number + 8 * np.arange(16, dtype=np.uint8)
        Video(np.broadcast_to(grey[:, None, None, None], (16, 16, 16, 3)).copy(), 8).save(folder / f"{number}.mp4")
        (folder / f"{number}.txt").write_text("a red circle")
    return folder


def wanted(tokenizer: PreTrainedTokenizerBase, num_frames: int | None, whole: float = 0.0) -> ClipsWanted:
    return ClipsWanted(2, 0, tokenizer, 0.0, num_frames, whole, UsualClip(VideoShape(16, 16, 16), 8.0, 8))


def sets(folder: Path) -> ClipSets:
    return ClipSets(DataSettings.model_validate({"sources": [{"path": str(folder)}]}))


def test_a_stretch_says_where_its_frames_stand(clips: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    data = sets(clips)
    batches = data.clips(wanted(tokenizer, 4))
    whole = data.whole_clips(wanted(tokenizer, 4))
    strides = set()
    for index in range(8):
        batch, all_frames = batches(index), whole(index)
        positions = batch["frame_positions"].long()
        assert batch["pixels"].shape == (2, 4, 3, 16, 16)
        assert batch["unknown"].shape == (2, 4)
        assert all_frames["pixels"].shape == (2, 16, 3, 16, 16)
        assert torch.equal(batch["pixels"], all_frames["pixels"][:, positions])
        strides |= set(positions.diff().tolist())
        again = batches(index)
        assert batch["files"] == again["files"]
        assert all(torch.equal(batch[name], again[name]) for name in batch.keys() - {"files"})
    assert strides == {1, 2}
    assert data.report is not None
    assert len(data.report.dataset.plan.clips) == 5


def test_a_share_of_whole_clips(clips: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    batch = sets(clips).clips(wanted(tokenizer, 8, 1.0))(0)
    assert batch["pixels"].shape[:2] == (1, 16)
    assert batch["input_ids"].shape[0] == 1
    assert torch.equal(batch["frame_positions"], torch.arange(16.0))


def test_known_frames_of_a_clip(clips: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    batches = sets(clips).keyframe_clips(wanted(tokenizer, None))
    known = torch.cat([batches(index)["known"] for index in range(24)])
    counts = known.sum(1)
    assert counts.min() == 1
    assert 2 < counts.max() <= 8
    assert (known[:, 0] & known[:, -1] & (counts == 2)).any()


def test_what_clips_have_in_common_is_not_said(clips: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ConfigError, match="taught is about the toy world"):
        sets(clips).taught_clips(wanted(tokenizer, None), "growing")


def test_settings_that_say_nothing_are_the_models(clips: Path) -> None:
    plain = DataSettings.model_validate({"sources": [{"path": str(clips)}]})
    found = plain.for_model(VideoShape(24, 48, 32), 24.0, 16)
    assert (found.fps, found.num_frames, found.area, found.multiple) == (24.0, (8, 16, 24), 48 * 32, 16)
    said = plain.model_copy(update={"fps": 5.0}).model_validate({**plain.model_dump(exclude_unset=True), "fps": 5.0})
    assert said.for_model(VideoShape(24, 48, 32), 24.0, 16).fps == 5.0
    wrong = DataSettings.model_validate({"sources": [{"path": str(clips)}], "size": [16, 16]})
    with pytest.raises(ConfigError, match="multiples of 64"):
        wrong.for_model(VideoShape(24, 64, 64), 8.0, 64)
    small = DataSettings.model_validate({"sources": [{"path": str(clips)}], "area": 1024})
    with pytest.raises(ConfigError, match=r"data\.area must be at least 4096 for this model.*given 1024"):
        small.for_model(VideoShape(24, 64, 64), 8.0, 64)


@pytest.mark.parametrize("form", ["path", "list", "sources", "mapping"])
def test_a_run_file_names_clips(clips: Path, form: str) -> None:
    path = str(clips)
    data = {
        "path": path,
        "list": [path, {"path": path, "weight": 2}],
        "sources": {"sources": path, "fps": 6},
        "mapping": {"sources": [{"path": path, "trigger": "sks"}]},
    }[form]
    stage = {"method": "lora", "steps": 1, "batch_size": 1}
    run = TypeAdapter(TrainingRun).validate_python({"name": "x", "data": data, "stages": [stage]})
    assert isinstance(run.data, DataSettings)
    assert run.data.sources[0].path == path
    assert isinstance(training_data(run.data), ClipSets)


def test_clips_that_are_not_there(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    missing = DataSettings.model_validate({"sources": [{"path": str(tmp_path / "nowhere")}]})
    with pytest.raises(ConfigError, match=r"There is no .*nowhere to train on"):
        training_data(missing)
    (tmp_path / "list.json").write_text("[")
    damaged = ClipSets(DataSettings.model_validate({"sources": [{"path": str(tmp_path / "list.json")}]}))
    with pytest.raises(ConfigError, match="no set of clips or pictures of a known format"):
        damaged.whole_clips(wanted(tokenizer, None))


def listed(folder: Path, clips: Path, **values: object) -> Path:
    """A list of one clip."""
    folder.mkdir()
    row = {"id": "ab", "media": str(clips / "0.mp4"), "kind": "video", **values}
    (folder / "manifest.jsonl").write_text(json.dumps(row))
    return folder


def test_another_part_of_the_picture_is_other_data(
    clips: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    folders = [listed(tmp_path / "whole", clips)]
    folders += [listed(tmp_path / str(x), clips, extra={"crop": [x, 0, 8, 8, 16, 16]}) for x in (0, 8)]
    found, names = set(), set()
    for folder in folders:
        settings = DataSettings.model_validate({"sources": [{"path": str(folder)}], "size": [8, 8], "multiple": 8})
        names.add(content_of(settings))
        data = ClipSets(settings)
        data.whole_clips(replace(wanted(tokenizer, None), usual=None))
        found.add(data.digest())
        data.close()
    assert len(names) == len(found) == 3


def test_another_prior_is_other_data(clips: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a dog")
    priors: list[object] = [{}, {"clips": 3}, {"seed": 1}, {"prompts": ["a cat"]}, {"prompts": str(prompts)}]
    priors += [str(listed(tmp_path / name, clips, text=name)) for name in ("one", "two")]
    settings = [DataSettings.model_validate({"sources": [{"path": str(clips)}], "prior": prior}) for prior in priors]
    names = [content_of(each) for each in settings]
    prompts.write_text("a horse")
    names.append(content_of(settings[4]))
    assert len(set(names)) == len(names)
