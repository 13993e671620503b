"""A whole training run of the transformer's recipe with tiny numbers, from the run file to a model that generates."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from muybridge import load_pipeline
from muybridge.demo import world
from muybridge.demo.batches import ConditionedVideoBatches
from muybridge.errors import ConfigError
from muybridge.pipelines import EasyAnimatePipeline
from muybridge.training.run import run_training
from muybridge.training.run_file import load_run
from muybridge.training.stages.registry import training_data

RUN_FILE = Path(__file__).resolve().parents[2] / "runs" / "demo-easyanimate.yaml"
STAGES = ("vae", "video-vae", "video-text", "video", "video-refine", "video-decoder")
TINY = [f"{stage}.{setting}" for stage in STAGES for setting in ("steps=1", "batch_size=1", "log_every=1")]
TINY += [f"{stage}.processes=1" for stage in ("video", "video-refine", "video-decoder")]
TINY += ["video.steps=2", "video.first_still_share=1", "video.last_still_share=0"]
TINY += ["default_steps=2", "default_guidance=3.5"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "video"
    assert run_training(RUN_FILE, TINY, output) == output / "model"
    return output


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {key: value for file in folder.glob("*.safetensors") for key, value in load_file(file).items()}


def test_the_model_generates(trained):
    pipeline = load_pipeline(trained / "model")
    assert isinstance(pipeline, EasyAnimatePipeline)
    pipeline.set_progress_bar_config(disable=True)
    picture = np.full((64, 64, 3), 200, np.uint8)

    video = pipeline("a red circle", keyframes={0: picture}, seed=1)

    assert video.frames.shape == (16, 64, 64, 3)
    assert pipeline.config["default_guidance"] == 3.5
    assert pipeline.transformer.motion_adapter is not None


def test_each_part_comes_from_its_stage(trained):
    parts = {"vae": "video-decoder", "transformer": "video-refine", "text_encoder": "video-refine"}
    for part, stage in parts.items():
        exported = weights(trained / stage / "exported" / part)
        shipped = weights(trained / "model" / part)
        assert shipped.keys() == exported.keys()
        assert all(torch.equal(shipped[key], exported[key].half()) for key in shipped), part


def test_later_stages_go_on_from_earlier_ones(trained):
    before, after = (weights(trained / s / "exported/transformer") for s in ("video", "video-refine"))
    assert any(not torch.equal(before[key], after[key]) for key in before)
    # one step at the rate of a first warm-up step moves nothing far
    assert max(float((before[key] - after[key]).abs().max()) for key in before) < 1e-2
    encoded, decoded = (weights(trained / s / "exported/vae") for s in ("video-vae", "video-decoder"))
    changed = {key.split(".")[0] for key in encoded if not torch.equal(encoded[key], decoded[key])}
    assert changed == {"decoder", "post_quant_conv"}


def test_a_run_may_end_with_an_earlier_stage(trained, tmp_path):
    run = yaml.safe_load(RUN_FILE.read_text())
    run["stages"] = [stage for stage in run["stages"] if stage["method"] not in ("video-refine", "video-decoder")]
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    output = shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("model", "video-refine"))

    overrides = [o for o in TINY if not o.startswith(("video-refine", "video-decoder"))]
    model = run_training(tmp_path / "run.yaml", overrides, Path(output))
    assert model is not None

    for part, stage in (("vae", "video-vae"), ("transformer", "video")):
        exported, shipped = weights(trained / stage / "exported" / part), weights(model / part)
        assert all(torch.equal(shipped[key], exported[key].half()) for key in shipped), part


def test_every_stage_has_trained(trained):
    for stage in STAGES:
        lines = [json.loads(line) for line in (trained / stage / "log.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == ([1, 2] if stage == "video" else [1])
    assert json.loads((trained / "video-vae/exported/vae/config.json").read_text())["scaling_factor"] != 1.0


def test_the_model_does_not_say_where_it_was_trained(trained):
    files = list((trained / "model").rglob("*.json"))
    assert len(files) > 4
    assert not [file for file in files if "exported" in file.read_text() or str(trained) in file.read_text()]


@pytest.mark.parametrize("stage", ["video", "video-refine", "video-decoder"])
def test_words_that_are_not_drawn_are_refused_before_anything_begins(stage, tmp_path):
    with pytest.raises(ConfigError, match="knows no 'star'"):
        run_training(RUN_FILE, [*TINY, f"{stage}.oversample={{star: 2}}"], tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", ["video", "video-refine", "video-decoder"])
def test_what_is_hard_is_drawn_more_often(method, trained):
    run = load_run(RUN_FILE, [*TINY, f"{method}.oversample={{ring: 3}}"])
    stage = next(stage for stage in run.stages if stage.method == method)

    work = stage.prepare(trained, training_data(run.data))

    assert isinstance(work.batches, ConditionedVideoBatches)
    assert Counter(work.batches.triples) == Counter(world.oversampled({"ring": 3}))


def test_a_setting_that_came_later_is_not_changed_in_silence(trained, tmp_path):
    output = shutil.copytree(trained, tmp_path / "run")
    path = Path(output) / "video" / "settings.json"
    settings = json.loads(path.read_text())
    assert settings.pop("oversample") == {}
    path.write_text(json.dumps(settings))

    run_training(RUN_FILE, TINY, Path(output))
    with pytest.raises(ConfigError, match=r"other settings \(oversample\)"):
        run_training(RUN_FILE, [*TINY, "video.oversample={ring: 2}"], Path(output))


def test_nothing_unfinished_is_left(trained):
    assert {path.name for path in trained.iterdir()} == {*STAGES, "model"}
    assert not list(trained.rglob("*.part*"))


def test_an_interrupted_run_continues_where_it_was(trained, tmp_path):
    whole = Path(shutil.copytree(trained, tmp_path / "run"))
    shutil.rmtree(whole / "video")
    seen: list[tuple[str, int]] = []

    def stop_at_first(stage: str, step: int, _: int, __: dict[str, float]) -> None:
        seen.append((stage, step))
        if len(seen) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(RUN_FILE, TINY, whole, stop_at_first)
    run_training(RUN_FILE, TINY, whole, stop_at_first)

    assert seen == [("video", 1), ("video", 2)]
    first, second = (weights(folder / "model/transformer") for folder in (trained, whole))
    assert all(torch.equal(first[key], second[key]) for key in first)
