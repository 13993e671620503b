"""Run files: whole recipes of training as YAML, checked before anything starts."""

from __future__ import annotations

import operator
from functools import reduce
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PlainValidator, TypeAdapter, ValidationError
from pydantic_core import PydanticKnownError

from muybridge.data.settings import DataSettings
from muybridge.errors import ConfigError
from muybridge.files.validation import YAML_ERRORS, ReadAs, describe_validation, read_yaml, yaml_problem
from muybridge.training.stages.registry import data_names, method_of, stage_classes
from muybridge.training.stages.stage import LastStage, PipelineStage, RunSettings, Stage
from muybridge.types import SettingsDict


def _any_stage() -> Any:
    """The stages that are registered now, told apart by their method."""
    kinds: Any = reduce(operator.or_, stage_classes())
    return Annotated[kinds, Field(discriminator="method")]


def _stage(values: object) -> Stage:
    """Values as the stage that their method names."""
    return TypeAdapter(_any_stage()).validate_python(values)


def _data(value: object) -> str | DataSettings:
    """The name of a set that is registered, or sets of people's own: a path, several, or settings with `sources`."""
    known = data_names()
    if isinstance(value, str):
        if value in known:
            return value
        if not ("/" in value or "\\" in value or value.startswith((".", "~")) or Path(value).exists()):
            expected = " or ".join([*map(repr, known), "the path of a folder of clips"])
            raise PydanticKnownError("literal_error", {"expected": expected})
    if isinstance(value, (str, list)):
        value = {"sources": value}
    if isinstance(value, dict) and isinstance(sources := value.get("sources"), (str, list)):
        listed = [sources] if isinstance(sources, str) else sources
        value = {**value, "sources": [{"path": each} if isinstance(each, str) else each for each in listed]}
    return DataSettings.model_validate(value)


class TrainingRun(RunSettings):
    """A run file: stages trained one after the other, on which clips, and the defaults of the model they make."""

    data: Annotated[str | DataSettings, PlainValidator(_data), ReadAs(lambda: DataSettings)]
    stages: list[Annotated[Stage, PlainValidator(_stage), ReadAs(_any_stage)]] = Field(min_length=1)

    @property
    def last(self) -> LastStage:
        """The stage of which the model comes."""
        return next(stage for stage in reversed(self.stages) if isinstance(stage, LastStage))


def load_run(path: Path, overrides: list[str] | None = None) -> TrainingRun:
    """Read and check a run file.

    Args:
        path: the YAML file.
        overrides: `a.b=value`, applied in order; a stage is named by its method (`motion.steps=10`). In a run of one
            stage its settings may be named alone (`steps=10`, `motion.kind=temporal`).

    Raises:
        ConfigError: no such file, not YAML, an override that names nothing, settings that do not exist, or stages that
            do not make a model together.
    """
    if not path.is_file():
        raise ConfigError(f"There is no run file {path}.")
    try:
        values = read_yaml(path.read_text(encoding="utf-8"))
    except YAML_ERRORS as error:
        raise ConfigError(f"{path} is not a YAML file: {yaml_problem(error)}.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold settings, as 'name: value' lines.")
    for override in overrides or []:
        _apply_override(values, override)
    try:
        run = TrainingRun.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path}: {describe_validation(error, TrainingRun)}") from error
    except ConfigError as error:  # settings that contradict each other
        raise ConfigError(f"{path}: {error}") from error
    _check_stages(run, path)
    return run


def _check_stages(run: TrainingRun, path: Path) -> None:
    before: list[str] = []
    for stage in run.stages:
        if stage.method in before:
            raise ConfigError(f"{path} has two stages {stage.method!r}; a run has each of them once.")
        if missing := [need for need in stage.needs if need not in before]:
            raise ConfigError(f"{path}: stage {stage.method!r} needs the stages {', '.join(missing)} before it.")
        before.append(stage.method)
    built_on = {need for stage in run.stages for need in stage.needs}
    last = [stage for stage in run.stages if isinstance(stage, LastStage) and stage.method not in built_on]
    if not last:
        raise ConfigError(f"{path} makes no video model: it has no stage {' or '.join(map(repr, _last_methods()))}.")
    if len(last) > 1:
        methods = " and ".join(stage.method for stage in last)
        raise ConfigError(f"{path} makes two models, by its stages {methods}; write a run file for each.")
    needed = _needed(run, last[0].method)
    if idle := [method for method in before if method not in needed]:
        raise ConfigError(
            f"{path}: nothing comes of the stages {', '.join(idle)}, as {last[0].method!r} does not need them."
        )
    if "model_dtype" in run.model_fields_set and not isinstance(last[0], PipelineStage):
        raise ConfigError(f"{path} makes {last[0].product}, and model_dtype is of a model's folder; leave it out.")
    if not last[0].has_defaults and (given := run.given_defaults):
        raise ConfigError(
            f"{path} makes {last[0].product}, which has no {' and no '.join(given)} of its own; leave them out."
        )


def _last_methods() -> list[str]:
    return [method_of(cls) for cls in stage_classes() if issubclass(cls, LastStage)]


def _needed(run: TrainingRun, method: str) -> set[str]:
    stage = next(stage for stage in run.stages if stage.method == method)
    return {method}.union(*(_needed(run, need) for need in stage.needs))


def _own_data(values: SettingsDict, override: str) -> SettingsDict:
    """The `data` block of a run file, as settings by name, in the place of a path or a list of them."""
    data = values.get("data")
    if isinstance(data, str) and data in data_names():
        raise ConfigError(f"--set {override!r}: {data} has no settings; those of data are for clips of one's own.")
    if not isinstance(data, dict):
        values["data"] = {"sources": data}
    return values["data"]


def _apply_override(values: SettingsDict, override: str) -> None:
    name, separator, text = override.partition("=")
    *path, last = name.split(".")
    if not separator or not all((*path, last)):
        raise ConfigError(f"--set takes NAME=VALUE, as in motion.steps=10; given {override!r}.")
    try:
        value = read_yaml(text)
    except YAML_ERRORS as error:
        raise ConfigError(f"--set {override!r}: {text!r} is not a value that YAML knows.") from error
    found = values.get("stages")
    stages = {str(s.get("method")): s for s in found if isinstance(s, dict)} if isinstance(found, list) else {}
    target: Any = values
    if path and path[0] == "data":
        target, path = _own_data(values, override), path[1:]
    elif path and path[0] in stages:
        target, path = stages[path[0]], path[1:]
    elif len(stages) == 1 and name.split(".")[0] not in TrainingRun.model_fields:
        (target,) = stages.values()
    elif path:
        target = None  # outside the stages there are only plain values
    for part in path:
        target = target.setdefault(part, {}) if isinstance(target, dict) else None
    if not isinstance(target, dict):
        raise ConfigError(f"--set {override!r} names nothing in the run file. Stages: {', '.join(stages)}.")
    target[last] = value
