"""The program `muybridge`. Exit codes: 0 done, 2 the user can mend it, 1 a defect of ours, 130 interrupted."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from muybridge import __version__
from muybridge.cli.console import Json, errors, output, print_json
from muybridge.cli.generate import generate
from muybridge.cli.train import train
from muybridge.errors import MuybridgeError

app = typer.Typer(name="muybridge", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def main(arguments: list[str] | None = None) -> None:
    """Run the program and exit with its code."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        sys.exit(_run(arguments))


def _run(arguments: list[str] | None) -> int:
    try:
        status = app(args=arguments, prog_name="muybridge", standalone_mode=False)
    except typer.TyperException as error:  # a wrong option; or none at all, where the help has been shown instead
        if message := error.format_message():
            _complain(message)
        return 2
    except MuybridgeError as error:
        _complain(str(error))
        return 2
    except (typer.Abort, KeyboardInterrupt):
        status = 130
    if status == 130:
        errors.print("interrupted")
    return status if isinstance(status, int) else 0


def _complain(message: str) -> None:
    errors.print("muybridge: ", style="red", end="")
    errors.print(message)


def _show_warning(message: Warning | str, *_: Any) -> None:
    errors.print("note: ", style="yellow", end="")
    errors.print(str(message))


def _print_version(wanted: bool) -> None:
    if wanted:
        output.print(f"muybridge {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Turn image diffusion models into video models."""


app.command()(generate)
app.command()(train)


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="A video, or a folder of pictures.")], as_json: Json = False
) -> None:
    """Show the size of a video and the request inside it."""
    from muybridge.video import read_video

    video = read_video(path)
    request = None if video.request is None else dict(video.request)
    if as_json:
        found = {"kind": "video", "num_frames": len(video), "width": video.width, "height": video.height}
        print_json({**found, "fps": float(video.fps), "request": request})
        return
    output.print(f"{path}: {len(video)} frames, {video.width}x{video.height}, {float(video.fps):g} fps")
    if request is None:
        output.print("  no request inside")
        return
    for name, value in request.items():
        output.print(f"  {name}: {value}")


evaluate = typer.Typer(no_args_is_help=True, help="Measure how good a model is.")
app.add_typer(evaluate, name="evaluate")


@evaluate.command("demo")
def evaluate_demo(
    model: Annotated[str, typer.Option(help="A model of the toy world.")] = "demo/animatediff",
    count: Annotated[int, typer.Option(help="Number of prompts over held-out combinations.", min=1)] = 200,
    seed: Annotated[int, typer.Option(help="Of prompts and noise.", min=0)] = 0,
    sheet: Annotated[Path | None, typer.Option(help="Also write a contact sheet (.png) of the first clips.")] = None,
    as_json: Json = False,
) -> None:
    """Generate held-out prompts of the toy world and measure what came out."""
    from muybridge.service.evaluation import evaluate_demo_model

    def show(done: int, total: int) -> None:
        errors.print(f"{done}/{total} clips")

    report = evaluate_demo_model(model, count, seed, sheet, None if as_json else show)
    if as_json:
        print_json(report)
        return
    for name, value in report.items():
        output.print(f"{name}: {json.dumps(value)}")


if __name__ == "__main__":
    main()
