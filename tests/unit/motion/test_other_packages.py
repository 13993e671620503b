"""Kinds that other installed packages offer: found, broken, missing, of the same name, and of other versions."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from muybridge import __version__
from muybridge.errors import ConfigError
from muybridge.motion import (
    MotionAdapter,
    MotionSite,
    Origin,
    kind_origin,
    list_kinds,
    motion_kinds,
    motion_module_class,
)

SITE = MotionSite("blocks.0.motion_modules.0", 4)
MODULE = """
import torch
from muybridge.motion import MotionModule, register_motion_module

@register_motion_module("{kind}")
class Still(MotionModule):
    def __init__(self, config, width):
        super().__init__(config, width)
        self.gain = torch.nn.Parameter(torch.zeros(width))

    def motion(self, features, context):
        return features * self.gain
"""
Install = Callable[..., str]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a package `name` 0.2.0 that offers `kind`, in a folder of its own; its code is `source`."""

    def make(name: str, kind: str, source: str | None = None, version: str = "0.2.0") -> str:
        folder = tmp_path / name
        info = folder / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (folder / f"{name}.py").write_text(MODULE.format(kind=kind) if source is None else source)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[muybridge.motion_modules]\n{kind} = {name}:Still\n")
        monkeypatch.syspath_prepend(str(folder))
        return kind

    return make


def entry(kind: str):
    return next(each for each in list_kinds() if each.kind == kind)


def test_a_kind_is_found_and_imported_when_it_is_asked_for(install: Install) -> None:
    kind = install("mbtest_found", "test-found")
    assert kind in motion_kinds()
    assert "mbtest_found" not in sys.modules
    assert motion_module_class(kind).__name__ == "Still"
    assert kind_origin(kind) == Origin("mbtest_found", "0.2.0")
    assert str(entry(kind).origin) == "mbtest_found 0.2.0"
    assert kind_origin("temporal") == Origin("muybridge", __version__)


def test_a_class_without_decorator_is_registered_under_the_name_of_its_entry_point(install: Install) -> None:
    bare = MODULE.replace("@register_motion_module", "# ").format(kind="")
    kind = install("mbtest_bare", "test-bare", bare)
    assert motion_module_class(kind).kind == "test-bare"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import a_module_that_is_nowhere", "ModuleNotFoundError: No module named 'a_module_that_is_nowhere'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("x = (", "SyntaxError"),
        ("", "AttributeError"),
        ("Still = 5", "Only a subclass of MotionModule"),
        (MODULE.format(kind="test-other-name"), "already registered as 'test-other-name'"),
    ],
    ids=["import", "exit", "syntax", "nothing", "no class", "another name"],
)
def test_one_that_cannot_be_imported_hinders_nothing_else(
    install: Install, source: str, words: str, request: pytest.FixtureRequest
) -> None:
    name = "mbtest_broken_" + request.node.callspec.id.replace(" ", "_").partition("-")[0]
    kind = install(name, f"test-{name}", source)
    with pytest.raises(ConfigError, match=words):
        motion_module_class(kind)
    assert motion_module_class("temporal").kind == "temporal"
    listed = entry(kind)
    assert listed.module_class is None
    assert words in str(listed.error)
    assert entry("temporal").error is None


def test_the_package_is_named_when_it_cannot_be_imported(install: Install) -> None:
    kind = install("mbtest_named", "test-named", "raise ValueError('no such device')")
    with pytest.raises(ConfigError, match=r"'test-named' of mbtest_named 0.2.0 .* ValueError: no such device"):
        motion_module_class(kind)


def test_two_packages_with_one_name(install: Install) -> None:
    install("mbtest_one", "test-twice")
    install("mbtest_two", "test-twice", version="1.5")
    with pytest.raises(ConfigError, match=r"'test-twice' is offered by 2 packages: .*mbtest_") as caught:
        motion_module_class("test-twice")
    assert "mbtest_one 0.2.0" in str(caught.value)
    assert "mbtest_two 1.5" in str(caught.value)
    assert entry("test-twice").origin is None


def test_the_name_of_a_built_in_kind_cannot_be_taken(install: Install) -> None:
    install("mbtest_thief", "temporal")
    assert motion_module_class("temporal").__module__ == "muybridge.motion.temporal"
    assert f"muybridge {__version__} and mbtest_thief 0.2.0" in str(entry("temporal").error)


def test_an_adapter_says_what_to_install(install: Install, tmp_path: Path) -> None:
    kind = install("mbtest_saved", "test-saved")
    adapter = MotionAdapter.for_sites([SITE], kind)
    assert adapter.settings()["origins"] == {kind: {"package": "mbtest_saved", "version": "0.2.0"}}
    adapter.save_pretrained(tmp_path / "adapter")
    assert MotionAdapter.from_pretrained(tmp_path / "adapter").settings() == adapter.settings()
    path = tmp_path / "adapter" / "config.json"
    path.write_text(path.read_text().replace("test-saved", "test-absent").replace("mbtest_saved", "mbtest-absent"))
    with pytest.raises(ConfigError, match=r"'test-absent' of the package mbtest-absent 0.2.0.*pip install 'mbtest-ab"):
        MotionAdapter.from_pretrained(tmp_path / "adapter")


def test_an_adapter_of_a_newer_version(tmp_path: Path) -> None:
    MotionAdapter.for_sites([MotionSite(SITE.name, 32)]).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    saved = json.loads(path.read_text())
    path.write_text(json.dumps(saved | {"format_version": 99}))
    with pytest.raises(ConfigError, match=r"newer muybridge, in format 99; .* pip install --upgrade muybridge"):
        MotionAdapter.from_pretrained(tmp_path)
    origin = {"package": "muybridge", "version": "99.0"}
    saved["origins"] = {"temporal": origin}
    saved["modules_by_site"][SITE.name]["config"]["gravity"] = 9.81
    path.write_text(json.dumps(saved))
    with pytest.raises(
        ConfigError, match=r"no setting gravity.*written with other versions: 'temporal' by muybridge 99"
    ):
        MotionAdapter.from_pretrained(tmp_path)
    del saved["modules_by_site"][SITE.name]["config"]["gravity"]
    saved["origins"] = {"from-the-future": origin}
    path.write_text(json.dumps(saved))
    with pytest.raises(
        ConfigError, match=rf"muybridge 99.0, which there is not here \(muybridge {__version__} is inst"
    ):
        MotionAdapter.from_pretrained(tmp_path)


def test_a_config_without_the_new_fields_is_read(tmp_path: Path) -> None:
    adapter = MotionAdapter.for_sites([MotionSite(SITE.name, 32)])
    adapter.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    saved = json.loads(path.read_text())
    for name in ("origins", "format_version"):
        del saved[name]
    del saved["modules_by_site"][SITE.name]["context_widths"]
    path.write_text(json.dumps(saved))
    assert MotionAdapter.from_pretrained(tmp_path).settings() == adapter.settings()
