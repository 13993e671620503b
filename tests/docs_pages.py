"""The code and the commands in the pages of the documentation."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
_BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<why>[^\n]+) -->\n)?```(?P<kind>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """A block of a page.

    Attributes:
        page: its path below `docs`.
        line: of the page, where the code begins, from 1.
        kind: the language after the fence.
        code: what stands between the fences.
        why_not: why it is not run, of the comment before it; None if it is run.
    """

    page: str
    line: int
    kind: str
    code: str
    why_not: str | None

    def compiled_from(self) -> str:
        """The code behind as many empty lines as the page has before it, so that an error names the line."""
        return "\n" * (self.line - 1) + self.code

    def commands(self) -> list[list[str]]:
        """The arguments of every call of `muybridge` in a block of the shell; other programs are left out."""
        lines = self.code.replace("\\\n", " ").splitlines()
        has_prompts = any(line.startswith("$ ") for line in lines)
        found = []
        for line in lines:
            if has_prompts and not line.startswith("$ "):
                continue  # what a command prints
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words and words[0].split("/")[-1] == "muybridge":
                found.append(words[1:])
        return found


def blocks_of(page: str) -> list[Block]:
    """All blocks of a page, in order."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, found.start("code")) + 1, found["kind"], found["code"], found["why"])
        for found in _BLOCK.finditer(text)
    ]


def python_of(page: str) -> list[Block]:
    """The blocks in Python."""
    return [block for block in blocks_of(page) if block.kind == "python"]


def shell_of(page: str) -> list[Block]:
    """The blocks of the shell."""
    return [block for block in blocks_of(page) if block.kind in {"console", "bash", "sh", "shell"}]


def prose_of(page: str) -> str:
    """A page without its blocks."""
    return _BLOCK.sub("", (DOCS / page).read_text(encoding="utf-8"))
