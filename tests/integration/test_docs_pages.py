"""The documentation: its code runs as it stands, one block after the other, and its commands are commands."""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
from tests.docs_pages import DOCS, PAGES, Block, blocks_of, prose_of, python_of, shell_of
from tests.docs_stand_ins import StandIns
from tests.third_family import installed

import muybridge
from muybridge import load_pipeline
from muybridge.cli.main import app, main
from muybridge.motion import registry
from muybridge.pipelines import VideoPipeline
from muybridge.pipelines.call import CallSettings
from muybridge.request import condition
from muybridge.training.run_file import load_run

# Several videos, checks or models to make; the rest takes a second.
SLOW = {
    "guide/animatediff-control.md",
    "guide/custom-motion-check.md",
    "guide/easyanimate.md",
    "guide/generate.md",
    "guide/speed-and-memory.md",
}
NOT_RUN = {"python": 5, "console": 17}
PYTHON_PAGES = [page for page in PAGES if python_of(page)]
SHELL_PAGES = [page for page in PAGES if shell_of(page)]
# What takes hours or measures hundreds of clips. Their settings are checked all the same.
LONG = ("train", "evaluate")
# Options of other programs, and one that all of ours have.
OF_OTHERS = {"--pretrained-model-path", "--help"}

# A page shows what a person would see, notes included.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with what the page of the test takes from its reader, and the place where its code runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_KINDS", dict(registry._KINDS))
    monkeypatch.setattr(condition, "_KINDS", condition.condition_kinds())
    monkeypatch.setattr(muybridge, "load_pipeline", load_for_few_steps)
    text = (DOCS / request.getfixturevalue("page")).read_text(encoding="utf-8")
    with installed(tmp_path / "site") if "pixart_frames" in text else nullcontext():
        StandIns(text, tmp_path).write()
        yield tmp_path


def load_for_few_steps(*arguments: Any, **settings: Any) -> Any:
    """A call that does not say how many steps it takes shows in one as well that it can be made."""
    pipe = load_pipeline(*arguments, **settings)
    pipe.register_to_config(default_steps=1)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def marked(page: str) -> Any:
    return pytest.param(page, marks=pytest.mark.slow) if page in SLOW else page


@pytest.mark.parametrize("page", [marked(page) for page in PYTHON_PAGES])
@pytest.mark.usefixtures("folder")
def test_the_code_of_a_page_runs(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)  # where dataclasses look for their annotations
    for block in python_of(page):
        if block.why_not is None:
            exec(compile(block.compiled_from(), str(DOCS / page), "exec"), module.__dict__)


@pytest.mark.parametrize("page", PYTHON_PAGES)
def test_code_that_cannot_run_names_what_there_is(page: str) -> None:
    known: dict[str, Any] = {}
    for block in python_of(page):
        tree = ast.parse(block.compiled_from(), str(DOCS / page))
        known |= imported(tree)
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            check_keywords(call, known)


def imported(tree: ast.AST) -> Iterator[tuple[str, Any]]:
    """What a block imports of ours, by name; fails where there is no such thing."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "muybridge":
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                yield alias.asname or alias.name, getattr(module, alias.name)


def check_keywords(call: ast.Call, known: dict[str, Any]) -> None:
    """Calls of what was imported, of its class methods and of a pipeline have no keyword that is not there."""
    target: Any = None
    if isinstance(call.func, ast.Name):
        target = known.get(call.func.id)
    elif isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name):
        owner = known.get(call.func.value.id)
        target = getattr(owner, call.func.attr) if owner is not None else None
    given = {keyword.arg for keyword in call.keywords if keyword.arg is not None}
    if isinstance(call.func, ast.Name) and call.func.id == "pipe":
        allowed = keywords_of(VideoPipeline.__call__) | set(CallSettings.__annotations__)
        assert given <= allowed, (call.lineno, given - allowed)
    elif target is not None:
        parameters = inspect.signature(target).parameters.values()
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            assert given <= keywords_of(target), (call.lineno, given - keywords_of(target))


def keywords_of(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters)


def test_how_much_is_not_run() -> None:
    left_out = [block for page in PAGES for block in blocks_of(page) if block.why_not is not None]
    found = [(block.page, block.line, block.why_not) for block in left_out]
    assert Counter(block.kind for block in left_out) == NOT_RUN, found


def test_every_block_is_seen() -> None:
    for page in PAGES:
        fences = re.findall(r"^ *```", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)
        assert len(fences) == 2 * len(blocks_of(page)), page


@pytest.mark.parametrize("page", SHELL_PAGES)
def test_the_commands_of_a_page_are_commands(page: str) -> None:
    for block in shell_of(page):
        for arguments in block.commands():
            parse(arguments, block)


def parse(arguments: list[str], block: Block) -> None:
    """Read arguments as the program does, up to where it would begin to work."""
    command: Any = typer.main.get_command(app)
    rest = list(arguments)
    while hasattr(command, "commands") and rest:
        assert rest[0] in command.commands, (block.page, block.line, rest)
        command = command.commands[rest.pop(0)]
    try:
        command.make_context(command.name, rest)
    except typer.TyperException as error:
        pytest.fail(f"{block.page}, line {block.line}: {' '.join(arguments)}: {error.format_message()}")


@pytest.mark.parametrize("page", SHELL_PAGES)
def test_the_settings_of_training_are_settings(page: str) -> None:
    for arguments in (each for block in shell_of(page) for each in block.commands() if each[0] == "train"):
        if arguments[1].startswith("--"):
            continue  # without a run file
        settings = [value for option, value in itertools.pairwise(arguments) if option == "--set"]
        assert load_run(DOCS.parent / arguments[1], settings).stages


@pytest.mark.slow
@pytest.mark.parametrize("page", SHELL_PAGES)
@pytest.mark.usefixtures("folder")
def test_the_commands_of_a_page_run(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    for block in shell_of(page):
        for arguments in block.commands():
            if block.why_not is not None or arguments[0] in LONG:
                continue
            with pytest.raises(SystemExit) as ended:
                main(shortened(arguments))
            said = capsys.readouterr().err
            found = arguments[:2] == ["debug", "anomaly"] and "Replay it with" in said
            assert ended.value.code == (2 if found else 0), (block.page, block.line, arguments, said)


def shortened(arguments: list[str]) -> list[str]:
    """A video of a single step shows as well that it can be made."""
    if arguments[0] == "debug":
        return [*arguments, "--frames", "4", "--steps", "1"]
    if arguments[0] == "generate" and not {"--steps", "--animatediff-config"} & set(arguments):
        return [*arguments, "--steps", "1"]
    return arguments


def test_the_options_that_sentences_name_are_options() -> None:
    ours = options_below(typer.main.get_command(app))
    for page in PAGES:
        for span in re.findall(r"`([^`\n]+)`", prose_of(page)):
            if span.startswith(("-", "muybridge ")):
                named = set(re.findall(r"(?:^| )(--[a-z][a-z-]*)", span))
                assert named <= ours | OF_OTHERS, (page, span, named - ours - OF_OTHERS)


def options_below(command: Any) -> set[str]:
    below = [options_below(each) for each in getattr(command, "commands", {}).values()]
    return {name for each in command.params for name in each.opts + each.secondary_opts}.union(*below)


def test_the_table_of_options_is_whole() -> None:
    text = (DOCS / "guide" / "generate.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in text[text.index("## All options") :].splitlines() if line.startswith("| `")]
    shown = {option for row in rows for option in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", row)}
    command: Any = typer.main.get_command(app)
    options = [parameter.opts + parameter.secondary_opts for parameter in command.commands["generate"].params]
    missing = [names for names in options if names[0].startswith("-") and not shown & set(names)]
    assert not missing
    assert shown <= {name for names in options for name in names}
