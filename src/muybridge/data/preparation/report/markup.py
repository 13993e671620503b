"""Pieces of the page; all text from outside goes through `safe`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from muybridge.data.record import shown


def safe(text: object, most: int | None = None) -> str:
    """Text of a file or a person, as it may stand in a page: on one line, cut to `most` letters."""
    plain = shown(" ".join(str(text).split()))
    if most is not None and len(plain) > most:
        plain = plain[: most - 1].rstrip() + "…"
    return escape(plain, quote=True)


def table(head: Sequence[str], rows: Iterable[Sequence[object]], numbers: Iterable[int] = ()) -> str:
    """A table; columns whose places are in `numbers` are of numbers."""
    right = set(numbers)

    def cells(tag: str, values: Sequence[object]) -> str:
        return "".join(
            f"<{tag}{' class=n' if place in right else ''}>{safe(value)}</{tag}>" for place, value in enumerate(values)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{cells("th", head)}</tr></thead><tbody>{body}</tbody></table></div>'


def listed(items: Iterable[str]) -> str:
    """A list of pieces that are safe already."""
    return f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>"


def section(name: str, title: str, *parts: str) -> str:
    """A part of the page, to which `#name` leads; nothing where it has nothing to show."""
    inside = "\n".join(filter(None, parts))
    return f'<section id="{name}"><h2>{escape(title)}</h2>\n{inside}\n</section>' if inside else ""


def share(part: float, whole: float) -> str:
    """A part as people write it: no share is 0 % or 100 % that is not."""
    if not whole:
        return "-"
    percent = 100 * part / whole
    if 0 < percent < 1:
        return "<1 %"
    if 99 < percent < 100:
        return ">99 %"
    return f"{percent:.0f} %"


def minutes(seconds: float) -> str:
    """A duration as people write it."""
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"


def count(number: int, one: str, several: str | None = None) -> str:
    """As `1 clip` and `1,200 clips`."""
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"
