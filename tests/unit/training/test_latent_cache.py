"""Clips encoded once give the batches that clips encoded anew give, and a cache is never believed without reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from muybridge.data.dataset import open_dataset
from muybridge.data.settings import DataSettings
from muybridge.errors import TrainingError
from muybridge.pipelines.animatediff.family import TRAINING
from muybridge.pipelines.animatediff.learning import text
from muybridge.pipelines.easyanimate.learning import text as transformer_text
from muybridge.training.clip_data import BatchSettings, DatasetBatches
from muybridge.training.clip_sets import ClipSets
from muybridge.training.config import TrainerConfig
from muybridge.training.data import ClipsWanted
from muybridge.training.latent_cache import CachedClips, CaptionEncoder, ClipEncoder
from muybridge.training.stages.base_model import networks_of, wanted_clips
from muybridge.training.tensor_cache import TensorCache
from muybridge.training.trainer import Trainer
from muybridge.video import Video


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    noise = np.random.default_rng(0)
    for number in range(3):
        Video(noise.integers(0, 255, (4, 16, 16, 3), np.uint8), 8).save(folder / f"{number}.mp4")
        (folder / f"{number}.txt").write_text("a red circle")
    return folder


@pytest.fixture
def pipeline(make_pipeline: Callable[..., Any]) -> Any:
    return make_pipeline()


def settings(folder: Path, **values: object) -> DataSettings:
    given = {"sources": [{"path": str(folder)}], "num_frames": [4], "size": [16, 16], **values}
    return DataSettings.model_validate(given)


def batches(pipeline: Any, folder: Path) -> DatasetBatches:
    return DatasetBatches(open_dataset(settings(folder)), pipeline.tokenizer, BatchSettings(2, workers=0))


def test_latents_are_those_of_the_pixels(pipeline: Any, folder: Path, tmp_path: Path) -> None:
    plain, encoder = batches(pipeline, folder), ClipEncoder(networks_of(pipeline), TRAINING)
    cached = CachedClips(batches(pipeline, folder), encoder, tmp_path / "cache")
    for index in range(3):
        expected, first, again = plain(index), cached(index), cached(index)
        torch.testing.assert_close(first["latents"], encoder.latents(expected["pixels"]), rtol=1e-5, atol=1e-5)
        assert torch.equal(first["latents"], again["latents"])
        for name in ("input_ids", "frame_positions", "unknown"):
            assert torch.equal(first[name], expected[name])
        assert first["pixels"].shape == expected["pixels"].shape
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 3


class Broken(nn.Module):
    """What is trained on clips or their latents, and breaks at its second batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.calls = 0

    def forward(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, torch.Tensor]:
        self.calls += 1
        values = batch.get("latents", batch["pixels"]).mean().reshape(1)
        return {"loss": self.layer(values if self.calls < 2 else values * float("nan")).square().mean()}


@pytest.mark.parametrize("cached", [False, True])
def test_a_loss_that_is_no_number_names_the_files(pipeline: Any, folder: Path, tmp_path: Path, cached: bool) -> None:
    data = ClipSets(settings(folder, **({"cache": str(tmp_path / "cache")} if cached else {})))
    encoder = ClipEncoder(networks_of(pipeline), TRAINING)
    source = data.clips(ClipsWanted(2, 0, pipeline.tokenizer, 0.0, num_frames=2, encoder=encoder))
    config = TrainerConfig(3, mixed_precision="no", trackers=())
    with pytest.raises(TrainingError, match="Step 1: loss nan") as stopped:
        Trainer(Broken(), source, config, tmp_path / "run").fit()
    data.close()

    said = str(stopped.value)
    files = source(1)["files"]
    assert len(files) == 2
    assert (
        f", in batch 1 (files {', '.join(map(str, files))}). Values became NaN before layer (Linear), forward" in said
    )
    assert ".. " not in said


def test_what_is_there_is_not_encoded_again(pipeline: Any, folder: Path, tmp_path: Path) -> None:
    encoder = ClipEncoder(networks_of(pipeline), TRAINING)
    first = CachedClips(batches(pipeline, folder), encoder, tmp_path)(0)
    again = CachedClips(batches(pipeline, folder), encoder, tmp_path)
    with torch.no_grad():
        for parameter in pipeline.vae.parameters():
            parameter.zero_()  # after the digest was taken: encoding anew would show
    assert torch.equal(again(0)["latents"], first["latents"])


def test_another_vae_and_damage_are_noticed(pipeline: Any, folder: Path, tmp_path: Path) -> None:
    encoder = ClipEncoder(networks_of(pipeline), TRAINING)
    cached = CachedClips(batches(pipeline, folder), encoder, tmp_path)
    first = cached(0)["latents"]
    files = sorted(tmp_path.rglob("*.safetensors"))
    whole = files[0].read_bytes()
    files[0].write_bytes(files[1].read_bytes())  # of another clip
    files[1].write_bytes(whole[:100])
    assert torch.equal(cached(0)["latents"], first)

    with torch.no_grad():
        pipeline.vae.encoder.conv_in.weight.mul_(2)
    other = CachedClips(batches(pipeline, folder), encoder, tmp_path)(0)["latents"]
    assert not torch.allclose(other, first)


def test_bytes_that_have_changed_are_noticed(tmp_path: Path) -> None:
    cache, value = TensorCache(tmp_path, "latents"), torch.linspace(-1, 1, 64).reshape(4, 16)
    cache.put({"clip": "a"}, value)
    [path] = tmp_path.rglob("*.safetensors")
    whole = path.read_bytes()
    assert torch.equal(cast("Tensor", cache.get({"clip": "a"})), value)

    path.write_bytes(whole[:-8] + bytes(8))
    assert cache.get({"clip": "a"}) is None
    for said, other in ((b"F32", b"I32"), (b"[4,16]", b"[8, 8]")):
        assert whole.count(said) == 1
        path.write_bytes(whole.replace(said, other))
        assert cache.get({"clip": "a"}) is None

    save_file({"latents": value}, path, {"key": '{"clip": "a"}'})  # as earlier versions left it
    assert cache.get({"clip": "a"}) is None
    cache.put({"clip": "a"}, value)
    assert torch.equal(cast("Tensor", cache.get({"clip": "a"})), value)


def test_a_stretch_of_cached_latents(pipeline: Any, folder: Path, tmp_path: Path) -> None:
    encoder = ClipEncoder(networks_of(pipeline), TRAINING)
    wanted = ClipsWanted(2, 0, pipeline.tokenizer, 0.0, 2, encoder=encoder)
    plain = ClipSets(settings(folder)).clips(wanted)
    cached = ClipSets(settings(folder, cache=str(tmp_path / "cache"))).clips(wanted)
    for index in range(3):
        expected, found = plain(index), cached(index)
        assert torch.equal(found["frame_positions"], expected["frame_positions"])
        torch.testing.assert_close(found["latents"], encoder.latents(expected["pixels"]), rtol=1e-5, atol=1e-5)


def test_states_of_captions_are_those_of_the_text_encoder(pipeline: Any, folder: Path, tmp_path: Path) -> None:
    networks, plain = networks_of(pipeline), batches(pipeline, folder)
    dropping = DatasetBatches(plain.dataset, pipeline.tokenizer, BatchSettings(2, caption_dropout=0.5, workers=0))
    clips, words = ClipEncoder(networks, TRAINING), CaptionEncoder(networks, text)
    cached = CachedClips(dropping, clips, tmp_path, words)
    for index in range(3):
        batch = cached(index)
        expected = text(networks, {"input_ids": batch["input_ids"]})["encoder_hidden_states"]
        torch.testing.assert_close(batch["text_states"], expected, rtol=1e-5, atol=1e-5)
        assert text(networks, batch)["encoder_hidden_states"] is batch["text_states"]
        assert transformer_text(networks, batch)["encoder_hidden_states"] is batch["text_states"]
    kept = [path for path in tmp_path.rglob("*.safetensors") if b"text_encoder" in path.read_bytes()]
    assert len(kept) == 2  # the one caption, and the empty one

    first = cached(0)["text_states"]
    kept[0].write_bytes(kept[1].read_bytes())
    kept[1].write_bytes(b"nothing")
    assert torch.equal(CachedClips(dropping, clips, tmp_path, words)(0)["text_states"], first)
    with torch.no_grad():
        pipeline.text_encoder.get_input_embeddings().weight.mul_(2)
    other = CachedClips(dropping, clips, tmp_path, words)(0)["text_states"]
    assert not torch.allclose(other, first)


def test_a_text_encoder_that_learns_has_no_states_to_keep(pipeline: Any) -> None:
    stage: Any = SimpleNamespace(batch_size=1, seed=0)
    assert wanted_clips(pipeline, stage, 0.1, cached_by=TRAINING).text is not None
    assert wanted_clips(pipeline, stage, 0.1, cached_by=TRAINING, keeps_text=False).text is None
    assert wanted_clips(pipeline, stage, 0.1).text is None


def test_each_part_of_the_picture_has_latents_of_its_own(pipeline: Any, folder: Path, tmp_path: Path) -> None:
    encoder, found = ClipEncoder(networks_of(pipeline), TRAINING), []
    for left in (0, 8):
        row = {"id": "ab", "media": str(folder / "0.mp4"), "kind": "video", "extra": {"crop": [left, 0, 8, 16, 16, 16]}}
        (tmp_path / "manifest.jsonl").write_text(json.dumps(row))
        dataset = open_dataset(settings(tmp_path, size=[16, 16], upscale=4))
        cropped = DatasetBatches(dataset, pipeline.tokenizer, BatchSettings(1, workers=0))
        found.append(CachedClips(cropped, encoder, tmp_path / "cache")(0)["latents"])
    assert not torch.equal(*found)
