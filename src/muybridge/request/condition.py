"""What a video must obey besides its text: values told apart by their kind, each kind one file of its own."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoints, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    SerializeAsAny,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)

from muybridge.errors import ConfigError
from muybridge.files.names import nearest_name
from muybridge.files.validation import describe_validation
from muybridge.types import SettingsDict, SettingsView, VideoShape

if TYPE_CHECKING:
    from muybridge.request.capabilities import Capabilities
    from muybridge.request.following import Followed
    from muybridge.request.inputs import Inputs

ENTRY_POINT_GROUP = "muybridge.conditions"
"""Of entry points from the name of a kind to its class: `edges = "my_package.edges:Edges"`."""
_OWN_KINDS = "muybridge.conditioning.kinds"


def _is_shown(value: object) -> object:
    """Refuses what a file may hold in place of a path."""
    if isinstance(value, list) and all(not isinstance(each, (list, Mapping)) for each in value):
        return value  # pictures of a control, one for each frame
    if value is None or isinstance(value, (bool, int, float, Mapping, list)):
        raise ValueError("must be the path of a file, or an object in memory")
    return value


def _is_in_memory(value: object) -> object:
    """Refuses what a file may hold: tensors are in none."""
    if isinstance(value, (str, bool, int, float, Mapping, list)):
        raise ValueError("is a tensor, which no file holds; give it in Python")
    return value


Shown = Annotated[Any, BeforeValidator(_is_shown), WithJsonSchema({"type": "string"})]
"""A picture, a video, a network: a path, or an object in memory."""
Fitted = tuple[int, int] | None
"""(height, width) of what the size of a video was fitted to, where it was."""
InMemory = Annotated[Any, BeforeValidator(_is_in_memory), WithJsonSchema({})]
"""A tensor; it lives in memory only, so no file can hold it."""


@dataclass(frozen=True)
class Call:
    """What a condition may look at when it is checked.

    Attributes:
        can: what the model can do.
        conditions: all of the request.
        guided: whether there is guidance.
        inputs: files of the request, opened.
    """

    can: Capabilities
    conditions: tuple[Condition, ...]
    guided: bool
    inputs: Inputs

    def has(self, kind: str) -> bool:
        """Whether there is a condition of that kind."""
        return any(each.kind == kind for each in self.conditions)


class Extent(Protocol):
    """The shape of a request, as far as a condition looks at it."""

    @property
    def num_frames(self) -> int | None:
        """Frames asked for."""
        ...


class Asked(Protocol):
    """A request, as far as a condition looks at it."""

    @property
    def shape(self) -> Extent:
        """What was asked for."""
        ...

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """All of them."""
        ...


class Condition(BaseModel):
    """Base of all kinds: a plain value, of which one file knows everything.

    A kind says which files it names (`open`), what must hold (`check`), and what networks are told (`prepare`). Its
    module must be importable without torch, so that a request can be read and shown without it. Pictures, videos and
    the like may be paths or objects in memory; only paths travel in files.

    Attributes:
        kind: its name, given by `register_condition`.
        keywords: arguments of a pipeline's call that it is made from.
        needs: what a model must be able to do for it, of `Capabilities.takes`.
        is_single: whether a request has one of this kind at most.
        of_one_call: whether it is about the frames of one call, so that a video made in segments cannot have it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    kind: ClassVar[str]
    keywords: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[frozenset[str]] = frozenset()
    is_single: ClassVar[bool] = True
    of_one_call: ClassVar[bool] = False

    @classmethod
    def from_call(cls, given: SettingsView) -> Sequence[Condition]:
        """Conditions out of the arguments of a call, which has at least one of `keywords`; none where that is right.

        Raises:
            ConfigError: an argument that has no effect without another.
        """
        return [cls(**{name: given[name] for name in cls.keywords if name in given})]

    def open(self, inputs: Inputs, request: Asked) -> None:
        """Open the files it names through `inputs`, which keeps them, and check what needs no model.

        Raises:
            InputFileError: one that is missing or cannot be read.
            ConfigError: values that cannot be, whatever the model, or that do not go with the rest of `request`.
        """

    def size_to_fit(self, inputs: Inputs) -> tuple[int, int] | None:
        """(height, width) of the picture or video whose shape a `fit` size follows; None where it has none."""
        del inputs
        return None

    def call_values(self) -> SettingsDict:
        """The arguments of a call that it is made from, those that differ from the default."""
        return self.model_dump(exclude_defaults=True, warnings=False)

    def names(self) -> list[str]:
        """What a video that cannot say how it was made names as missing."""
        return [self.keywords[0] if self.keywords else self.kind]

    def check(self, call: Call) -> None:
        """Whether the model can obey it, and whether it goes together with the rest.

        Raises:
            ConfigError: otherwise; says what to do.
        """
        call.can.require(self.needs, self.keywords[0] if self.keywords else self.kind)

    def check_shape(self, shape: VideoShape, can: Capabilities, inputs: Inputs, fitted: Fitted = None) -> None:
        """Whether it can be met in a video of a shape; `prepare` says so too, but only when everything is loaded.

        Args:
            shape: of the video.
            can: what the model can do.
            inputs: files of the request, opened.
            fitted: (height, width) of what the size of the video was fitted to, where it was.

        Raises:
            ConfigError: several values for one frame.
            ShapeError: frames or pictures that do not fit.
        """
        del shape, can, inputs, fitted

    def networks(self) -> Sequence[str]:
        """Files and folders of networks that it brings, here or on the hub, which take memory beside the model."""
        return ()

    def followed(self, inputs: Inputs) -> Sequence[Followed]:
        """Videos that the new one follows frame by frame: its length, size and rate are theirs where nobody asks."""
        del inputs
        return ()

    def noise_share(self, call: Call) -> float:
        """The share of the noise levels that is run through, above 0; 1 starts from noise alone."""
        del call
        return 1.0

    def prepare(self, parts: Any, task: Any) -> Any:
        """What networks are told: a `conditioning.prepared.Prepared`.

        Args:
            parts: the pipeline, see `conditioning.prepared.Parts`.
            task: what is made, a `conditioning.prepared.Task`.

        Raises:
            MuybridgeError: sizes or numbers of frames that do not fit.
        """
        raise NotImplementedError

    def plain(self) -> SettingsDict | None:
        """For a file: values that differ from the default, with the kind; None where something is in memory only."""
        values = plain_value(self.model_dump(exclude_defaults=True, warnings=False))
        return None if values is None else {"kind": self.kind, **values}


C = TypeVar("C", bound=Condition)
_KINDS: dict[str, type[Condition]] = {}


def register_condition(kind: str) -> Callable[[type[C]], type[C]]:
    """Class decorator that makes a condition known under the name of its kind.

    The same class defined anew takes its own place.

    Raises:
        ConfigError: another class has that name, or one of its keywords.
    """

    def register(cls: type[C]) -> type[C]:
        if not (isinstance(cls, type) and issubclass(cls, Condition)):
            raise ConfigError(f"Only a subclass of Condition can be the condition {kind!r}; given {cls!r}.")
        known = _KINDS.get(kind)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ConfigError(f"The condition {kind!r} is already taken by {known.__qualname__}; choose another name.")
        cls.kind = kind
        _KINDS[kind] = cls
        return cls

    return register


def condition_kinds() -> dict[str, type[Condition]]:
    """All kinds by name: the built-in ones, those registered, and those that installed packages offer.

    Raises:
        ConfigError: a package offers one that cannot be imported, or that is no condition.
    """
    _import_own()
    for entry in _offered(tuple(sys.path)):
        if entry.name in _KINDS:
            continue
        try:
            found = entry.load()
        except Exception as error:  # a stranger's module may do anything while it is imported
            raise ConfigError(
                f"The condition {entry.name!r} cannot be imported from {entry.value!r}: {type(error).__name__}: "
                f"{error}. Mend or uninstall its package."
            ) from error
        register_condition(entry.name)(found)
    return dict(_KINDS)


@cache
def _offered(paths: tuple[str, ...]) -> EntryPoints:
    """What installed packages offer; going through all of them takes tens of milliseconds."""
    del paths  # where they are looked for
    return entry_points(group=ENTRY_POINT_GROUP)


@cache
def _import_own() -> None:
    # They lie above this room, as they know networks; so they are found by name, like those of other packages.
    package = importlib.import_module(_OWN_KINDS)
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{_OWN_KINDS}.{module.name}")


def conditions_of_call(given: SettingsView) -> tuple[Condition, ...]:
    """Conditions out of arguments of a call by name; None counts as not given.

    Raises:
        ConfigError: an argument that no kind has, or that has no effect without another.
    """
    named = {name: value for name, value in given.items() if value is not None}
    found: list[Condition] = []
    known: set[str] = set()
    for kind in condition_kinds().values():
        known.update(kind.keywords)
        if named.keys() & set(kind.keywords):
            found += conditions_of_kind(kind, named)
    if unknown := [name for name in given if name not in known]:
        raise ConfigError(
            f"There is no argument {unknown[0]!r} of a video{nearest_name(unknown[0], known)} See the arguments of the "
            "call, or the kinds of conditions."
        )
    return tuple(found)


def conditions_of_kind(kind: type[Condition], given: SettingsView) -> Sequence[Condition]:
    """Those of one kind, out of arguments of a call. Raises ConfigError as `conditions_of_call`."""
    try:
        return kind.from_call(given)
    except ValidationError as error:
        raise ConfigError(describe_validation(error, kind)) from error


def read_conditions(values: object) -> list[Condition]:
    """Conditions out of plain values, told apart by their kind.

    Raises:
        ConfigError: values that are none.
    """
    try:
        return list(TypeAdapter(tuple[AnyCondition, ...]).validate_python(values))
    except ValidationError as error:
        raise ConfigError(f"conditions: {describe_validation(error, Condition)}") from error


def _read_condition(value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    kinds = condition_kinds()
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise ValueError(f"kind must be one of {', '.join(sorted(kinds))}, not {kind!r}")
    return kinds[kind].model_validate({name: each for name, each in value.items() if name != "kind"})


AnyCondition = Annotated[SerializeAsAny[Condition], BeforeValidator(_read_condition)]
"""A condition of any kind; from plain values told apart by `kind`."""


def plain_value(value: object) -> Any:
    """A value as JSON has it; None where part of it lives in memory only."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        items = {key: plain_value(each) for key, each in value.items()}
        return None if any(v is None and value[k] is not None for k, v in items.items()) else items
    if isinstance(value, (list, tuple)):
        found = [plain_value(each) for each in value]
        return None if any(new is None and old is not None for new, old in zip(found, value, strict=True)) else found
    return value if isinstance(value, (str, int, float, bool)) else None
