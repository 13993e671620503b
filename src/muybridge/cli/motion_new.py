"""`muybridge motion new`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from muybridge.cli.console import output


def new(
    name: Annotated[str, typer.Argument(help="Of the package, as it is imported: my_motion.")],
    kind: Annotated[str | None, typer.Option("--kind", help="Of the motion module; NAME if not given.")] = None,
    folder: Annotated[
        Path | None, typer.Option("-o", "--output", help="The folder to make; NAME here if not given.")
    ] = None,
) -> None:
    """Write a package with a motion module of your own, which installs, passes its tests and trains as it is."""
    from muybridge.authoring.packages import new_motion_package

    made = new_motion_package(name, kind, folder)
    output.print(f"{made}")
    output.print(f"  pip install -e {made}")
    output.print(f"  muybridge motion check {kind or name}")
