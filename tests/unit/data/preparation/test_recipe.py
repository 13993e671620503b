"""Recipes: what can be set, and everything that is wrong at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest

from muybridge.data.preparation.detectors import DETECTORS
from muybridge.data.preparation.recipe import Recipe, recipe_names
from muybridge.data.preparation.stage import Stage, StageSettings, register_stage, stage_kinds
from muybridge.data.preparation.stages.split import Split, SplitSettings
from muybridge.data.preparation.status import Outcome, Verdict
from muybridge.data.record import Record
from muybridge.errors import ConfigError


def fault(values: object, *changes: str) -> str:
    with pytest.raises(ConfigError) as caught:
        Recipe.of(values, changes)
    return str(caught.value)


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_hold(name: str) -> None:
    recipe = Recipe.load(name)
    assert recipe.stages[0].name == "probe"
    assert "write" in recipe.idle
    written = Recipe.load(name, ["write.clips=copy"])
    assert written.stages[-1].name == "write"
    again = Recipe.of({"stages": written.settings()})
    assert again.settings() == written.settings()


def test_every_stage_says_what_it_is() -> None:
    for name, kind in stage_kinds().items():
        assert kind.__doc__, name
        assert kind.thresholds <= kind.Settings.model_fields.keys(), name
        assert kind.gives or not kind.needs, name


def test_settings_are_changed_by_name(tmp_path: Path) -> None:
    recipe = Recipe.load("quick", ["split.threshold=12", "probe.min_side=64", "duplicates=off"])
    settings = {name: values for stage in recipe.settings() for name, values in stage.items()}
    assert settings["split"]["threshold"] == 12
    assert settings["probe"]["min_side"] == 64
    assert "duplicates" not in settings
    (tmp_path / "own.yaml").write_text("stages:\n  - probe: {min_side: 8}\n")
    assert Recipe.load(str(tmp_path / "own.yaml")).settings()[0]["probe"]["min_side"] == 8


def test_all_that_is_wrong_is_named_at_once() -> None:
    said = fault(
        {"stages": ["probbe", {"probe": {"min_sid": 1, "hdr": "x"}}, 3, "probe"], "stage": 1},
        *("splt.threshold=3", "split.threshold=3", "probe", "probe=on", "probe.min_side=[", "probe.min_seconds=-1"),
    )
    for part in (
        "no 'stage', only stages",
        "no stage 'probbe'; did you mean 'probe'?",
        "stage 3 must be a name",
        "probe is there twice",
        "probe has no setting 'min_sid'; did you mean 'min_side'?",
        "probe.hdr: must be true or false (given 'x')",
        "no stage 'splt'; did you mean 'split'?",
        "the recipe has no stage split; it has probe",
        "as in split.threshold=12, or STAGE=off; given 'probe'",
        "can only be set to off",
        "'[' is no value that YAML knows",
        "probe.min_seconds: must be at least 0 (given -1)",
    ):
        assert part in said


def test_the_order_is_looked_at_where_settings_are_wrong_too() -> None:
    said = fault({"stages": [{"split": {"min_second": 2}}, {"motion": {"min_speed": "x"}}, "crop", "probe"]})
    for part in ("split has no setting 'min_second'", "motion.min_speed:", "split needs duration, fps, frames first"):
        assert part in said
    assert "which motion before it uses: put probe before motion" in said


@pytest.mark.parametrize("values", [None, [], {"stages": "probe"}, {"stages": []}])
def test_what_is_no_recipe_is_refused(values: object) -> None:
    assert "must hold 'stages:'" in fault(values)


def test_orders_that_cannot_work_are_named() -> None:
    said = fault({"stages": ["split", "motion", "probe"]})
    assert "split needs duration, fps, frames first: put probe before it" in said
    said = fault({"stages": ["probe", "motion", "split"]})
    assert "split changes start, which motion before it uses: put split before motion" in said
    said = fault({"stages": ["probe", "static", "crop"]})
    assert "crop changes" in said


def test_recipes_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no recipe 'quik'; did you mean 'quick'"):
        Recipe.load("quik")
    (tmp_path / "a.yaml").write_bytes(b"stages: [")
    with pytest.raises(ConfigError, match="not a YAML file"):
        Recipe.load(str(tmp_path / "a.yaml"))


def test_stages_of_ones_own() -> None:
    class Sound(Stage):
        """Nothing."""

        Settings: ClassVar[type[StageSettings]] = StageSettings

        def run(self, record: Record, work: Path) -> list[Record]:
            return [record]

    with pytest.raises(ConfigError, match="already taken by Split"):
        register_stage("split")(Sound)
    with pytest.raises(ConfigError, match="Only a subclass of Stage"):
        register_stage("sound")(StageSettings)  # pyright: ignore[reportArgumentType, reportType]


def test_what_a_detector_lacks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scenedetect.detectors", None)
    with pytest.raises(ConfigError, match="pip install scenedetect-headless"):
        Split(SplitSettings(detector="adaptive")).load()


def test_outcomes_are_read_back() -> None:
    outcome = Outcome({"id": "a"}, "dropped", "static", "r", (Verdict("static", 0.1, 0.2, "r"),), "static")
    assert Outcome.from_json(outcome.to_json()) == outcome


@pytest.mark.slow
def test_recipes_are_read_without_torch() -> None:
    code = "import sys; from muybridge.data.preparation.recipe import Recipe; Recipe.load('quick'); " + (
        "assert not {'torch', 'cv2', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_cuts_depend_on_the_package_that_finds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = []
    for number in ("1.0", "1.1"):
        monkeypatch.setattr("muybridge.data.preparation.stages.split.version", lambda _, number=number: number)
        keys.append([Split(SplitSettings(detector=name)).key(Record("a", "a", "video")) for name in DETECTORS])
    same = [one == other for one, other in zip(*keys, strict=True)]
    assert same == [True, False, False, False]
