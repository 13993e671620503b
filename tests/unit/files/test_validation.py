"""What is wrong with settings, in this program's words."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from muybridge.errors import ConfigError
from muybridge.files.validation import _MUST_BE, _OTHERWISE, YAML_ERRORS, describe_validation, yaml_problem
from muybridge.request import GenerateRequest
from muybridge.training.run_file import TrainingRun


def described(schema: type[BaseModel], values: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        schema.model_validate(values)
    kinds = {fault["type"] for fault in caught.value.errors()}
    assert kinds <= _MUST_BE.keys() | _OTHERWISE.keys()
    found = describe_validation(caught.value, schema)
    for foreign in ("Input", "valid", "validation", "unable", "Field", "instance", "dictionary", "[key]", "list["):
        assert foreign not in found
    return found


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"prompt": 1}, "prompt: must be text or entries with names, as 'name: value' (given 1)"),
        ({"prompt": {"x": "a"}}, "prompt: each name must be a whole number (given 'x')"),
        ({"prompt": {0: 1}}, "prompt.0: must be text (given 1)"),
        ({"prompt": {}}, "prompt: must not be empty"),
        ({"shape": {"num_frames": 1.5}}, "shape.num_frames: must be a whole number (given 1.5)"),
        ({"motion": {"strength": "x"}}, "motion.strength: must be a number or a list (given 'x')"),
        ({"motion": {"strength": [1, "x"]}}, "motion.strength.1: must be a number (given 'x')"),
        ({"motion": {"strength": float("nan")}}, "motion.strength: must be a finite number (given nan)"),
        ({"sampling": {"windows": 5}}, "sampling.windows: must be settings with names, as 'name: value' (given 5)"),
        (
            {"sampling": {"windows": {"schedule": "x"}}},
            "sampling.windows.schedule: must be 'standard', 'uniform' or 'looped' (given 'x')",
        ),
        (
            {"sampling": {"windows": {"sizes": 4}}},
            "sampling.windows.sizes: there is no such setting; did you mean 'size'? (given 4)",
        ),
        ({"sampling": {"free_noise": "x"}}, "sampling.free_noise: must be true or false (given 'x')"),
        ({"conditions": "x"}, "conditions: must be a list (given 'x')"),
        ({"sampling": {"guidance_scale": 1000}}, "sampling.guidance_scale: must be below 1000 (given 1000)"),
        ({"sampling": {"eta": 2}}, "sampling.eta: must be at most 1 (given 2)"),
        (
            {"sampling": {"seed": 10**5000}},
            "sampling.seed: must be below 9223372036854775808 (given a very long number)",
        ),
        (
            {"model": {"vae": 5}, "colour": 1},
            "model.vae: must be text (given 5); colour: there is no such setting (given 1)",
        ),
    ],
)
def test_requests(values: dict[str, Any], expected: str) -> None:
    assert described(GenerateRequest, {"prompt": "a", **values}) == expected


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"kind": "edges"}, "conditions.0: kind must be one of control, image-prompt, keyframes"),
        ({"pictures": {0: "a.png"}}, "conditions.0: kind must be one of control"),
        ({"kind": "keyframes", "pictures": {"x": "a.png"}}, "pictures: each name must be a whole number (given 'x')"),
        ({"kind": "control", "model": "a"}, "frames: is missing; give it"),
        ({"kind": "control", "model": "a", "frames": "b", "colour": 1}, "colour: there is no such setting (given 1)"),
    ],
)
def test_conditions(condition: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        GenerateRequest.parse({"prompt": "a", "conditions": [condition]})
    assert expected in str(caught.value)


def test_what_is_long_is_cut() -> None:
    assert len(described(GenerateRequest, {"prompt": "a", "shape": {"num_frames": "x" * 10000}})) < 200


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ([{"method": "x"}], "stages.0.method: must be one of 'vae'"),
        ([{}], "stages.0: has no method, which says what it is"),
        ([5], "stages.0: must be settings with names"),
        ([], "stages: must not be empty"),
        ([{"method": "vae", "steps": 1, "batch_size": "x"}], "stages.0.vae.batch_size: must be a whole number"),
        (
            [{"method": "video", "steps": 1, "batch_size": 1, "oversample": {"a": 1.0}}],
            "stages.0.video.oversample.a: must be a whole number (given 1.0)",
        ),
    ],
)
def test_run_files(stages: Any, expected: str) -> None:
    assert described(TrainingRun, {"name": "a", "data": "demo-world", "stages": stages}).startswith(expected)


def test_names_in_run_files() -> None:
    found = described(TrainingRun, {"name": "a b", "data": "demo-world", "stages": [], 1: 2})
    assert "name: must be of letters, digits, '_' and '-' (given 'a b')" in found
    assert "1: names of settings are text" in found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1", "line 1, column 6 breaks its rules"),
        ("a: 2024-13-45", "it holds a date or a number that there is not"),
        ("[" * 1200, "it is nested too deep"),
        ("a: \x00", "it is no text in UTF-8"),
    ],
)
def test_yaml(text: str, expected: str) -> None:
    with pytest.raises(YAML_ERRORS) as caught:
        yaml.safe_load(text)
    assert yaml_problem(caught.value) == expected
