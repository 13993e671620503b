"""A request together with the model that it is for: what the command line, files and videos hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from muybridge.errors import ConfigError
from muybridge.files.validation import describe_validation
from muybridge.request.condition import condition_kinds, plain_value
from muybridge.request.flat import flat_names, flattened, nested
from muybridge.request.inputs import Inputs
from muybridge.request.model_choice import ModelChoice
from muybridge.request.request import Request, has_syntax_in
from muybridge.types import SettingsDict, SettingsView

DIGESTS = "inputs"
"""Where the record of a video has the digests of the files it was made from, by path."""
_MADE = "made"
_SAID_OF = {
    "model": ("parts_from", "vae", "prediction"),
    "motion_adapter": ("motion_variant",),
    "image_prompt_adapter": ("image_encoder",),
}
"""What says something of another setting, and nothing when that is another."""


class GenerateRequest(Request):
    """Everything that decides what a video looks like; None means the model's default."""

    model: ModelChoice = ModelChoice()

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
    own = (embedded.get("model") or {}).get("dtype") if is_nested else None
    _check_repeatable(embedded[_MADE] if is_nested and _MADE in embedded else embedded, own or "float32")
    known = flattened(_document(embedded)) if is_nested else _of_earlier(embedded)
    changed = dict(changes or {})
    for of, names in _SAID_OF.items():
        if of in changed:
            known = {name: value for name, value in known.items() if name not in names}
    if "fit" in changed:
        known = {name: value for name, value in known.items() if name not in ("width", "height")}
    elif changed.keys() & {"width", "height"}:
        known.pop("fit", None)
    values = {**known, **changed}
    if "model" not in values:
        raise ConfigError("The file's request names no model; name it with --model.")
    if "prompt" not in values:
        raise ConfigError("The file's request has no prompt; give one.")
    if "plain_prompt" not in values and not is_nested:  # from when all was read as words
        kept = [known[name] for name in ("prompt", "negative_prompt") if name in known and name not in changed]
        values["plain_prompt"] = has_syntax_in(kept)
    return GenerateRequest.from_flat(values)


def prompt_of(embedded: SettingsView) -> Any:
    """The prompt that a video file carries, or prompts by frame; None where there is none."""
    return embedded.get("prompt")


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
    return {name: embedded[name] for name in GenerateRequest.model_fields if embedded.get(name) is not None}


def _of_earlier(embedded: SettingsView) -> SettingsDict:
    """Of a file from before requests had parts; it has the names of a call."""
    # What was called dtype then was what it was made in, not a wish.
    known = {*(flat_names() - {"dtype"}), *(word for kind in condition_kinds().values() for word in kind.keywords)}
    return {name: value for name, value in embedded.items() if name in known and value is not None}


def _check_repeatable(made: SettingsView, dtype: str) -> None:
    if unrecorded := made.get("unrecorded"):
        raise ConfigError(f"The file cannot be repeated: it was made with {unrecorded}, which it does not hold.")
    if made.get("interrupted"):
        raise ConfigError("The file cannot be repeated: it was interrupted, so its settings give another video.")
    if made.get("dtype", dtype) != dtype:
        raise ConfigError(f"The file cannot be repeated: it was made in {made['dtype']}, not in {dtype}.")
