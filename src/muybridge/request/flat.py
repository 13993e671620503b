"""Requests by flat names: those of a pipeline's call, of the command line, and of files of earlier versions."""

from __future__ import annotations

from muybridge.request.condition import conditions_of_call
from muybridge.request.model_choice import ModelChoice
from muybridge.request.request import Motion, Request, Sampling, Segments, Shape
from muybridge.types import SettingsDict, SettingsView

_PARTS = {"shape": Shape, "sampling": Sampling, "motion": Motion, "segments": Segments}
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


def request_of_call(given: SettingsView) -> Request:
    """A request out of arguments of a call; ranges are checked when it is carried out.

    Raises:
        ConfigError: an argument that there is not, or that has no effect without another.
    """
    parts: dict[str, SettingsDict] = {}
    top: SettingsDict = {}
    others: SettingsDict = {}
    for name, value in given.items():
        part, field = _PLACES.get(name, (None, name))
        if part in _PARTS:
            parts.setdefault(part or "", {})[field] = value
        else:
            (top if name in _TOP else others)[name] = value
    made = {name: _PARTS[name].model_construct(**values) for name, values in parts.items()}
    conditions = (*(others.pop("conditions", None) or ()), *conditions_of_call(others))
    return Request.model_construct(**top, **made, conditions=conditions)


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


def flattened(document: SettingsView) -> SettingsDict:
    """The other way round: a document of `GenerateRequest` by flat names.

    Raises:
        ConfigError: it is none.
    """
    request = Request.parse({name: value for name, value in document.items() if name != "model"})
    flat = {name: document[name] for name in _TOP if document.get(name) is not None}
    for name, (part, field) in _PLACES.items():
        value = (document.get(part) or {}).get(field)
        if value is not None:
            flat[name] = value
    networks = dict(flat.pop("networks", {}))
    flat |= {name: networks.pop(role) for name, role in _NETWORKS.items() if role in networks}
    if networks:
        flat["networks"] = networks
    for condition in request.conditions:
        for name, value in condition.call_values().items():
            flat[name] = [*flat[name], *value] if isinstance(value, list) and name in flat else value
    return flat


def flat_names() -> frozenset[str]:
    """Names of all settings that are no conditions."""
    return frozenset({*_PLACES, *_TOP, *_NETWORKS})
