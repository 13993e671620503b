"""From a request as a client writes it, with ids and names, to one that the engine can carry out, with paths."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, get_args

from muybridge.errors import ConfigError, InputFileError, MuybridgeError, NotFoundError
from muybridge.jobs.catalog import Catalog
from muybridge.jobs.files import UPLOAD_ID, FileStore
from muybridge.request import Condition, GenerateRequest, Inputs, ModelChoice
from muybridge.types import SettingsDict, SettingsView

_OPERATORS = ("device", "memory")
"""What whoever runs the service decides, not who uses it."""
_ABSOLUTE = re.compile(r"(?<![\w.:/])/(?:[\w.@+~-]+/)+[\w.@+~-]*")
_NETWORK_KINDS = {"image_prompt": "image_prompts", "image_encoder": "image_prompts"}


@dataclass
class _Names:
    """What names of the outside stand for, noted as they are met."""

    catalog: Catalog
    files: FileStore
    owner: str | None
    uploads: list[str] = field(default_factory=list)
    public: dict[str, str] = field(default_factory=dict)

    def network(self, kind: str, name: str, where: str) -> str:
        try:
            place = self.catalog.place(kind, name)
        except NotFoundError as error:
            raise NotFoundError(f"{where}: {error}") from error
        self.public[place] = name
        return place

    def upload(self, name: str, where: str) -> str:
        if UPLOAD_ID.fullmatch(name) is None:
            raise ConfigError(f"{where}: must be the id of an uploaded file, as in upload_...; given {name!r:.60}.")
        if self.files.upload(name, self.owner) is None:
            raise NotFoundError(f"{where}: there is no file {name}; upload it again.")
        if name not in self.uploads:
            self.uploads.append(name)
        path = str(self.files.local_upload(name))
        self.public[path] = name
        return path


@dataclass(frozen=True)
class Resolved:
    """A request in both forms.

    Attributes:
        request: with paths of this machine.
        public: as its client wrote it.
        uploads: ids of the files in it.
        names: from paths to what the client calls them.
    """

    request: GenerateRequest
    public: GenerateRequest
    uploads: tuple[str, ...]
    names: Mapping[str, str]

    def open(self) -> Inputs:
        """Open its files.

        Raises:
            MuybridgeError: as `GenerateRequest.open`; the message has the client's names.
        """
        inputs = Inputs()
        with public_errors(self.names):
            self.request.open(inputs)
        return inputs


def check(document: SettingsView, catalog: Catalog, files: FileStore, owner: str | None) -> Resolved:
    """Whether a request can be accepted: it is valid, what it names is there and its owner's, its files can be read.

    Raises:
        MuybridgeError: otherwise; names the field, and no path of this machine.
    """
    found = resolved(document, catalog, files, owner)
    found.open()
    return found


def resolved(document: SettingsView, catalog: Catalog, files: FileStore, owner: str | None = None) -> Resolved:
    """Put paths in place of ids and names.

    Args:
        document: a document of `GenerateRequest`.
        catalog: names of networks.
        files: uploads.
        owner: whose uploads may be named; None for anybody's.

    Raises:
        ConfigError: a document that is none; a path or a URL in it; an id or a name that there is not.
    """
    public = GenerateRequest.parse(document)
    names = _Names(catalog, files, owner)
    model = _model(public.model, names)
    conditions = tuple(_condition(each, index, names) for index, each in enumerate(public.conditions))
    request = public.model_copy(update={"model": model, "conditions": conditions})
    return Resolved(request, public, tuple(names.uploads), names.public)


def _model(choice: ModelChoice, names: _Names) -> ModelChoice:
    for name in _OPERATORS:
        if getattr(choice, name) is not None:
            raise ConfigError(f"model.{name}: is not for requests to choose; leave it out.")
    changed: SettingsDict = {"model": names.network("models", choice.model, "model.model")}
    single = {"motion_adapter": "motion_adapters", "parts_from": "models", "vae": "vaes"}
    for name, kind in single.items():
        if (given := getattr(choice, name)) is not None:
            changed[name] = names.network(kind, given, f"model.{name}")
    changed["loras"] = {names.network("loras", name, "model.loras"): weight for name, weight in choice.loras.items()}
    changed["embeddings"] = {
        names.network("embeddings", name, "model.embeddings"): said for name, said in choice.embeddings.items()
    }
    changed["networks"] = {
        role: names.network(_NETWORK_KINDS.get(role, "controls"), name, "model.networks")
        for role, name in choice.networks.items()
    }
    return choice.model_copy(update=changed)


def _condition(condition: Condition, index: int, names: _Names) -> Condition:
    networks = set(condition.networks())
    changed: SettingsDict = {}
    for name, described in type(condition).model_fields.items():
        if not _may_name_files(described.annotation):
            continue
        where = f"conditions.{index}.{name}"

        def of_text(text: str, where: str = where) -> str:
            return names.network("controls", text, where) if text in networks else names.upload(text, where)

        changed[name] = _with_texts(getattr(condition, name), of_text)
    return condition.model_copy(update=changed)


def _may_name_files(annotation: Any) -> bool:
    """Whether values of a type may be anything, as those are that stand for files or objects in memory."""
    return annotation is Any or any(_may_name_files(each) for each in get_args(annotation))


def _with_texts(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _with_texts(each, change) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return type(value)(_with_texts(each, change) for each in value)  # pyright: ignore[reportCallIssue]
    return value


@contextmanager
def public_errors(names: Mapping[str, str]) -> Iterator[None]:
    """Errors of the block with the client's names in place of paths."""
    try:
        yield
    except MuybridgeError as error:
        said = public_message(str(error), names)
        if said == str(error):
            raise
        if isinstance(error, InputFileError):
            raise InputFileError(said, error.fault) from error
        raise type(error)(said) from error


def public_message(message: str, names: Mapping[str, str]) -> str:
    """A message with the client's names in place of paths, and without any other path of this machine."""
    for path in sorted(names, key=len, reverse=True):
        message = message.replace(path, names[path])
    return _ABSOLUTE.sub("a file of the service", message)
