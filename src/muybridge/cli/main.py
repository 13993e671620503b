"""The program `muybridge`. Exit codes: 0 done, 2 the user can mend it, 1 a defect of ours, 130 interrupted."""

from __future__ import annotations

import atexit
import errno
import gc
import logging
import sys
import warnings
from typing import Annotated, Any

import typer

from muybridge.cli import debug, evaluate, jobs, motion
from muybridge.cli.console import errors, output
from muybridge.cli.convert import convert
from muybridge.cli.doctor import doctor
from muybridge.cli.generate import generate
from muybridge.cli.inspect import inspect
from muybridge.cli.list import listing
from muybridge.cli.motion_check import check
from muybridge.cli.motion_new import new
from muybridge.cli.plan import plan
from muybridge.cli.serve import serve
from muybridge.cli.train import train
from muybridge.cli.worker import worker
from muybridge.errors import MuybridgeError
from muybridge.version import __version__

app = typer.Typer(name="muybridge", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def main(arguments: list[str] | None = None) -> None:
    """Run the program and exit with its code."""
    # What is alive at the end goes with the process; looking for circles among it takes more than a second.
    atexit.register(gc.freeze)
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
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG or error.filename is None:
            raise
        _complain(f"{error.filename}: names of files and folders cannot be that long. Give a shorter one.")
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
app.command()(plan)
app.command()(inspect)
app.command()(convert)
app.command()(doctor)
app.command()(serve)
app.command()(worker)


app.add_typer(evaluate.app, name="evaluate")
motion.app.command()(check)
motion.app.command()(new)
app.add_typer(jobs.app, name="jobs")
app.add_typer(motion.app, name="motion")
app.add_typer(listing, name="list")
app.add_typer(debug.app, name="debug")


if __name__ == "__main__":
    main()
