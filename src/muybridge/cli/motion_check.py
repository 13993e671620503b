"""`muybridge motion check`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from muybridge.cli.console import Json, output, print_json
from muybridge.errors import ConfigError

if TYPE_CHECKING:
    from muybridge.authoring.checks import MotionCheckReport

_COLOURS = {"passed": "green", "failed": "red", "not applicable": "bright_black", "reported": "cyan"}
FAILED = 2
"""The exit code where a check has failed: the module's author can mend it."""


def check(
    motion: Annotated[str, typer.Argument(metavar="KIND", help="A kind, or package.module:Class.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="A=VALUE", help="A setting of the kind; may be repeated.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="CHECK", help="Run this check alone; may be repeated.")
    ] = None,
    overfit: Annotated[
        int | None, typer.Option("--overfit", metavar="N", help="Also train N steps on one clip of the toy world.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check that a motion module keeps to the contract, on both backbones; exits with 2 if it does not."""
    config = _config(settings or [])
    from muybridge.authoring.overfit import check_motion

    if "" not in sys.path and ":" in motion:
        sys.path.insert(0, "")  # a class beside which one stands is found, as `python -m` would
    report = check_motion(motion, config, only, overfit)
    if as_json:
        print_json(report.to_dict())
    else:
        _show(report)
    if not report.passed:
        raise typer.Exit(FAILED)


def _show(report: MotionCheckReport) -> None:
    from rich.text import Text

    name, status = (max(len(getattr(each, part)) for each in report.results) for part in ("name", "status"))
    for result in report.results:
        shown = Text(result.status.ljust(status), style=_COLOURS[result.status])
        output.print(Text.assemble(result.name.ljust(name), "  ", shown, "  ", result.detail))
    failures = report.failures
    verdict = f"{len(failures)} checks failed: {', '.join(failures)}" if failures else "keeps to the contract"
    output.print(f"{report.kind} ({report.origin}): {verdict}")


def _config(settings: list[str]) -> dict[str, Any]:
    import yaml

    from muybridge.files.validation import YAML_ERRORS

    config = {}
    for setting in settings:
        name, separator, text = setting.partition("=")
        if not separator or not name:
            raise ConfigError(f"--set takes NAME=VALUE, as in num_heads=4; given {setting!r}.")
        try:
            config[name] = yaml.safe_load(text)
        except YAML_ERRORS as error:
            raise ConfigError(f"--set {setting!r}: {text!r} is not a value that YAML knows.") from error
    return config
