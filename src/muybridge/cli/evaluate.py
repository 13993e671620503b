"""`muybridge evaluate`: how good is a model?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from muybridge.cli.console import Json, errors, output, print_json
from muybridge.cli.flags import Flag, parse_loras, with_flags

if TYPE_CHECKING:
    from muybridge.demo.task_report import TaskReport

app = typer.Typer(no_args_is_help=True, help="Measure how good a model is.")


_SAMPLING = (
    Flag("steps", "num_inference_steps", int, "Denoising steps, if not the model's.", least=1),
    Flag("guidance", "guidance_scale", float, "Likewise; 1 is off.", least=0),
    Flag("scheduler", "scheduler", str, "Likewise, by name."),
)


@app.command("demo")
@with_flags(_SAMPLING)
def evaluate_demo(
    model: Annotated[str, typer.Option(help="A model of the toy world.")] = "demo/animatediff",
    task: Annotated[
        str, typer.Option(help="text, image, ends, keyframes, continuation; or all that the model can do.")
    ] = "text",
    count: Annotated[
        int | None, typer.Option(help="Number of prompts over held-out combinations; by default the task's.", min=1)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of prompts and noise.", min=0)] = 0,
    sheet: Annotated[
        Path | None, typer.Option(help="Also write a contact sheet (.png) of the first clips; given frames are marked.")
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE[:WEIGHT]", help="Measure it with a LoRA, to see what else that changes."),
    ] = None,
    as_json: Json = False,
    **given: Any,
) -> None:
    """Generate held-out prompts of the toy world and measure what came out."""
    from muybridge.request import GenerateRequest
    from muybridge.service import evaluation

    def show(name: str, done: int, total: int) -> None:
        errors.print(f"{name} {done}/{total} clips")

    loras = parse_loras(lora or [])
    progress = None if as_json else show
    asked = GenerateRequest.parse({"prompt": "", "sampling": given}).sampling
    result = evaluation.evaluate_demo(model, task, count, seed, sheet, progress, loras, asked)
    if as_json:
        print_json(result.to_dict())
        return
    how = f"{result.steps} steps" + (f" of {result.scheduler}" if result.scheduler else "")
    output.print(f"{result.model}: {how}, guidance {result.guidance:g}, {result.seconds:g} s")
    for report in result.reports:
        output.print("\n" + "\n".join(report_lines(report)))
    for name, reason in result.refusals.items():
        output.print(f"\n{name}: not evaluated. {reason}")


def report_lines(report: TaskReport) -> list[str]:
    """A report as a table: a row for each figure, a column for each group of clips, and the targets."""
    figures = list(dict.fromkeys(figure for column in report.columns.values() for figure in column))
    width = max(map(len, figures))
    lines = [f"{report.task}: {report.count} held-out prompts, seed {report.seed}"]
    lines.append(" " * width + "".join(f"  {name}" for name in report.columns) + "  target" * bool(report.targets))
    for figure in figures:
        cells = [f"  {_cell(column.get(figure)):>{len(name)}}" for name, column in report.columns.items()]
        lines.append(f"{figure:<{width}}" + "".join(cells) + _target(report, figure))
    for name, rows in report.by_attribute.items():
        lines.append(f"by {name}: " + ", ".join(f"{wanted} {share:g}" for wanted, share in rows.items()))
    return lines


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _target(report: TaskReport, figure: str) -> str:
    if figure not in report.targets:
        return ""
    return f"  >= {report.targets[figure]:g}, {'met' if report.is_met(figure) else 'missed'}"
