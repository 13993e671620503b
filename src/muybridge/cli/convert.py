"""`muybridge convert`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from muybridge.cli.console import Json, output, print_json


def convert(
    source: Annotated[Path, typer.Argument(help="A motion module file, or the folder of a motion adapter.")],
    target: Annotated[Path, typer.Argument(help="A new file or folder.")],
    to: Annotated[
        str,
        typer.Option(
            help="diffusers (a MotionAdapter folder), original (one file, .safetensors or .ckpt), or muybridge (a "
            "folder of this package)."
        ),
    ],
    heads: Annotated[int, typer.Option(help="Attention heads, which a single file does not tell.", min=1)] = 8,
    as_json: Json = False,
) -> None:
    """Write a motion module for another program; no bit of a weight changes."""
    from muybridge.checkpoints.convert import convert_motion

    done = convert_motion(source, target, to, num_heads=heads)
    if as_json:
        print_json({**asdict(done), "path": str(done.path)})
        return
    output.print(f"{done.path}")
    output.print(f"  {done.variant}, {done.num_tensors} weights, names of {done.layout}")
