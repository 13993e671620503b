"""A request together with the model that it is for: what the command line, files and videos hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BeforeValidator, ValidationError

from muybridge.errors import ConfigError
from muybridge.files.validation import describe_validation
from muybridge.request.condition import condition_kinds, plain_value
from muybridge.request.flat import flat_names, nested, over
from muybridge.request.inputs import Inputs
from muybridge.request.model_choice import ModelChoice
from muybridge.request.request import Request, has_syntax_in
from muybridge.types import SettingsDict, SettingsView

DIGESTS = "inputs"
"""Where the record of a video has the digests of the files it was made from, by path."""
_MADE = "made"


def _named_model(value: object) -> object:
    """A name alone is that of a model without anything put into it."""
    return {"model": value} if isinstance(value, str) else value


class GenerateRequest(Request):
    """Everything that decides what a video looks like; None means the model's default."""

    model: Annotated[ModelChoice, BeforeValidator(_named_model)] = ModelChoice()

    @classmethod
    def parse(cls, values: SettingsView) -> GenerateRequest:
        """Validate plain values.

        Raises:
            ConfigError: names each field that is wrong, and why; there is no prompt.
        """
        try:
            found = cls.model_validate(dict(values))
        except ValidationError as error:
            raise ConfigError(describe_validation(error, cls)) from error
        if found.prompt is None:
            raise ConfigError('prompt: is missing. Give one, as in "a red circle moving left".')
        return found

    @classmethod
    def from_flat(cls, given: SettingsView) -> GenerateRequest:
        """Of values by flat names, those of a pipeline's call and of the command line.

        Raises:
            ConfigError: as `parse`.
        """
        return cls.parse(nested(given))

    def open(self, inputs: Inputs) -> None:
        """Open the files that it names; networks must have something to be shown, or to belong to."""
        networks, kinds = self.model.networks, {each.kind for each in self.conditions}
        if "image_encoder" in networks and "image_prompt" not in networks:
            raise ConfigError("image_encoder is that of an image prompt adapter; give image_prompt_adapter too.")
        for role, kind, network in (
            ("image_prompt", "image-prompt", "image_prompt_adapter"),
            ("keyframes", "keyframes", "keyframe_control"),
            ("sketches", "sketches", "sketch_control"),
        ):
            if role in networks and kind not in kinds:
                raise ConfigError(f"{network} has no effect without {role}; give {role} too, or leave it out.")
        super().open(inputs)

    def plain(self) -> SettingsDict:
        """For a file: what differs from the defaults, and the model."""
        chosen = plain_value(self.model.model_dump(exclude_defaults=True)) or {}
        values = {name: value for name, value in super().plain().items() if name != "model"}
        return {"model": {**chosen, "model": self.model.model}, **values}


def repeated(embedded: SettingsView, changes: SettingsView | None = None) -> GenerateRequest:
    """The request a video file carries, with some values changed.

    Args:
        embedded: what the file carries, of this version or of one before.
        changes: by flat names.

    Raises:
        ConfigError: it was made from more than a prompt and settings, or is not a request.
    """
    is_nested = _MADE in embedded or isinstance(embedded.get("model"), Mapping)
    document = _document(embedded) if is_nested else nested(_of_earlier(embedded))
    changed = dict(changes or {})
    made = embedded.get(_MADE, {}) if is_nested else embedded
    _check_repeatable(made, document, changed)
    if isinstance(model := document.get("model"), Mapping):
        # In what it was made, also where it would be made in something else today.
        document["model"] = {"dtype": "float32", **model}
    values = over(document, changed)
    model = values.get("model")
    if not isinstance(model, Mapping) or model.get("model") is None:
        raise ConfigError("The file's request names no model; name it with --model.")
    if values.get("prompt") is None:
        raise ConfigError("The file's request has no prompt; give one.")
    if "plain_prompt" not in values and not is_nested:  # from when all was read as words
        kept = [document[name] for name in ("prompt", "negative_prompt") if name in document and name not in changed]
        values["plain_prompt"] = has_syntax_in(kept)
    return GenerateRequest.parse(values)


def check_inputs(inputs: Inputs, embedded: SettingsView) -> None:
    """Whether the files of a repeated request are still those that the video was made from.

    Raises:
        ConfigError: one is another now; names it. One that is missing is found when it is opened.
    """
    before = embedded.get(DIGESTS)
    if not isinstance(before, Mapping):
        return
    for file, digest in inputs.digests.items():
        if before.get(file, digest) != digest:
            raise ConfigError(
                f"{file} is not the file any more that the video was made from. Put that one in its place; to use the "
                "new one, name it under another path."
            )


def _document(embedded: SettingsView) -> SettingsDict:
    """The request in a record; its parts may be changed."""
    found = {name: embedded[name] for name in GenerateRequest.model_fields if embedded.get(name) is not None}
    if not isinstance(found.get("model", {}), Mapping):
        raise ConfigError("The file's request is damaged: its model must have settings with names.")
    copied = {name: dict(value) if isinstance(value, Mapping) else value for name, value in found.items()}
    model = copied.get("model", {})
    if isinstance(networks := model.get("networks"), Mapping):
        model["networks"] = dict(networks)
    return copied


def _of_earlier(embedded: SettingsView) -> SettingsDict:
    """Of a file from before requests had parts; it has the names of a call."""
    # What was called dtype then was what it was made in, not a wish.
    known = {*(flat_names() - {"dtype"}), *(word for kind in condition_kinds().values() for word in kind.keywords)}
    return {name: value for name, value in embedded.items() if name in known and value is not None}


def _check_repeatable(made: object, document: SettingsView, changed: SettingsView) -> None:
    if not isinstance(made, Mapping):
        raise ConfigError("The file's request is damaged: what it was made with must have names.")
    if unrecorded := made.get("unrecorded"):
        raise ConfigError(f"The file cannot be repeated: it was made with {unrecorded}, which it does not hold.")
    if made.get("interrupted"):
        raise ConfigError("The file cannot be repeated: it was interrupted, so its settings give another video.")
    model = document.get("model")
    dtype = (model.get("dtype") if isinstance(model, Mapping) else None) or "float32"
    if "dtype" not in changed and made.get("dtype", dtype) != dtype:
        raise ConfigError(
            f"The file cannot be repeated: it was made in {made['dtype']}, not in {dtype}. Name the precision with "
            f"--dtype {made['dtype']}."
        )
