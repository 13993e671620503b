"""`muybridge motion`: the kinds of motion modules."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from muybridge.cli.console import Json, output, print_json

if TYPE_CHECKING:
    from muybridge.authoring.kind_sizes import KindSize

app = typer.Typer(no_args_is_help=True, help="Kinds of motion modules: those built in, and those of other packages.")


@app.callback()
def motion() -> None:
    """Kinds of motion modules: those built in, and those of other packages."""  # a callback keeps `list` a subcommand


@app.command("list")
def list_motion_kinds(as_json: Json = False) -> None:
    """Show every kind, the package it comes from, and its parameters in each backbone."""
    from muybridge.authoring.kind_sizes import full_size_backbones, kind_sizes

    found = kind_sizes()
    if as_json:
        print_json({"kinds": [_plain(each) for each in found]})
        return
    titles = [backbone.title for backbone in full_size_backbones()]
    rows = [("kind", "from", *titles), *(_row(each) for each in found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for kind, origin, *sizes in rows:
        cells = (f"{size:>{width}}" for size, width in zip(sizes, widths[2:], strict=True))
        output.print("  ".join((kind.ljust(widths[0]), origin.ljust(widths[1]), *cells)))
    for each in found:
        if each.entry.error is not None:
            output.print(f"{each.entry.kind}: {each.entry.error}")


def _row(size: KindSize) -> tuple[str, ...]:
    sizes = ("-" if count is None else f"{count / 1e6:.1f} M" for count in size.num_parameters.values())
    return (size.entry.kind, str(size.entry.origin or "several packages"), *sizes)


def _plain(size: KindSize) -> dict[str, object]:
    entry = size.entry
    return {
        "kind": entry.kind,
        "package": None if entry.origin is None else entry.origin.package,
        "version": None if entry.origin is None else entry.origin.version,
        "class": None if entry.module_class is None else entry.module_class.__qualname__,
        "num_parameters": size.num_parameters,
        "error": entry.error,
    }
