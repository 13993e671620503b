"""`muybridge train`: from a run file to a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from muybridge.cli.console import errors, output


def train(
    run_file: Annotated[Path, typer.Argument(help="A run file, such as runs/lora.yaml.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=VALUE", help="Change a setting of the run file.")
    ] = None,
    output_folder: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where states, logs and the model go; work/NAME if not given.")
    ] = None,
    until: Annotated[
        int | None,
        typer.Option(metavar="STEP", help="Pause after this step; the same command without it goes on.", min=1),
    ] = None,
) -> None:
    """Train a model; the same command continues an interrupted run."""
    from muybridge.training.run_file import load_run

    run = load_run(run_file, settings)
    folder = output_folder or Path("work") / run.name

    from muybridge.cli.training_progress import TrainingProgress
    from muybridge.training.run import run_training

    progress = TrainingProgress(errors)
    try:
        model = run_training(run_file, settings or [], folder, progress, until)
    except KeyboardInterrupt:
        errors.print("the same command continues from here")
        raise
    finally:
        progress.close()
    if model is None:
        errors.print(f"paused at step {until}; the same command without --until continues from here")
    else:
        output.print(f"{model}")
