"""The tested versions go with every Python that the package says it runs on, its first release included."""

from __future__ import annotations

import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[2]
PINS = ROOT / "src" / "muybridge" / "constraints.txt"


def pins() -> list[Requirement]:
    lines = (line.partition("#")[0].strip() for line in PINS.read_text().splitlines())
    return [Requirement(line) for line in lines if line]


def oldest_python() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (clause,) = SpecifierSet(project["requires-python"])
    assert clause.operator == ">="
    return f"{clause.version}.0"


@pytest.mark.parametrize("pin", pins(), ids=lambda pin: pin.name)
def test_a_pin_runs_on_the_oldest_python(pin: Requirement) -> None:
    try:
        about = metadata(pin.name)
    except PackageNotFoundError:
        pytest.skip(f"{pin.name} is not installed")
    if about["Version"] not in pin.specifier:
        pytest.skip(f"{pin.name} is installed in another version")
    needed = SpecifierSet(about["Requires-Python"] or "")
    assert needed.contains(oldest_python()), f"{pin} needs Python {needed}"
