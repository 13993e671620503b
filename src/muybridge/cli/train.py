"""`muybridge train`: from a run file to a model, and looks at runs that there are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from muybridge.cli.console import errors, output
from muybridge.cli.flags import Flag, plain_flags, with_flags
from muybridge.errors import ConfigError, MuybridgeError, NonFiniteError, TrainingError
from muybridge.types import SettingsDict

_LOOKS, _CLIPS = "Looks at runs", "Your own clips"
_FLAGS = (
    Flag(
        "clips",
        "clips",
        Path,
        "Train on a folder of clips, with captions in text files beside them; no run file is needed.",
        "FOLDER",
        _CLIPS,
    ),
    Flag("base", "base", str, "The model to train on; a shipped one if not given.", None, _CLIPS),
    Flag(
        "method",
        "method",
        str,
        "A LoRA (the default), the motion modules, or a LoRA of these.",
        "lora|motion|motion-lora",
        _CLIPS,
    ),
    Flag("caption", "caption", str, "Of clips that have none.", None, _CLIPS),
    Flag("trigger", "trigger", str, "A word to call them by.", None, _CLIPS),
    Flag("steps", "steps", int, "How many; by the number of clips if not given.", None, _CLIPS, least=1),
    Flag(
        "prior",
        "prior",
        str,
        "What is to stay as it is: what the model can do (the default for a LoRA of a demo), prompts, or clips.",
        "model|PROMPTS.txt|FOLDER|off",
        _CLIPS,
    ),
    Flag("dry-run", "dry_run", bool, "Stop after the report on the clips, with an estimate of the time."),
    Flag("overfit", "overfit", int, "Only find out whether the method can learn so many clips.", "N", least=1),
    Flag("until", "until", int, "Pause after this step; the same command without it goes on.", "STEP", least=1),
)


@with_flags(_FLAGS)
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
    **given: Any,
) -> None:
    """Train a model; the same command continues an interrupted run."""
    asked = plain_flags(given)
    looks = {"--watch": watched, "--compare": compared, "--report": reported}
    if names := [name for name, folder in looks.items() if folder is not None]:
        flags = {f"--{flag.option}": asked.get(flag.name) for flag in _FLAGS}
        _check_alone(names, {"a run file": run_file, "--set": settings, "--output": output_folder, **flags})
        _look(watched, compared, reported)
        return
    if len(only := [name for name in ("dry_run", "overfit", "until") if name in asked]) > 1:
        raise ConfigError(f"--{only[0].replace('_', '-')} and --{only[1]} do different things; give one of them.")
    run_file, folder = _run_file(run_file, asked, output_folder)
    if asked.get("dry_run"):
        _look_at_data(run_file, settings or [], folder)
    elif "overfit" in asked:
        _overfit(run_file, settings or [], asked["overfit"])
    else:
        _train(run_file, settings or [], folder, asked.get("until"))


def _run_file(run_file: Path | None, asked: SettingsDict, output_folder: Path | None) -> tuple[Path, Path | None]:
    """The run file that was given, or the one that is written for a folder of clips; and the folder of the run."""
    clips = asked.get("clips")
    about_clips = [flag.option for flag in _FLAGS if flag.panel == _CLIPS and flag.name in asked]
    if run_file is not None:
        if about_clips:
            raise ConfigError(f"--{about_clips[0]} is for training without a run file; {run_file} says it itself.")
        return run_file, output_folder
    if clips is None:
        if about_clips:
            raise ConfigError(f"--{about_clips[0]} goes with --clips FOLDER; give the folder of the clips.")
        raise ConfigError(
            "Missing argument run_file: give one, such as runs/lora.yaml, or a folder of clips with --clips; or look "
            "at a run with --watch, --compare or --report."
        )
    from muybridge.training.newcomer import ClipsRun, default_folder, write_run_file

    named = {name: asked[name] for name in ("base", "method", "caption", "trigger", "steps", "prior") if name in asked}
    wished = ClipsRun(Path(clips), **named)
    folder = output_folder or default_folder(wished.clips)
    written, picked = write_run_file(wished, folder)
    for line in (*picked, f"as a run file: {written}"):
        errors.print(line, markup=False, highlight=False)
    return written, folder


def _look_at_data(run_file: Path, settings: list[str], output_folder: Path | None) -> None:
    from muybridge.training.dry_run import look_at_data
    from muybridge.training.run_file import load_run

    folder = output_folder or Path("work") / load_run(run_file, settings).name
    output.print(look_at_data(run_file, settings, folder), markup=False, highlight=False)


def _overfit(run_file: Path, settings: list[str], clips: int) -> None:
    from muybridge.training.dry_run import overfit_run

    def show(done: int, steps: int) -> None:
        if done % 20 == 0:
            errors.print(f"{done}/{steps}")

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
    from muybridge.training.run import paused_at, run_training

    progress = TrainingProgress(errors)
    before = _lengths_of_logs(folder)
    try:
        model = run_training(run_file, settings, folder, progress, until)
    except (KeyboardInterrupt, TrainingError, NonFiniteError) as stop:
        progress.close()
        _report(folder, before)
        if isinstance(stop, KeyboardInterrupt):
            errors.print("the same command continues from here")
        raise
    finally:
        progress.close()
    _report(folder, before)
    if model is None:
        stage, step = paused_at(run, folder) or ("", until)
        paused = f"paused at step {step}" if step == until else f"{stage} is at step {step} already, past {until}"
        errors.print(f"{paused}; the same command without --until continues from here")
    else:
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
