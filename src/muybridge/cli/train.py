"""`muybridge train`: from a run file to a model, and looks at runs that there are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from muybridge.cli.console import errors, output
from muybridge.errors import ConfigError, MuybridgeError, NonFiniteError, TrainingError

_LOOKS, _CLIPS = "Looks at runs", "Your own clips"
_BASE = "demo/animatediff"


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
    clips: Annotated[
        Path | None,
        typer.Option(
            help="Train on a folder of clips, with captions in text files beside them; no run file is needed.",
            rich_help_panel=_CLIPS,
        ),
    ] = None,
    base: Annotated[str, typer.Option(help="With --clips: the model to train on.", rich_help_panel=_CLIPS)] = _BASE,
    method: Annotated[
        str,
        typer.Option(
            metavar="lora|motion|motion-lora",
            help="With --clips: a LoRA, the motion modules, or a LoRA of these.",
            rich_help_panel=_CLIPS,
        ),
    ] = "lora",
    caption: Annotated[
        str | None, typer.Option(help="With --clips: of clips that have none.", rich_help_panel=_CLIPS)
    ] = None,
    trigger: Annotated[
        str | None, typer.Option(help="With --clips: a word to call them by.", rich_help_panel=_CLIPS)
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            help="With --clips: how many; by the number of clips if not given.", min=1, rich_help_panel=_CLIPS
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Stop after the report on the clips, with an estimate of the time.")
    ] = False,
    overfit: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Instead: find out in a few minutes whether the method can learn N clips.", min=1, max=16
        ),
    ] = None,
    until: Annotated[
        int | None,
        typer.Option(metavar="STEP", help="Pause after this step; the same command without it goes on.", min=1),
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
    own = {"--base": base != _BASE, "--method": method != "lora", "--caption": caption, "--trigger": trigger}
    looks = {"--watch": watched, "--compare": compared, "--report": reported}
    asked = [name for name, folder in looks.items() if folder is not None]
    if asked:
        _check_alone(asked, {"a run file": run_file, "--clips": clips, "--set": settings, "--output": output_folder})
        _look(watched, compared, reported)
        return
    if clips is None and (foreign := [name for name, given in {**own, "--steps": steps}.items() if given]):
        raise ConfigError(f"{foreign[0]} goes with --clips FOLDER; run files say it themselves.")
    if (clips is None) == (run_file is None):
        raise ConfigError(
            "Give a run file, such as runs/lora.yaml, or a folder of clips with --clips; or look at a run with --watch, "
            "--compare or --report."
        )
    if clips is not None:
        run_file, output_folder = _from_clips(clips, base, method, caption, trigger, steps, output_folder)
    if run_file is None:
        return
    if dry_run:
        _look_at_data(run_file, settings or [], output_folder)
    elif overfit is not None:
        _overfit(run_file, settings or [], overfit)
    else:
        _train(run_file, settings or [], output_folder, until)


def _from_clips(
    clips: Path,
    base: str,
    method: str,
    caption: str | None,
    trigger: str | None,
    steps: int | None,
    output_folder: Path | None,
) -> tuple[Path, Path]:
    """The run file that was written for a folder of clips, and the folder of the run."""
    from muybridge.training.newcomer import ClipsRun, clip_method, default_folder, write_run_file

    asked = ClipsRun(clips, base, clip_method(method), caption, trigger, steps)
    folder = output_folder or default_folder(clips)
    run_file, picked = write_run_file(asked, folder)
    for line in picked:
        errors.print(line)
    errors.print(f"as a run file: {run_file}")
    return run_file, folder


def _look_at_data(run_file: Path, settings: list[str], output_folder: Path | None) -> None:
    from muybridge.training.dry_run import look_at_data
    from muybridge.training.run_file import load_run

    folder = output_folder or Path("work") / load_run(run_file, settings).name
    for line in look_at_data(run_file, settings, folder):
        output.print(line, markup=False, highlight=False)


def _overfit(run_file: Path, settings: list[str], clips: int) -> None:
    from muybridge.training.dry_run import overfit_run

    def show(step: int, steps: int, loss: float) -> None:
        errors.print(f"{step}/{steps}  loss {loss:.4f}")

    verdict = overfit_run(run_file, settings, clips, show)
    output.print(f"{verdict}", markup=False, highlight=False)
    if not verdict.passed:
        raise typer.Exit(2)


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


def _train(run_file: Path, settings: list[str], output_folder: Path | None, until: int | None) -> None:
    from muybridge.training.run_file import load_run

    run = load_run(run_file, settings)
    folder = output_folder or Path("work") / run.name

    from muybridge.cli.training_progress import TrainingProgress
    from muybridge.training.run import run_training

    progress = TrainingProgress(errors)
    try:
        model = run_training(run_file, settings, folder, progress, until)
    except (KeyboardInterrupt, TrainingError, NonFiniteError) as stop:
        progress.close()
        _report(folder)
        if isinstance(stop, KeyboardInterrupt):
            errors.print("the same command continues from here")
        raise
    finally:
        progress.close()
    _report(folder)
    if model is None:
        errors.print(f"paused at step {until}; the same command without --until continues from here")
    else:
        output.print(f"{model}")


def _report(folder: Path) -> None:
    """Write the report of a run, and say where; that it cannot be written is no reason to fail."""
    from muybridge.training.monitoring.report import write_report

    try:
        errors.print(f"report: {write_report(folder)}")
    except MuybridgeError as error:
        errors.print(f"no report: {error}")
