"""What a model can do already: made once, mixed with what it learns, and held to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from muybridge.data.settings import DataSettings, PriorSettings
from muybridge.errors import ConfigError, TrainingError
from muybridge.pipelines.animatediff.family import TRAINING
from muybridge.training.clip_sets import ClipSets
from muybridge.training.data import ClipsWanted, UsualClip
from muybridge.training.methods.denoise import DenoisingMethod
from muybridge.training.methods.lora import LoraMethod
from muybridge.training.objective.diffusion import DiffusionObjective
from muybridge.training.prior import folder_of_prior, prior_of, prompts_of
from muybridge.training.run_file import TrainingRun
from muybridge.training.stages.base_model import networks_of, training_scheduler
from muybridge.types import VideoShape
from muybridge.video import Video


def write_clips(folder: Path, count: int, seed: int, caption: str) -> Path:
    folder.mkdir(parents=True)
    noise = np.random.default_rng(seed)
    for number in range(count):
        Video(noise.integers(0, 255, (4, 16, 16, 3), np.uint8), 8).save(folder / f"{number}.mp4")
        (folder / f"{number}.txt").write_text(caption)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What is to be learned, and what is known."""
    folder = tmp_path_factory.mktemp("sets")
    return write_clips(folder / "own", 6, 0, "a red circle"), write_clips(folder / "prior", 3, 1, "a blue square")


def settings(folders: tuple[Path, Path], **prior: object) -> DataSettings:
    sources = [{"path": str(folders[0])}]
    known = {"path": str(folders[1]), **prior}
    return DataSettings.model_validate({"sources": sources, "num_frames": [4], "size": [16, 16], "prior": known})


def wanted(pipeline: Any, dropout: float = 0.0) -> ClipsWanted:
    return ClipsWanted(3, 0, pipeline.tokenizer, dropout, 4, usual=UsualClip(VideoShape(4, 16, 16), 8.0, 8))


def marks(batches: Any, count: int) -> torch.Tensor:
    return torch.cat([batches(index)["prior"] for index in range(count)])


def test_a_share_of_the_clips_is_what_the_model_knows(make_pipeline: Callable[..., Any], folders: Any) -> None:
    pipeline = make_pipeline()
    for share in (0.5, 0.25):
        data = ClipSets(settings(folders, share=share), folders[1])
        batches = data.clips(wanted(pipeline))
        assert marks(batches, 24).float().mean().item() == pytest.approx(share, abs=0.03)
    batch = batches(0)
    assert torch.equal(batch["loss_weights"], torch.ones(3))
    weighted = ClipSets(settings(folders, weight=0.5, target="clips"), folders[1]).clips(wanted(pipeline))(0)
    assert "prior" not in weighted
    assert set(weighted["loss_weights"].tolist()) <= {0.5, 1.0}


def test_captions_are_dropped_of_what_is_known_alone(make_pipeline: Callable[..., Any], folders: Any) -> None:
    pipeline = make_pipeline()
    batches = ClipSets(settings(folders), folders[1]).clips(wanted(pipeline, dropout=0.99))
    told = torch.cat([batches(index)["input_ids"] for index in range(12)])
    prior = marks(batches, 12)
    empty = torch.tensor(pipeline.tokenizer([""], padding="max_length").input_ids)
    dropped = (told == empty).all(1)
    assert not dropped[~prior].any()
    assert dropped[prior].float().mean() > 0.8


def test_nothing_known_is_held_out_or_measured(make_pipeline: Callable[..., Any], folders: Any) -> None:
    known = settings(folders).model_copy(update={"held_out": 0.5})
    data = ClipSets(known, folders[1])
    data.clips(wanted(make_pipeline()))
    looks = data.looks
    assert looks is not None
    assert looks.trained is not None
    assert looks.held_out is not None
    assert data.report is not None
    assert len(data.report.dataset.plan.clips) == 3 + 3
    for each in (looks.trained, looks.held_out):
        assert {clip.record.text for clip in each.dataset.plan.clips} == {"a red circle"}
        assert "prior" not in each(0)


def test_a_prior_that_fits_no_bucket_is_no_prior(
    make_pipeline: Callable[..., Any], folders: Any, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    Video(np.zeros((1, 8, 8, 3), np.uint8), 8).save(small / "0.mp4")
    with pytest.raises(TrainingError, match=r"No clip of the prior .* can be used: .*enlarged"):
        ClipSets(settings(folders), small).clips(wanted(make_pipeline()))


def test_the_digest_sees_how_it_is_mixed(make_pipeline: Callable[..., Any], folders: Any) -> None:
    pipeline, digests = make_pipeline(), set()
    plain = settings(folders).model_copy(update={"prior": None})
    for each, folder in ((plain, None), (settings(folders), folders[1]), (settings(folders, weight=2.0), folders[1])):
        data = ClipSets(each, folder)
        data.clips(wanted(pipeline))
        digests.add(data.digest())
    assert len(digests) == 3


def lora(pipeline: Any) -> LoraMethod:
    objective = DiffusionObjective(training_scheduler(pipeline))
    method = LoraMethod(DenoisingMethod(networks_of(pipeline), objective, TRAINING), "attention")
    return method.train()


def batch_of(pipeline: Any, folders: Any) -> dict[str, torch.Tensor]:
    batches = ClipSets(settings(folders), folders[1]).clips(wanted(pipeline))
    return next(batch for batch in map(batches, range(20)) if batch["prior"].sum() == 2)


def test_a_lora_is_held_to_what_was_said_without_it(make_pipeline: Callable[..., Any], folders: Any) -> None:
    pipeline = make_pipeline()
    method, batch = lora(pipeline), batch_of(pipeline, folders)
    first = method(batch, torch.Generator().manual_seed(0))
    assert first["prior"] < 1e-10
    with torch.no_grad():
        for name, parameter in method.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    changed = method(batch, torch.Generator().manual_seed(0))
    assert changed["prior"] > 1e-6
    tensors = {name: value for name, value in batch.items() if name != "files"}
    only_prior = {n: v if n == "frame_positions" else v[batch["prior"]] for n, v in tensors.items()}
    alone = method(only_prior, torch.Generator().manual_seed(0))
    torch.testing.assert_close(alone["loss"], alone["prior"])
    alone["loss"].backward()
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)


def test_weights_of_samples(make_pipeline: Callable[..., Any], folders: Any) -> None:
    pipeline = make_pipeline()
    method, batch = lora(pipeline), batch_of(pipeline, folders)
    plain = {name: value for name, value in batch.items() if name not in ("prior", "loss_weights")}
    generator = torch.Generator().manual_seed
    expected = method(plain, generator(0))["loss"]
    torch.testing.assert_close(method({**plain, "loss_weights": torch.ones(3)}, generator(0))["loss"], expected)
    doubled = method({**plain, "loss_weights": torch.full((3,), 2.0)}, generator(0))["loss"]
    torch.testing.assert_close(doubled, 2 * expected)


def stage_of(method: str, folder: Path, prior: dict[str, object], **values: object) -> tuple[TrainingRun, Any]:
    stage = {"method": method, "base": str(folder), "steps": 1, "batch_size": 1, **values}
    data = {"sources": str(folder), "prior": prior}
    run = TrainingRun.model_validate({"name": "x", "data": data, "stages": [stage]})
    return run, run.stages[0]


def test_clips_are_made_once(make_pipeline: Callable[..., Any], tmp_path: Path) -> None:
    model = tmp_path / "model"
    pipeline = make_pipeline()
    pipeline.register_to_config(default_steps=2)
    pipeline.save_pretrained(model)
    asked: dict[str, object] = {"prompts": ["a red circle", "a blue square"], "clips": 3, "folder": str(tmp_path / "p")}
    run, stage = stage_of("lora", model, asked)
    prior = prior_of(PriorSettings.model_validate(asked), stage)
    assert prior is not None
    assert prior.missing == [0, 1, 2]
    told: list[tuple[int, int]] = []
    prior.make(lambda done, count: told.append((done, count)))
    assert told == [(3, 3)]
    assert prior.prompts == ("a red circle", "a blue square", "a red circle")
    assert folder_of_prior(run.data, stage) == prior.folder
    before = {path.name: path.read_bytes() for path in prior.folder.iterdir()}
    assert sorted(before) == [f"000{n}.{kind}" for n in range(3) for kind in ("mp4", "txt")]
    (prior.folder / "0001.txt").unlink()  # as if it had been interrupted
    prior.make()
    assert {path.name: path.read_bytes() for path in prior.folder.iterdir()} == before
    for other in ({**asked, "seed": 1}, {**asked, "prompts": ["a ring"]}, {**asked, "clips": 4}):
        another = prior_of(PriorSettings.model_validate(other), stage)
        assert another is not None
        assert another.folder != prior.folder


def test_prompts(tmp_path: Path) -> None:
    assert len(prompts_of(PriorSettings())) >= 40
    world = prompts_of(PriorSettings(prompts="demo-world", clips=16))
    assert len(set(world)) == 16
    assert sum("spinning" in prompt for prompt in world) == 2
    path = tmp_path / "prompts.txt"
    path.write_text("a dog\n\n  a cat \n")
    assert prompts_of(PriorSettings(prompts=str(path))) == ["a dog", "a cat"]
    path.write_text("\n")
    for wrong in (str(path), str(tmp_path / "none.txt")):
        with pytest.raises(ConfigError, match=r"data\.prior\.prompts"):
            prompts_of(PriorSettings(prompts=wrong))


@pytest.mark.parametrize(
    ("method", "values", "prior", "message"),
    [
        ("autoencoder", {}, {}, "'autoencoder' takes no data.prior"),
        ("motion-lora", {"camera": "zoom-in"}, {}, "data.prior is for clips as they are"),
        ("motion-adapter", {}, {}, "Fresh motion modules know nothing to keep"),
        ("motion-adapter", {"start": "own"}, {"target": "model"}, "data.prior.target: model is for a LoRA"),
        ("lora", {}, {"path": "nowhere"}, "There is no nowhere for data.prior"),
    ],
)
def test_refused(tmp_path: Path, method: str, values: dict, prior: dict, message: str) -> None:
    run, stage = stage_of(method, tmp_path, prior, **values)
    with pytest.raises(ConfigError, match=message):
        folder_of_prior(run.data, stage)


def test_settings_that_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="clips is of clips that are made"):
        raise ConfigError(_said({"path": str(tmp_path), "clips": 3}))
    with pytest.raises(ConfigError, match="prompts name at least one"):
        raise ConfigError(_said({"prompts": []}))


def _said(prior: dict[str, object]) -> str:
    with pytest.raises(ValueError, match="prior") as told:
        DataSettings.model_validate({"sources": [{"path": "x"}], "prior": prior})
    return str(told.value)
