"""`muybridge convert`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from muybridge.cli.console import Json, output, print_json


def convert(
    source: Annotated[
        str, typer.Argument(help="A motion module or image model in one file, or the folder of an adapter.")
    ],
    target: Annotated[Path, typer.Argument(help="A new file or folder.")],
    to: Annotated[
        str,
        typer.Option(
            help="diffusers (the folder of a MotionAdapter, or of a pipeline), original (one file, .safetensors or "
            ".ckpt), or muybridge (a folder of this package)."
        ),
    ],
    heads: Annotated[
        int | None,
        typer.Option(help="Attention heads, which the file of a motion module does not tell; by default 8.", min=1),
    ] = None,
    motion_variant: Annotated[
        str | None, typer.Option(help="What the motion module is, where keys, shapes and name fit several.")
    ] = None,
    parts_from: Annotated[
        str | None, typer.Option(help="A folder or hub id with what a single-file image model lacks.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a motion module or an image model for another program; no bit of a weight changes."""
    from muybridge.checkpoints.convert import convert_weights
    from muybridge.checkpoints.quiet_loading import quiet_loading

    with quiet_loading():
        done = convert_weights(source, target, to, num_heads=heads, variant=motion_variant, parts_from=parts_from)
    if as_json:
        print_json({**asdict(done), "path": str(done.path)})
        return
    output.print(f"{done.path}")
    output.print(f"  {done.variant}, {done.num_tensors} weights, names of {done.layout}")
