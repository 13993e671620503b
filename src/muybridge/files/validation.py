"""What pydantic finds wrong with values, in this program's words; and likewise YAML."""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Annotated, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from muybridge.files.names import nearest_name


class RepeatedKeyError(yaml.MarkedYAMLError):
    """A name stands twice beside itself, of which YAML allows one; pyyaml would take the last."""


YAML_ERRORS = (yaml.YAMLError, OSError, ValueError, RecursionError)
"""What reading and parsing YAML raises; ValueError for dates and numbers that there are not, and for broken text."""
_SHOWN = 80
_MUST_BE = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number with fewer digits",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "entries with names, as 'name: value'",
    "model_type": "settings with names, as 'name: value'",
    "dataclass_type": "settings with names, as 'name: value'",
    "model_attributes_type": "settings with names, as 'name: value'",
    "literal_error": "{expected}",
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "below {lt}",
    "less_than_equal": "at most {le}",
    "string_pattern_mismatch": "of letters, digits, '_' and '-'",
    "union_tag_invalid": "{expected_tags}",
}
"""What a value must be, by the name that pydantic has for its fault; in braces, what pydantic says with it."""
_UNKNOWN = {"extra_forbidden", "unexpected_keyword_argument"}
_QUOTED = re.compile(r"'([^']+)'")
_OTHERWISE = {
    "missing": "is missing; give it",
    "extra_forbidden": "there is no such setting",
    "unexpected_keyword_argument": "there is no such setting",
    "invalid_key": "names of settings are text",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
    "union_tag_not_found": "has no {discriminator}, which says what it is",
}


@dataclass(frozen=True)
class ReadAs:
    """In the annotation of what a function of its own reads: the type that this function checks values against."""

    schema: Callable[[], object]


@dataclass(frozen=True)
class _Finding:
    """A fault, where it is, and whether it is that of one of several types that the value might have had.

    Attributes:
        path: of the value.
        of_union: of the value that may have several types, or None.
        fault: as pydantic gives it.
        known: names that may stand beside the last of the path.
    """

    path: tuple[int | str, ...]
    of_union: tuple[int | str, ...] | None
    fault: ErrorDetails
    known: tuple[str, ...] = ()

    @property
    def nearness(self) -> int:
        """How far the value got on the way to a type: not at all, to its bounds, or to what is inside."""
        if len(self.path) > len(self.of_union or ()):
            return 2
        return 0 if self.fault["type"].endswith(("_type", "_parsing")) else 1

    @property
    def must_be(self) -> str | None:
        template = _MUST_BE.get(self.fault["type"])
        return None if template is None else template.format(**_plain(self.fault.get("ctx", {})))


def read_yaml(text: str) -> object:
    """The value of a text in YAML in which no name stands twice beside itself; raises `YAML_ERRORS`."""
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check_names(node, set())
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _check_names(node: yaml.Node, seen: set[int]) -> None:
    """Of what is written, before `<<` brings in names from elsewhere; a part that is meant again is looked at once."""
    if id(node) in seen or isinstance(node, yaml.ScalarNode):
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for name, _ in node.value:
            if not isinstance(name, yaml.ScalarNode):
                continue
            line = name.start_mark.line + 1
            if name.value in lines:
                problem = f"line {line} gives {name.value!r} again, which line {lines[name.value]} gives already"
                raise RepeatedKeyError(problem=problem, problem_mark=name.start_mark)
            lines[name.value] = line
    for inner in node.value:
        for each in inner if isinstance(inner, tuple) else (inner,):
            _check_names(each, seen)


def describe_validation(error: ValidationError, schema: type[BaseModel]) -> str:
    """What is wrong with values given for a schema, in one line: where each fault is, and what may stand there.

    Args:
        error: as pydantic raised it.
        schema: that the values were checked against.
    """
    return "; ".join(described_faults(error, schema))


def described_faults(error: ValidationError, schema: type[BaseModel]) -> list[str]:
    """The parts of what `describe_validation` says, one for each fault."""
    faults = error.errors()
    findings = [_finding(schema, fault) for fault in faults if not _is_short_of_sound_ones(fault, faults)]
    sentences = {
        _sentence(finding, alternatives): None
        for finding in findings
        if finding in (alternatives := _meant(finding, findings))
    }
    return list(sentences)


def _meant(finding: _Finding, findings: Sequence[_Finding]) -> list[_Finding]:
    """Of the faults of all types that a value might have had, those of the types that it came nearest to."""
    if finding.of_union is None:
        return [finding]
    together = [each for each in findings if each.of_union == finding.of_union]
    nearest = max(each.nearness for each in together)
    return [each for each in together if each.nearness == nearest]


def yaml_problem(error: Exception) -> str:
    """Why a file or a text is no YAML, one of `YAML_ERRORS`."""
    if isinstance(error, RepeatedKeyError):
        return str(error.problem)
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        return f"line {mark.line + 1}, column {mark.column + 1} breaks its rules"
    if isinstance(error, OSError):
        return f"{error.strerror or 'it cannot be opened'}"
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    if isinstance(error, (UnicodeDecodeError, yaml.YAMLError)):
        return "it is no text in UTF-8"
    return "it holds a date or a number that there is not"


def _sentence(finding: _Finding, alternatives: Sequence[_Finding]) -> str:
    path, kind, given = finding.path, finding.fault["type"], finding.fault["input"]
    if kind == "union_tag_invalid":
        context = _plain(finding.fault.get("ctx", {}))
        path, given = (*path, str(context["discriminator"])), context["tag"]
        alternatives = [replace(finding, path=path)]
    key = path[-1] if path and path[-1] == "[key]" else None
    where = ".".join(map(str, path[:-2] if key else path)) or "the values"
    if kind == "value_error":
        what = str(finding.fault.get("ctx", {})["error"])
    elif finding.must_be is None:
        what = _OTHERWISE.get(kind, "is not possible here").format(**_plain(finding.fault.get("ctx", {})))
        if kind in _UNKNOWN:
            what += nearest_name(str(path[-1]), finding.known, "")
    else:
        options = dict.fromkeys(each.must_be or "" for each in alternatives if each.path == path)
        what = f"{'each name ' if key else ''}must be {' or '.join(filter(None, options))}"
        if kind == "union_tag_invalid":
            what += nearest_name(str(given), _QUOTED.findall(what), "")
    shown = "" if isinstance(given, dict) or kind == "missing" else f" (given {_short(given)})"
    return f"{where}: {what}{shown}"


def _plain(context: Mapping[str, object]) -> dict[str, object]:
    """Numbers without an idle fraction, names without quotation marks."""
    plain = {name: f"{value:g}" if isinstance(value, float) else value for name, value in context.items()}
    if "discriminator" in plain:
        plain["discriminator"] = str(plain["discriminator"]).strip("'")
    if "expected_tags" in plain:
        plain["expected_tags"] = "one of " + str(plain["expected_tags"])
    return plain


def _short(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # a whole number with thousands of digits
        return "a very long number"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _finding(schema: object, fault: ErrorDetails) -> _Finding:
    """A fault where people see it: without pydantic's names for types that were tried."""
    path: list[int | str] = []
    of_union = around = None
    for part in fault["loc"]:
        schema = _as_read(schema)
        members = _members(schema)
        tag = _tag(schema)
        if len(members) > 1 and tag is None:
            of_union, schema, around = tuple(path), None, None
            continue
        around = members[0] if tag is None else None
        schema = _inside(members[0], part) if tag is None else _tagged(members, tag, part)
        path.append(part)
    return _Finding(tuple(path), of_union, fault, _names(around))


def _is_short_of_sound_ones(fault: ErrorDetails, faults: Sequence[ErrorDetails]) -> bool:
    """Whether a list is called too short only because what is in it is wrong, which is said already."""
    place = fault["loc"]
    return fault["type"] == "too_short" and any(each["loc"][:-1][: len(place)] == place for each in faults)


def _as_read(schema: object) -> object:
    for each in getattr(schema, "__metadata__", ()):
        if isinstance(each, ReadAs):
            return each.schema()
    return schema


def _members(schema: object) -> list[object]:
    """The types that a value may have, None left out."""
    if get_origin(schema) is Annotated:
        return _members(get_args(schema)[0])
    if get_origin(schema) in (Union, types.UnionType):
        return [member for member in get_args(schema) if member is not types.NoneType]
    return [schema]


def _tag(schema: object) -> str | None:
    """The name of the field that tells the members of a union apart."""
    for each in getattr(schema, "__metadata__", ()):
        if isinstance(each, FieldInfo) and isinstance(each.discriminator, str):
            return each.discriminator
    return None


def _tagged(members: Sequence[object], tag: str, name: int | str) -> object:
    return next((each for each in members if name in get_args(_inside(each, tag))), None)


def _names(schema: object) -> tuple[str, ...]:
    """Of the settings of a type, and of what else may be said in their place."""
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return (*schema.model_fields, *getattr(schema, "short_forms", ()))
    return tuple(field.name for field in fields(schema)) if isinstance(schema, type) and is_dataclass(schema) else ()


def _inside(schema: object, part: int | str) -> object:
    """The type of what `part` names in a value of a type."""
    if get_origin(schema) is Annotated:
        schema = get_args(schema)[0]
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        found = schema.model_fields.get(str(part))
        if found is None:
            return None
        read = [each for each in found.metadata if isinstance(each, ReadAs)]
        return Annotated[found.annotation, read[0]] if read else found.annotation
    if is_dataclass(schema):
        return get_type_hints(schema).get(str(part))
    arguments = get_args(schema)
    if not arguments or get_origin(schema) is Literal:
        return None
    return arguments[-1] if get_origin(schema) is dict else arguments[0]
