"""From the fields of a call to the document of a request: OpenAI's and vLLM-Omni's names, and all of our own."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from muybridge.api.errors import ApiError
from muybridge.errors import ConfigError
from muybridge.request import GenerateRequest
from muybridge.request.flat import flat_names, nested, over
from muybridge.request.model_choice import DEFAULT_MODEL
from muybridge.types import SettingsDict, SettingsView

UPLOAD = re.compile(r"upload_[0-9a-f]{32}")
_SIZE = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})")
_SECONDS = re.compile(r"\d{1,5}(?:\.\d{1,3})?")
_OF_SERVER = ("device", "memory")
"""What the service decides by itself."""
_REFERENCES = ("input_reference", "image_reference", "video_reference")
_MAX_PRIORITY = 100
_USUAL_FPS = 8.0


@dataclass(frozen=True)
class Usual:
    """What a model makes where nobody says; None where that is not known yet."""

    num_frames: int | None = None
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    multiple: int = 1

    @classmethod
    def of(cls, description: SettingsView | None) -> Usual:
        """Out of what a worker told of a model."""
        known = {**(description or {}), **(description or {}).get("default", {})}
        return cls(
            known.get("num_frames"),
            known.get("width"),
            known.get("height"),
            known.get("fps"),
            known.get("frame_multiple") or 1,
        )


@dataclass(frozen=True)
class Asked:
    """What a call asks for.

    Attributes:
        document: a `GenerateRequest` in which files are uploads and models are names.
        priority: where in the queue.
        seconds: as the call says them.
    """

    document: SettingsDict
    priority: int = 0
    seconds: str | None = None


@dataclass
class _Fields:
    """The fields of a call, of which each is taken once."""

    values: SettingsDict
    document: SettingsDict = field(default_factory=dict)

    def take(self, name: str) -> Any:
        return self.values.pop(name, None)

    def give(self, name: str, value: object, given_as: str) -> None:
        if self.values.get(name) is not None:
            raise ApiError(400, f"{given_as}: says the same as {name}; give one of them.", param=given_as)
        self.values[name] = value


def asked(fields: SettingsView, keep: Callable[[str, str], tuple[str, str]], usual: Callable[[str], Usual]) -> Asked:
    """What the fields of a call ask for.

    Args:
        fields: a tree of plain values.
        keep: of the data URL of a picture or video, or the name of an upload, and the name of its field: the name of an
            upload, and its kind, "picture" or "video".
        usual: of the name of a model.

    Raises:
        ApiError: a field that there is not, or that is wrong; names it.
        ConfigError: likewise, in words of the request.
    """
    given = _Fields({name: value for name, value in fields.items() if value is not None})
    given.take("user")  # a label for the caller's own use
    _open_parts(given)
    _take_references(given, keep)
    priority = _priority(given.take("priority"))
    _take_size(given)
    seconds = given.take("seconds")
    if seconds is not None:
        seconds = _seconds(seconds)
    _require_known(given.values)
    document = over(given.document, given.values) if given.document else nested(given.values)
    if seconds is not None:
        _last(document, seconds, usual)
    return Asked(_checked_places(document), priority, seconds)


def _open_parts(given: _Fields) -> None:
    """Take the whole document where a call has one, and further fields in one."""
    document = given.take("request")
    if document is not None:
        given.document = _mapping(document, "request")
    extra = given.take("extra_params")
    for name, value in _mapping({} if extra is None else extra, "extra_params").items():
        if name in GenerateRequest.model_fields and isinstance(value, (Mapping, list)) and name != "prompt":
            if name in given.document or name in given.values:
                raise ApiError(400, f"extra_params: {name} is given twice.", param="extra_params")
            given.document[name] = value
        else:
            given.give(str(name), value, "extra_params")
    unknown = [name for name in given.document if name not in GenerateRequest.model_fields]
    if unknown:
        raise ApiError(400, f"{str(unknown[0])[:80]}: there is no such setting", param=str(unknown[0])[:80])


def _take_references(given: _Fields, keep: Callable[[str, str], tuple[str, str]]) -> None:
    """A picture is the first frame, a video what is started from."""
    for name in _REFERENCES:
        value = given.take(name)
        if value is None:
            continue
        upload, kind = keep(_reference(value, name), name)
        if kind == "video":
            given.give("init_video", upload, name)
            continue
        keyframes = given.values.setdefault("keyframes", {})
        if not isinstance(keyframes, dict) or "0" in keyframes or 0 in keyframes:
            raise ApiError(400, f"{name}: there is a first keyframe already; give one of them.", param=name)
        keyframes["0"] = upload


def _reference(value: object, name: str) -> str:
    """The data URL or the name of an upload in what a client may send for one."""
    if isinstance(value, Mapping):
        known = [key for key in ("image_url", "video_url", "file_id", "id") if key in value]
        value = value[known[0]] if len(value) == 1 and known else None
        if isinstance(value, Mapping):  # chat's way: {"image_url": {"url": ...}}
            value = value.get("url")
    if not isinstance(value, str) or not (value.startswith("data:") or UPLOAD.fullmatch(value)):
        raise ApiError(
            400, f"{name}: must be a file, the id of an upload, or a data: URL; nothing is fetched.", param=name
        )
    return value


def _take_size(given: _Fields) -> None:
    size = given.take("size")
    if size is None or size == "auto":
        return
    match = _SIZE.fullmatch(size) if isinstance(size, str) else None
    if match is None:
        raise ApiError(400, f"size: must be WIDTHxHEIGHT, as in 1280x720 (given {size!r:.80})", param="size")
    given.values["width"], given.values["height"] = int(match[1]), int(match[2])


def _seconds(value: object) -> str:
    text = (
        value
        if isinstance(value, str)
        else f"{value:g}"
        if isinstance(value, (int, float)) and not isinstance(value, bool)
        else ""
    )
    if not _SECONDS.fullmatch(text) or float(text) <= 0:
        raise ApiError(400, f"seconds: must be a number above 0 (given {value!r:.80})", param="seconds")
    return text


def _last(document: SettingsDict, seconds: str, usual: Callable[[str], Usual]) -> None:
    """So many frames as last for so long, as near as the model can."""
    shape = document.setdefault("shape", {})
    if not isinstance(shape, dict) or shape.get("num_frames") is not None:
        return  # what says frames says it better
    model = document.get("model")
    name = model.get("model", DEFAULT_MODEL) if isinstance(model, Mapping) else model or DEFAULT_MODEL
    known = usual(str(name))
    try:
        if known.fps is None:
            shape.setdefault("fps", _USUAL_FPS)  # so that it lasts as long whatever the model's own rate is
        fps = float(shape.get("fps") or known.fps or _USUAL_FPS)
        count = round(float(seconds) * fps / known.multiple) * known.multiple
    except (TypeError, ValueError, OverflowError):
        return  # of the rate the request says what is wrong
    shape["num_frames"] = max(known.multiple, count)


def _priority(value: object) -> int:
    text = str(0 if value is None else value)
    if not re.fullmatch(r"-?\d{1,4}", text) or abs(int(text)) > _MAX_PRIORITY:
        raise ApiError(
            400,
            f"priority: must be a whole number from -{_MAX_PRIORITY} to {_MAX_PRIORITY} (given {value!r:.80})",
            param="priority",
        )
    return int(text)


def _mapping(value: object, name: str) -> SettingsDict:
    if not isinstance(value, Mapping):
        raise ApiError(400, f"{name}: must be settings with names (given {value!r:.80})", param=name)
    return {str(key): each for key, each in value.items()}


def _require_known(values: SettingsView) -> None:
    from muybridge.request.condition import condition_kinds

    known = flat_names().union(*(kind.keywords for kind in condition_kinds().values()))
    for name in values:
        if name in _OF_SERVER:
            raise ApiError(400, f"{name}: is the service's to choose; leave it out", param=name)
        if name not in known:
            raise ApiError(400, f"{name[:80]}: there is no such setting", param=name[:80])


def _checked_places(document: SettingsDict) -> SettingsDict:
    """Refuses what the service decides by itself."""
    model = document.get("model")
    if isinstance(model, Mapping):
        for name in _OF_SERVER:
            if model.get(name) is not None:
                raise ApiError(400, f"model.{name}: is the service's to choose; leave it out", param=f"model.{name}")
    return document


def public_request(embedded: SettingsView) -> SettingsDict:
    """The request in what a file carries, of this version or of one before.

    Raises:
        ApiError: it is damaged.
    """
    if isinstance(embedded.get("model"), Mapping):
        found = {name: embedded[name] for name in GenerateRequest.model_fields if embedded.get(name) is not None}
    else:
        known = flat_names() - {"dtype", "device"}
        found = nested({name: value for name, value in embedded.items() if name in known})
    try:
        document = GenerateRequest.parse(found).plain()
        document["model"] = {name: value for name, value in document["model"].items() if name not in _OF_SERVER}
        return document
    except ConfigError as error:
        raise ApiError(400, f"file: carries settings that cannot be used: {error}", param="file") from error
