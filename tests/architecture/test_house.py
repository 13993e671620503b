"""The shape of the house, as numbers that may not grow."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "house.py"
MOST_PARAMETERS_OF_A_CALL = 12
MOST_PARAMETERS_OF_A_CONSTRUCTOR = 10
MOST_LINES_OF_A_FUNCTION = 80
MOST_USES_OF_ANY = 300


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("house", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["house"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_house_stays_in_shape(script: ModuleType) -> None:
    house = script.measure()
    assert house.call[0] <= MOST_PARAMETERS_OF_A_CALL, house.call
    assert house.constructor[0] <= MOST_PARAMETERS_OF_A_CONSTRUCTOR, house.constructor
    assert house.function[0] <= MOST_LINES_OF_A_FUNCTION, house.function
    assert house.circles == []
    assert house.uses_of_any < MOST_USES_OF_ANY
    assert house.family_names == {}  # a family is a record; rooms that use models do not know whose they are


def test_what_is_counted_is_counted(script: ModuleType, tmp_path: Path) -> None:
    """The script finds each of the faults that it looks for."""
    source = tmp_path / "package"
    (source / "cli").mkdir(parents=True)
    (source / "a.py").write_text("from package import b\nfrom typing import Any\n\ndef f(x: Any, y, *z): ...\n")
    (source / "b.py").write_text("import package.a\n\nclass C:\n    def __init__(self, x): ...\n")
    (source / "cli" / "c.py").write_text('"""Of AnimateDiff."""\nmodel = "demo/animatediff"\nEasyAnimatePipeline = 1\n')
    house = script.measure(source)
    assert house.call == (3, "package.a.f")
    assert house.constructor == (1, "package.b.C.__init__")
    assert house.uses_of_any == 1
    assert house.circles == [["package.a", "package.b"]]
    assert house.family_names == {"cli": 1}
