"""Run files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from muybridge.demo.stages.image import MotionStage
from muybridge.errors import ConfigError
from muybridge.training.run_file import load_run


def stage(method: Any, **settings: Any) -> dict[str, Any]:
    return {"method": method, "steps": 2, "batch_size": 1, **settings}


def run_values(**changes: Any) -> dict[str, Any]:
    stages = [stage("vae"), stage("text"), stage("image"), stage("motion")]
    return {"name": "tiny", "data": "demo-world", "stages": stages, **changes}


def video_stages() -> list[dict[str, Any]]:
    return [stage(method) for method in ("vae", "video-vae", "video-text", "video")]


def written(folder: Path, values: Any) -> Path:
    path = folder / "run.yaml"
    path.write_text(values if isinstance(values, str) else yaml.safe_dump(values))
    return path


def test_a_run_file_is_read(tmp_path):
    run = load_run(written(tmp_path, run_values(default_steps=7)))

    assert [each.method for each in run.stages] == ["vae", "text", "image", "motion"]
    assert run.default_steps == 7


def test_a_stage_with_a_hyphen_can_be_overridden(tmp_path):
    run = load_run(written(tmp_path, run_values(stages=video_stages())), ["video-vae.steps=7", "video.steps=9"])

    assert [each.steps for each in run.stages] == [2, 7, 2, 9]


def test_overrides_are_applied_in_order(tmp_path):
    path = written(tmp_path, run_values())

    run = load_run(path, ["vae.steps=5", "vae.steps=6", "motion.motion.config.num_heads=4", "name=other"])

    motion = run.stages[3]
    assert isinstance(motion, MotionStage)
    assert run.stages[0].steps == 6
    assert motion.motion.config == {"num_heads": 4}
    assert motion.steps == 2
    assert run.name == "other"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("nonsense", "NAME=VALUE"),
        ("=3", "NAME=VALUE"),
        ("vae.=3", "NAME=VALUE"),
        (".=3", "NAME=VALUE"),
        ("vae.steps=[1", "not a value"),
        ("nothing.steps=1", "names nothing.*vae, text, image, motion"),
        ("name.first=x", "names nothing"),
        ("vae.steps.more=1", "names nothing"),
        ("stages.0.steps=1", "names nothing"),
        ("vae.stepps=1", "stepps: there is no such setting"),
        ("vae.steps=0", "vae.steps"),
        ("vae.steps=many", "vae.steps"),
        ("vae.timestep_shift=2", "timestep_shift: there is no such setting"),
        ("colour=red", "colour: there is no such setting"),
        ("motion.motion.colour=red", "colour: there is no such setting"),
    ],
)
def test_overrides_that_mean_nothing_are_refused(tmp_path, override, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_run(written(tmp_path, run_values()), [override])

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("just text", "must hold settings"),
        ("a: [1", "not a YAML file"),
        ("1: 2", "name"),
        ("- 1", "must hold settings"),
        ("", "must hold settings"),
        (run_values(colour="red"), "colour: there is no such setting"),
        (run_values(data="other"), "data"),
        (run_values(name="../up"), "name"),
        (run_values(stages=[]), "stages"),
        (run_values(stages=None), "stages"),
        (run_values(stages=3), "stages"),
        (run_values(stages=[3]), "stages"),
        (run_values(stages=[stage("dream")]), "dream"),
        (run_values(stages=[stage(["vae"])]), "stages"),
        (run_values(stages=[{"steps": 1}]), "method"),
        (run_values(stages=[stage("vae", colour="red")]), "colour: there is no such setting"),
        (run_values(stages=[stage("vae"), stage("image")]), "'image' needs the stages text before"),
        (run_values(stages=[stage("motion")]), "needs the stages vae, image"),
        (run_values(stages=[stage("vae"), stage("vae")]), "two stages 'vae'"),
        (run_values(stages=[stage("vae")]), "no stage 'motion' or 'video'"),
        (run_values(stages=video_stages()[:-1]), "no stage 'motion' or 'video'"),
        (run_values(stages=video_stages()[1:]), "'video-vae' needs the stages vae before"),
        (run_values(stages=[stage("video")]), "'video' needs the stages video-vae, video-text before"),
        (run_values(stages=[*video_stages(), stage("text")]), "nothing comes of the stages text"),
        (
            run_values(stages=[*video_stages(), stage("text"), stage("image"), stage("motion")]),
            "two models, by its stages video and motion",
        ),
    ],
)
def test_wrong_run_files_are_refused(tmp_path, values, message):
    path = written(tmp_path, values)

    with pytest.raises(ConfigError, match=message) as caught:
        load_run(path, ["name=x"] if isinstance(values, dict) and values["name"] == "tiny" else None)

    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"sources": "clips", "fsp": 8}}, "data.fsp: there is no such setting; did you mean 'fps'? (given 8)"),
        (
            {"data": {"sources": "clips", "sizes": [64, 64], "crop": "center"}},
            "data.crop: must be 'centre' or 'random' (given 'center'); data.sizes: there is no such setting; did you "
            "mean 'size'? (given [64, 64])",
        ),
        (
            {"data": [{"path": "clips", "wieght": 2}]},
            "data.sources.0.wieght: there is no such setting; did you mean 'weight'? (given 2)",
        ),
        ({"data": {"sources": "clips", "prior": {"share": 2}}}, "data.prior.share: must be below 1 (given 2)"),
        (
            {"stages": [stage("vae", bacth_size=2)]},
            "stages.0.vae.bacth_size: there is no such setting; did you mean 'batch_size'? (given 2)",
        ),
        (
            {"stages": [stage("lora", warmup_step=2, optimizer={"weigth_decay": 0})]},
            "stages.0.lora.optimizer.weigth_decay: there is no such setting; did you mean 'weight_decay'? (given 0); "
            "stages.0.lora.warmup_step: there is no such setting; did you mean 'warmup_steps'? (given 2)",
        ),
        ({"default_step": 3}, "default_step: there is no such setting; did you mean 'default_steps'? (given 3)"),
    ],
)
def test_unknown_settings_are_named_with_the_nearest_that_there_is(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = written(tmp_path, run_values(**changes))
    with pytest.raises(ConfigError) as caught:
        load_run(path)
    assert str(caught.value) == f"{path}: {message}"


def test_contradictions_are_said_together_with_everything_else_that_is_wrong(tmp_path: Path) -> None:
    stages = [
        stage("lora", sharding="fsdp2", timestep_shift=2.0, objective={}, bacth_size=2),
        stage("motion-adapter", start="own", motion={"kind": "temporal"}, warmup_steps=2, schedule={"warmup_steps": 3}),
        stage("distil", guidance=[0.5, 2.0], timestep_shift=2.0, objective={}),
        stage("motion-lora", camera_extent=[0.1, 0.2], optimizer={"name": "adamw", "momentum": 0.5}),
        stage("autoencoder", loss={"adversarial": {"start": 5}}),
    ]
    data = {"sources": "clips", "area": 4096, "size": [64, 64], "num_frames": [0], "fsp": 3}
    with pytest.raises(ConfigError) as caught:
        load_run(written(tmp_path, run_values(stages=stages, data=data, colour="red")))
    for said in (
        "data.size: give area or size, not both",
        "data.num_frames: num_frames are from 1 on",
        "data.fsp: there is no such setting",
        "stages.0.lora.sharding: sharding: fsdp2 shares out between processes",
        "stages.0.lora.timestep_shift: timestep_shift and objective both say",
        "stages.0.lora.bacth_size: there is no such setting",
        "stages.1.motion-adapter.motion: motion is of fresh modules, and these begin as 'own'",
        "stages.1.motion-adapter.schedule: warmup_steps is given twice",
        "stages.2.distil.guidance: guidance is two scales of at least 1",
        "stages.2.distil.objective: a model is distilled against itself, at noise levels of its solver",
        "stages.2.distil.timestep_shift: a model is distilled",
        "stages.3.motion-lora.camera_extent: camera_extent is of a camera move",
        "stages.3.motion-lora.optimizer: momentum is muon's",
        "stages.4.autoencoder.loss: loss.adversarial.start is 5, and there are 2 steps",
        "colour: there is no such setting",
    ):
        assert said in str(caught.value)


def test_a_name_that_stands_twice_is_refused(tmp_path: Path) -> None:
    text = "name: x\ndata: demo-world\nstages:\n- method: lora\n  steps: 5\n  batch_size: 1\n  steps: 6\n"
    with pytest.raises(ConfigError, match="line 7 gives 'steps' again, which line 5 gives already"):
        load_run(written(tmp_path, text))
    with pytest.raises(ConfigError, match="not a value"):
        load_run(written(tmp_path, run_values()), ["motion.motion={kind: temporal, kind: temporal}"])
    merged = "usual: &usual\n  steps: 5\n  batch_size: 1\nstages:\n- {<<: *usual, method: lora, steps: 6}\n"
    with pytest.raises(ConfigError, match="usual: there is no such setting") as caught:
        load_run(written(tmp_path, f"name: x\ndata: demo-world\n{merged}"))
    assert "again" not in str(caught.value)


def test_a_method_that_is_not_known_is_named_with_the_nearest_that_there_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"stages\.0\.method: must be .*; did you mean 'lora'\? \(given 'lroa'"):
        load_run(written(tmp_path, run_values(stages=[stage("lroa")])))


@pytest.mark.parametrize("stages", [None, 3, [3], [stage(["vae"])]])
def test_overrides_on_a_wrong_run_file_are_refused(tmp_path, stages):
    with pytest.raises(ConfigError):
        load_run(written(tmp_path, run_values(stages=stages)), ["vae.steps=1"])


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ConfigError, match="no run file"):
            load_run(path)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_bytes(b"\xff\xfe\x00\x81")

    with pytest.raises(ConfigError, match="not a YAML file"):
        load_run(path)


@pytest.mark.parametrize("change", ["motion.timestep_shift=.inf", "vae.learning_rate=.nan", "default_guidance=.inf"])
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, change: str):
    with pytest.raises(ConfigError, match="finite"):
        load_run(written(tmp_path, run_values()), [change])


def test_settings_of_the_clips_are_set_by_name(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    stage = {"method": "lora", "steps": 1, "batch_size": 1}
    path.write_text(yaml.safe_dump({"name": "x", "data": str(tmp_path), "stages": [stage]}))
    data = load_run(path, ["data.fps=4", "data.held_out=0.2"]).data
    assert (data.fps, data.held_out, data.sources[0].path) == (4, 0.2, str(tmp_path))  # type: ignore[union-attr]
    path.write_text(yaml.safe_dump({"name": "x", "data": "demo-world", "stages": [stage]}))
    with pytest.raises(ConfigError, match="demo-world has no settings"):
        load_run(path, ["data.fps=4"])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("sharding=fsdp2", "one would have all of"),
        ("sharding=deepspeed", "one would have all of"),
        ("timestep_shift=2.0", "timestep_shift and objective both say"),
    ],
)
def test_what_contradicts_itself_is_said_of_its_file(tmp_path: Path, setting: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: x\ndata: demo-world\n"
        "stages:\n- {method: lora, steps: 1, batch_size: 1, objective: {timesteps: uniform}}\n"
    )
    with pytest.raises(ConfigError, match=rf"mine\.yaml: .*{re.escape(message)}"):
        load_run(path, [setting])
    assert load_run(path, ["sharding=fsdp2", "processes=2"]).stages[0].sharding == "fsdp2"
