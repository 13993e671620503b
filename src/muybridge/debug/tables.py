"""Plain tables and numbers as text, for reports."""

from __future__ import annotations

from collections.abc import Sequence


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns side by side: the first flush left, the others flush right."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]

    def shown(line: Sequence[str]) -> str:
        cells = [cell.ljust(width) if not i else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths))]  # noqa: B905  # as long as the header
        return "  ".join(cells).rstrip()

    return "\n".join(shown(line) for line in lines)


def mebibytes(count: float) -> str:
    """Bytes as MiB."""
    return f"{count / 2**20:.2f}"
