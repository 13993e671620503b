"""Requests by flat names: those of a pipeline's call, of the command line, and of files of earlier versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from muybridge.errors import ConfigError
from muybridge.files.validation import describe_validation
from muybridge.request.condition import (
    Condition,
    condition_kinds,
    conditions_of_call,
    conditions_of_kind,
    read_conditions,
)
from muybridge.request.model_choice import ModelChoice
from muybridge.request.request import Motion, Request, Sampling, Segments, Shape
from muybridge.types import SettingsDict, SettingsView

M = TypeVar("M", bound=BaseModel)
_RANGES = {
    "greater_than",
    "greater_than_equal",
    "less_than",
    "less_than_equal",
    "finite_number",
    "literal_error",
    "too_short",
}
"""Faults that are found again when a request is carried out, and said there in words of the call."""
_PARTS: dict[str, type[BaseModel]] = {"shape": Shape, "sampling": Sampling, "motion": Motion, "segments": Segments}
_TOP = ("prompt", "negative_prompt", "plain_prompt")
_OTHER_NAMES = {
    ("motion", "strength"): "motion_strength",
    ("segments", "frames"): "segment_frames",
    ("segments", "overlap"): "overlap_frames",
    ("segments", "strategy"): "overlap_strategy",
    ("model", "loras"): "lora",
}
_PLACES: dict[str, tuple[str, str]] = {
    _OTHER_NAMES.get((part, name), name): (part, name)
    for part, schema in (*_PARTS.items(), ("model", ModelChoice))
    for name in schema.model_fields
}
"""Where a request has what is called so."""
_NETWORKS = {
    "keyframe_control": "keyframes",
    "sketch_control": "sketches",
    "image_prompt_adapter": "image_prompt",
    "image_encoder": "image_encoder",
}
"""Networks beside a model by flat name, and their roles."""


_SAID_OF = (
    (("model",), "model", ("parts_from", "vae", "prediction")),
    (("model",), "motion_adapter", ("motion_variant",)),
    (("model", "networks"), "image_prompt_adapter", ("image_encoder",)),
)
"""What says something of another setting, and nothing when that is another."""


def request_of_call(given: SettingsView) -> Request:
    """A request out of arguments of a call; ranges are checked when it is carried out, in words of the call.

    Raises:
        ConfigError: an argument that there is not, that has no effect without another, or of another type.
    """
    parts: dict[str, SettingsDict] = {}
    top: SettingsDict = {}
    others: SettingsDict = {}
    for name, value in given.items():
        part, field = _PLACES.get(name, (None, name))
        if value is None:
            continue
        if part in _PARTS:
            parts.setdefault(part or "", {})[field] = _as_number(value)
        else:
            (top if name in _TOP else others)[name] = value
    listed = others.pop("conditions", ())
    made = {name: _of_type(_PARTS[name], values, name) for name, values in parts.items()}
    request = _of_type(Request, {**top, "conditions": tuple(listed)}, "")
    return request.model_copy(update={**made, "conditions": (*request.conditions, *conditions_of_call(others))})


def _of_type(schema: type[M], values: SettingsDict, part: str) -> M:
    """Values of the types that a schema wants; what is out of range is let through."""
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        wrong = {fault["loc"][:1] for fault in error.errors()}
        if wrong == {fault["loc"][:1] for fault in error.errors() if fault["type"] in _RANGES}:
            return schema.model_construct(**values)
        found = describe_validation(error, schema)
        raise ConfigError(f"{part}.{found}" if part else found) from error


def _as_number(value: object) -> object:
    """Numbers and rows of numbers of numpy and torch as Python's own."""
    if isinstance(value, (str, bytes)) or not hasattr(value, "tolist"):
        return [_as_number(each) for each in value] if isinstance(value, (list, tuple)) else value
    return getattr(value, "tolist")()  # noqa: B009  # of numpy or torch, of which neither is imported here


def nested(given: SettingsView) -> SettingsDict:
    """Values by flat names as a `GenerateRequest` has them; None counts as not given.

    Raises:
        ConfigError: a name that there is not, or that has no effect without another.
    """
    found: SettingsDict = {}
    others: SettingsDict = {}
    for name, value in given.items():
        if value is None:
            continue
        if name in _NETWORKS:
            networks = found.setdefault("model", {}).setdefault("networks", {})
            networks[_NETWORKS[name]] = value
        elif name in _TOP:
            found[name] = value
        elif name in _PLACES:
            part, field = _PLACES[name]
            own = found.setdefault(part, {})
            own[field] = {**own.get(field, {}), **value} if field == "networks" else value
        else:
            others[name] = value
    conditions = [each.plain() for each in conditions_of_call(others)]
    return {**found, **({"conditions": conditions} if conditions else {})}


def over(document: SettingsView, given: SettingsView) -> SettingsDict:
    """A document of `GenerateRequest` with some values changed.

    Args:
        document: plain values.
        given: by flat names. A condition is changed where there is one of its kind, and replaced where there are more.

    Raises:
        ConfigError: as `nested`; conditions in the document that are none.
    """
    words = {word for kind in condition_kinds().values() for word in kind.keywords}
    plain = nested({name: value for name, value in given.items() if name not in words})
    changes = {name: value for name, value in given.items() if name in words and value is not None}
    before = _apart(document)
    _forget(before, given)
    found = _merged(before, plain)
    conditions = read_conditions(document.get("conditions") or ())
    for kind in condition_kinds().values():
        if changes.keys() & set(kind.keywords):
            conditions = _changed(conditions, kind, changes)
    found.pop("conditions", None)
    if listed := [each.plain() for each in conditions]:
        found["conditions"] = listed
    return found


def _apart(document: SettingsView) -> SettingsDict:
    """A copy whose parts can be changed; a model that is a name alone becomes one with parts.

    Raises:
        ConfigError: a part that has no settings with names.
    """
    found: SettingsDict = {}
    for name, value in document.items():
        found[name] = value
        if name != "model" and name not in _PARTS:
            continue
        named = {"model": value} if name == "model" and isinstance(value, str) else value
        if named is not None and not isinstance(named, Mapping):
            raise ConfigError(f"{name}: must be settings with names, as 'name: value' (given {value!r:.80})")
        part: SettingsDict = dict(named or {})
        if isinstance(networks := part.get("networks"), Mapping):
            part["networks"] = dict(networks)
        found[name] = part
    return found


def _forget(document: SettingsDict, changed: SettingsView) -> None:
    """Take out of a document what says nothing any more once some values are others."""
    for part, field, names in _SAID_OF:
        own = document.get(part[0])
        place = own.get(part[1], {}) if len(part) > 1 and isinstance(own, Mapping) else own
        if field in changed and isinstance(place, dict):
            for name in names:
                place.pop(name, None)
    shape = document.get("shape")
    if isinstance(shape, dict):
        gone = ("width", "height") if "fit" in changed else ("fit",) if changed.keys() & {"width", "height"} else ()
        for name in gone:
            shape.pop(name, None)


def _merged(document: SettingsView, changes: SettingsView) -> SettingsDict:
    found = dict(document)
    for name, value in changes.items():
        own = found.get(name)
        is_part = name in _PARTS or name in ("model", "networks")
        found[name] = _merged(own, value) if is_part and isinstance(own, Mapping) else value
    return found


def _changed(conditions: Sequence[Condition], kind: type[Condition], given: SettingsView) -> list[Condition]:
    same = [each for each in conditions if each.kind == kind.kind]
    others = [each for each in conditions if each.kind != kind.kind]
    own = {name: value for name, value in given.items() if name in kind.keywords}
    first = kind.keywords[0]
    if first not in own and not same and any(own.keys() & set(each.keywords) for each in others):
        return list(conditions)  # it is about another kind, which shares the word
    before = same[0].call_values() if len(same) == 1 else {}
    return [*others, *conditions_of_kind(kind, {**given, **before, **own})]


def flat_names() -> frozenset[str]:
    """Names of all settings that are no conditions."""
    return frozenset({*_PLACES, *_TOP, *_NETWORKS})
