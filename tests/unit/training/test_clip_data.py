"""Batches of people's own clips."""

from __future__ import annotations

import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import PreTrainedTokenizerBase

from muybridge.data.dataset import open_dataset
from muybridge.data.settings import DataSettings
from muybridge.demo.models import make_tokenizer
from muybridge.errors import ConfigError, TrainingError
from muybridge.training.clip_data import BatchSettings, DatasetBatches
from muybridge.training.data import Batch


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return make_tokenizer()


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five clips of a second, no two of the same grey, and four pictures."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(5):
        with av.open(str(folder / f"v{number}.mp4"), "w") as file:
            stream = file.add_stream("libx264", rate=12, options={"g": "6"})
            stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
            for index in range(12):
                pixels = np.full((32, 32, 3), 40 * number + 2 * index + 10, np.uint8)
                file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            file.mux(stream.encode())
        (folder / f"v{number}.txt").write_text("a red circle moving left")
    for number in range(4):
        Image.fromarray(np.full((32, 32, 3), 60 * number, np.uint8)).save(folder / f"p{number}.png")
        (folder / f"p{number}.txt").write_text("a blue square")
    return folder


def settings(folder: Path, **values: object) -> DataSettings:
    given = {"sources": [{"path": str(folder)}], "num_frames": [4], "fps": 8, "size": [32, 32], "crop": "random"}
    return DataSettings.model_validate({**given, **values})


def same(first: Batch, second: Batch) -> bool:
    """Whether two batches are of the same files, and alike."""
    if first.keys() != second.keys() or list(first["files"]) != list(second["files"]):
        return False
    return all(torch.equal(first[name], second[name]) for name in first.keys() - {"files"})


def test_a_batch_is_what_networks_take(clips: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    batches = DatasetBatches(open_dataset(settings(clips)), tokenizer, BatchSettings(3, workers=0, caption_dropout=0))
    kinds = set()
    for index in range(batches.order.steps):
        batch = batches(index)
        count, num_frames, *rest = batch["pixels"].shape
        kinds.add(num_frames)
        assert (count, rest) == (3, [3, 32, 32])
        assert batch["pixels"].dtype == torch.float32
        assert -1 <= batch["pixels"].min() <= batch["pixels"].max() <= 1
        assert batch["frame_positions"].tolist() == list(range(num_frames))
        assert batch["unknown"].all()
        assert batch["input_ids"].shape == batch["attention_mask"].shape == (3, 24)
        said = "a blue square" if num_frames == 1 else "a red circle moving left"
        assert torch.equal(
            batch["input_ids"][0], tokenizer(said, padding="max_length", return_tensors="pt").input_ids[0]
        )
    assert kinds == {1, 4}


def test_any_number_of_workers_gives_the_same_batches(clips: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    dataset = open_dataset(settings(clips, flip=True))
    alone = DatasetBatches(dataset, tokenizer, BatchSettings(2, seed=3, workers=0, caption_dropout=0.5))
    wanted = [alone(index) for index in range(14)]
    assert not same(wanted[0], wanted[alone.order.steps])
    is_empty = torch.stack([batch["attention_mask"].sum(1) == 2 for batch in wanted])
    assert all(set(column.tolist()) == {True, False} for column in is_empty.T)  # drawn anew for each batch
    for workers, stride in ((1, 1), (2, 2)):
        ahead = DatasetBatches(dataset, tokenizer, BatchSettings(2, seed=3, workers=workers, caption_dropout=0.5))
        for index in (*range(0, 14, stride), 3):  # as a process of several does it, and back
            assert same(ahead(index), wanted[index])
        ahead.close()
        assert same(ahead(5), wanted[5])


def test_damaged_files_are_left_out_and_listed(clips: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    folder = shutil.copytree(clips, tmp_path / "clips")
    dataset = open_dataset(settings(folder, max_damaged=0.25))
    for name in ("v1.mp4", "p2.png"):
        (folder / name).write_bytes(b"no longer what it was")
    two = [DatasetBatches(dataset, tokenizer, BatchSettings(3, workers=workers)) for workers in (0, 2)]
    for index in (4, 0, 1, 2, 3):
        assert same(two[0](index), two[1](index))
    two[1].close()
    for batches in two:
        assert [Path(refusal.where).name for refusal in batches.damaged] == ["p2.png", "v1.mp4"]
    assert two[0].damaged == two[1].damaged


def test_too_many_damaged_files_stop_it(clips: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    folder = shutil.copytree(clips, tmp_path / "clips")
    batches = DatasetBatches(open_dataset(settings(folder)), tokenizer, BatchSettings(4, workers=1))
    (folder / "v1.mp4").unlink()
    with pytest.raises(TrainingError, match=r"1 of 9 files are damaged, 11%; 10% are allowed .*v1\.mp4"):
        _ = [batches(index) for index in range(batches.order.steps)]
    batches.close()


def test_settings_out_of_range(clips: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    dataset = open_dataset(settings(clips))
    with pytest.raises(ConfigError, match="caption_dropout from 0 to 1; given 0 and 2"):
        DatasetBatches(dataset, tokenizer, BatchSettings(1, workers=0, caption_dropout=2))
    short = open_dataset(settings(clips, num_frames=[50], share_images=0))
    with pytest.raises(TrainingError, match="no clip to train on"):
        DatasetBatches(short, tokenizer, BatchSettings(1))
