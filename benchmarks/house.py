"""How the house stands: sizes of calls and functions, uses of Any, circles of imports, names of families outside.

    python benchmarks/house.py [SOURCE]

SOURCE is the folder of a package, by default this repository's; another checkout's can be given to compare.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src" / "muybridge"
FAMILY = re.compile(r"animate_?diff|easy_?animate", re.IGNORECASE)
ROOMS_WITHOUT_FAMILIES = ("service", "cli", "training", "runtime", "longvideo", "authoring")
_SAVED = ("ConfigMixin", "ModelMixin", "MotionHost", "VideoPipeline", "ImagePromptHost")


@dataclass(frozen=True)
class House:
    """What was counted.

    Attributes:
        call: most parameters of a function, and which.
        constructor: likewise of a constructor; of models and pipelines, which save their arguments, apart.
        function: lines of the longest function, and which.
        uses_of_any: of the type.
        circles: modules that import each other, also for type checking only.
        family_names: lines outside their folders that name a family, by room.
    """

    call: tuple[int, str]
    constructor: tuple[int, str]
    function: tuple[int, str]
    uses_of_any: int
    circles: list[list[str]]
    family_names: dict[str, int]


def measure(source: Path = SOURCE) -> House:
    """Count in the package at `source`."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(source.rglob("*.py"))}
    calls, constructors, functions, uses = [(0, "")], [(0, "")], [(0, "")], 0
    for path, tree in trees.items():
        module = _dotted(path, source)
        uses += sum(isinstance(node, ast.Name) and node.id == "Any" for node in ast.walk(tree))
        for owner, node in _functions(tree):
            name = f"{module}.{owner.name + '.' if owner is not None else ''}{node.name}"
            functions.append(((node.end_lineno or 0) - node.lineno + 1, name))
            count = _count_parameters(node)
            if node.name != "__init__":
                calls.append((count, name))
            elif not _saves_its_arguments(owner):
                constructors.append((count, name))
    return House(
        max(calls), max(constructors), max(functions), uses, _circles(trees, source), _family_names(trees, source)
    )


def _dotted(path: Path, source: Path) -> str:
    parts = path.relative_to(source.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _functions(tree: ast.Module) -> Iterator[tuple[ast.ClassDef | None, ast.FunctionDef]]:
    owners = {child: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for child in node.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            yield owners.get(node), node


def _count_parameters(node: ast.FunctionDef) -> int:
    given = node.args
    names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    own = [name for name in names if name not in ("self", "cls")]
    return len(own) + (given.vararg is not None) + (given.kwarg is not None)


def _saves_its_arguments(owner: ast.ClassDef | None) -> bool:
    return owner is not None and any(name in ast.unparse(base) for base in owner.bases for name in _SAVED)


def _circles(trees: dict[Path, ast.Module], source: Path) -> list[list[str]]:
    """Groups of modules that reach each other by imports."""
    names = {_dotted(path, source) for path in trees}
    graph = {_dotted(path, source): _imported(tree, names) for path, tree in trees.items()}
    return [sorted(group) for group in _strong_groups(graph) if len(group) > 1]


def _imported(tree: ast.Module, names: set[str]) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            own = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (own & names) or {node.module}
    return found & names


def _strong_groups(graph: dict[str, set[str]]) -> list[set[str]]:
    reached = {name: _reached(graph, name) for name in graph}
    groups: list[set[str]] = []
    for name in graph:
        if not any(name in group for group in groups):
            groups.append({other for other in reached[name] if name in reached[other]} | {name})
    return groups


def _reached(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += graph[name]
    return seen


def _family_names(trees: dict[Path, ast.Module], source: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for path in trees:
        room = path.relative_to(source).parts[0]
        if room in ROOMS_WITHOUT_FAMILIES and (count := len(lines_with_family(path))):
            found[room] = found.get(room, 0) + count
    return found


def lines_with_family(path: Path) -> set[int]:
    """Lines whose code (no comments, no docstrings) names a family; names of shipped models do not count."""
    text = path.read_text(encoding="utf-8")
    docstrings = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    found = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in (tokenize.NAME, tokenize.STRING) or token.start[0] in docstrings:
            continue
        if FAMILY.search(re.sub(r"demo[/-](animatediff|easyanimate)", "", token.string)):
            found.add(token.start[0])
    return found


def main() -> None:
    """Print the figures."""
    source = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else SOURCE
    house = measure(source)
    for what, (count, where) in (
        ("parameters of a call", house.call),
        ("parameters of a constructor", house.constructor),
        ("lines of a function", house.function),
    ):
        print(f"most {what}: {count} ({where})")
    print(f"uses of Any: {house.uses_of_any}")
    print(f"circles of imports: {len(house.circles)} {house.circles}")
    print(f"lines that name a family in {', '.join(ROOMS_WITHOUT_FAMILIES)}: {house.family_names}")


if __name__ == "__main__":
    main()
