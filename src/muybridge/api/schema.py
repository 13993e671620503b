"""What a request may say, for forms that are made from it: the schema with a sentence for every field, and presets."""

from __future__ import annotations

import ast
import inspect
import itertools
import re
import textwrap
from collections.abc import Iterator
from dataclasses import is_dataclass
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel

from muybridge.request import GenerateRequest, condition_kinds
from muybridge.request.sizes import fit_size
from muybridge.types import SettingsDict

_RATIOS = {"16:9": (9, 16), "3:2": (2, 3), "4:3": (3, 4), "1:1": (1, 1), "3:4": (4, 3), "2:3": (3, 2), "9:16": (16, 9)}
_BASES = (256, 384, 512, 768, 960)
_ENTRY = re.compile(r"^    (\w+): (.*(?:\n(?:        .*)?)*)", re.MULTILINE)


@cache
def request_schema() -> SettingsDict:
    """The JSON schema of a request, those of all kinds of conditions, and sizes to choose from."""
    schema = GenerateRequest.model_json_schema()
    _describe(schema, GenerateRequest)
    conditions = {}
    for name, kind in condition_kinds().items():
        own = kind.model_json_schema()
        if any(not each.keys() & {"type", "anyOf", "$ref"} for each in own["properties"].values()):
            continue  # it holds tensors, which no call brings
        _describe(own, kind)
        own["properties"] = {"kind": {"const": name}, **own.get("properties", {})}
        own["required"] = ["kind", *own.get("required", ())]
        conditions[name] = own
    return {"request": schema, "conditions": conditions, "presets": {"sizes": _sizes()}}


def _sizes() -> list[dict[str, Any]]:
    found = []
    for base in _BASES:
        for ratio, (height, width) in _RATIOS.items():
            rows, columns = fit_size(height, width, base)
            found.append({"ratio": ratio, "base": base, "width": columns, "height": rows})
    return found


def _describe(schema: SettingsDict, top: type[BaseModel]) -> None:
    """Put the sentences that stand below the fields of classes into a schema made of them."""
    for cls in _classes(top):
        own = schema if cls is top else schema.get("$defs", {}).get(cls.__name__)
        if own is None:
            continue
        own["description"] = inspect.cleandoc(cls.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
        sentences = _sentences(cls)
        for name, each in own.get("properties", {}).items():
            if name in sentences:
                each["description"] = sentences[name]


def _classes(cls: type) -> Iterator[type]:
    """A class and those of its fields, which may be classes with fields themselves."""
    seen: list[type] = []
    waiting: list[Any] = [cls]
    while waiting:
        each = waiting.pop()
        waiting += get_args(each)
        if not isinstance(each, type) or each in seen:
            continue
        if issubclass(each, BaseModel):
            seen.append(each)
            waiting += [field.annotation for field in each.model_fields.values()]
        elif is_dataclass(each):
            seen.append(each)
    yield from seen


def _sentences(cls: type) -> dict[str, str]:
    """What is said of each field, below it or in the text of its class; of classes above it too."""
    found: dict[str, str] = {}
    for each in reversed([base for base in cls.__mro__ if base.__module__.startswith("muybridge.")]):
        listed = inspect.cleandoc(each.__doc__ or "").partition("Attributes:\n")[2]
        found |= {match[1]: " ".join(match[2].split()) for match in _ENTRY.finditer(listed)}
        found |= dict(_below_fields(each))
    return found


def _below_fields(cls: type) -> Iterator[tuple[str, str]]:
    try:
        source = textwrap.dedent(inspect.getsource(cls))
    except (OSError, TypeError):  # a class that has no file
        return
    (definition,) = ast.parse(source).body
    body = definition.body if isinstance(definition, ast.ClassDef) else []
    for statement, following in itertools.pairwise(body):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            yield statement.target.id, " ".join(str(following.value.value).split())
