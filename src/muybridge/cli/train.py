"""`muybridge train`: from a run file to a model, and looks at runs that there are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from muybridge.cli.console import errors, output
from muybridge.errors import ConfigError, MuybridgeError, NonFiniteError, TrainingError

_LOOKS = "Looks at runs"


def train(
    run_file: Annotated[
        Path | None, typer.Argument(help="A run file, such as runs/lora.yaml.", show_default=False)
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=VALUE", help="Change a setting of the run file.")
    ] = None,
    output_folder: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where states, logs and the model go; work/NAME if not given.")
    ] = None,
    watched: Annotated[
        Path | None,
        typer.Option("--watch", metavar="FOLDER", help="Show how a run goes until Ctrl-C.", rich_help_panel=_LOOKS),
    ] = None,
    compared: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--compare", metavar="RUN_A RUN_B", help="Settings that differ, and losses.", rich_help_panel=_LOOKS
        ),
    ] = None,
    reported: Annotated[
        Path | None,
        typer.Option(
            "--report", metavar="FOLDER", help="Write report.html of a run, as each run does.", rich_help_panel=_LOOKS
        ),
    ] = None,
) -> None:
    """Train a model; the same command continues an interrupted run."""
    looks = {"--watch": watched, "--compare": compared, "--report": reported}
    asked = [name for name, folder in looks.items() if folder is not None]
    if asked:
        _check_alone(asked, {"a run file": run_file, "--set": settings, "--output": output_folder})
        _look(watched, compared, reported)
    elif run_file is None:
        raise ConfigError(
            "Missing argument run_file: give one, such as runs/lora.yaml, or look at a run with --watch, --compare or "
            "--report."
        )
    else:
        _train(run_file, settings or [], output_folder)


def _check_alone(asked: list[str], others: dict[str, object]) -> None:
    given = [name for name, value in others.items() if value]
    if len(asked) + len(given) > 1:
        raise ConfigError(f"{asked[0]} looks at a run that there is; leave out {', '.join((*asked[1:], *given))}.")


def _look(watched: Path | None, compared: tuple[Path, Path] | None, reported: Path | None) -> None:
    if watched is not None:
        from muybridge.cli.training_looks import watch

        watch(watched, output)
    elif compared is not None:
        from muybridge.cli.training_looks import show_comparison
        from muybridge.training.monitoring.comparison import compare_runs

        show_comparison(compare_runs(*compared), *compared, output)
    elif reported is not None:
        from muybridge.training.monitoring.report import write_report

        output.print(f"{write_report(reported)}")


def _train(run_file: Path, settings: list[str], output_folder: Path | None) -> None:
    from muybridge.training.run_file import load_run

    run = load_run(run_file, settings)
    folder = output_folder or Path("work") / run.name

    from muybridge.cli.training_progress import TrainingProgress
    from muybridge.training.run import run_training

    progress = TrainingProgress(errors)
    before = _lengths_of_logs(folder)
    try:
        model = run_training(run_file, settings, folder, progress)
    except (KeyboardInterrupt, TrainingError, NonFiniteError) as stop:
        progress.close()
        _report(folder, before)
        if isinstance(stop, KeyboardInterrupt):
            errors.print("the same command continues from here")
        raise
    finally:
        progress.close()
    _report(folder, before)
    output.print(f"{model}")


def _report(folder: Path, before: dict[Path, int]) -> None:
    """Write the report of a run if it went on, and say where; that it cannot be written is no reason to fail."""
    from muybridge.training.monitoring.report import write_report

    if _lengths_of_logs(folder) == before:
        return
    try:
        errors.print(f"report: {write_report(folder)}")
    except MuybridgeError as error:
        errors.print(f"no report: {error}")


def _lengths_of_logs(folder: Path) -> dict[Path, int]:
    from muybridge.training.monitoring.record import LOG_FILE

    return {path: path.stat().st_size for path in folder.glob(f"*/{LOG_FILE}")}
