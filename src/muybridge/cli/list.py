"""`muybridge list`: what can be chosen by name."""

from __future__ import annotations

import typer

from muybridge.cli.console import Json, output, print_json

listing = typer.Typer(no_args_is_help=True, help="Show what can be chosen by name.")


@listing.callback()
def choose() -> None:
    """Show what can be chosen by name."""


@listing.command()
def samplers(as_json: Json = False) -> None:
    """Solvers for --scheduler: name, what it is, and how many steps and how much guidance it wants."""
    from muybridge.sampling import SAMPLERS

    if as_json:
        shown = ("name", "title", "description", "steps", "guidance_scale")
        print_json({"samplers": [{field: getattr(sampler, field) for field in shown} for sampler in SAMPLERS]})
        return
    from rich.table import Table

    table = Table("name", "steps", "guidance", "what it is", box=None, pad_edge=False)
    for sampler in SAMPLERS:
        what = f"{sampler.title}. {sampler.description}"
        table.add_row(sampler.name, str(sampler.steps), f"{sampler.guidance_scale:g}", what)
    output.print(table)
