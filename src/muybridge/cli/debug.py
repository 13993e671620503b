"""`muybridge debug`: what goes on inside a model?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from muybridge.cli.console import Json, output, print_json
from muybridge.cli.flags import Flag, with_flags
from muybridge.errors import ConfigError
from muybridge.types import SettingsView

if TYPE_CHECKING:
    from muybridge.service.debugging import DebugRun

app = typer.Typer(no_args_is_help=True, help="Look inside a model while it makes a video.")

Folder = Annotated[Path, typer.Option("-o", "--output", help="The folder for reports.")]


def _run_flags(steps: int) -> list[Flag]:
    """The settings of a run, which every command here has; `steps` is its default."""
    return [
        Flag("model", "model", str, "A shipped model, a folder, or a hub id.", default="demo/animatediff"),
        Flag("prompt", "prompt", str, "What to show.", default="a red circle moving left"),
        Flag("frames", "num_frames", int, "Number of frames.", least=1),
        Flag("width", "width", int, "In pixels.", least=1),
        Flag("height", "height", int, "In pixels.", least=1),
        Flag("steps", "steps", int, "Denoising steps.", default=steps, least=1),
        Flag("seed", "seed", int, "Of the noise.", default=0, least=0),
        Flag("device", "device", str, "cpu, cuda, cuda:1, ...; by default the best there is."),
        Flag("dtype", "dtype", str, "float32, bfloat16 or float16.", default="float32"),
    ]


def _run(values: SettingsView) -> DebugRun:
    from muybridge.service.debugging import DebugRun

    return DebugRun(**values)


@app.command()
@with_flags(_run_flags(4))
def anomaly(
    folder: Folder = Path("debug"),
    train: Annotated[int | None, typer.Option(help="Also so many steps of training, backward too.", min=1)] = None,
    autograd: Annotated[bool, typer.Option(help="With --train: autograd's anomaly mode as well; slow.")] = False,
    replay: Annotated[
        Path | None, typer.Option(help="The .json of an anomaly found before: run that one call again, in --model.")
    ] = None,
    **given: object,
) -> None:
    """Stop at the first NaN, infinite or overflowing value and name the layer; exit code 2 if there is one."""
    from muybridge.service import debugging

    run = _run(given)
    if replay is not None:
        if train is not None or autograd:
            raise ConfigError("--replay runs one saved call again; leave --train and --autograd out.")
        result = debugging.replay(replay, run)
        if result.identical is not None:
            output.print(f"identical to what was recorded: {'yes' if result.identical else 'no'}")
        for statistics in result.statistics:
            output.print(f"{statistics}")
        for name, statistics in result.gradients.items():
            output.print(f"gradient of {name}: {statistics}")
        return
    training = None if train is None else debugging.TrainingRun(train, everything=True)
    seconds = debugging.guard_run(run, folder, training, autograd)
    output.print(f"every value was finite; {seconds:.1f} s")


@app.command()
@with_flags(_run_flags(4))
def gradients(
    folder: Folder = Path("debug"),
    train: Annotated[int, typer.Option(help="Training steps to look at.", min=1)] = 4,
    learning_rate: Annotated[float, typer.Option(help="Of AdamW.")] = 1e-4,
    everything: Annotated[bool, typer.Option("--all", help="Train all, not the motion modules only.")] = False,
    as_json: Json = False,
    **given: object,
) -> None:
    """Train a little, on a video of the model's own, and show the gradients of each block."""
    from muybridge.service import debugging

    training = debugging.TrainingRun(train, learning_rate, everything)
    report = debugging.gradient_run(_run(given), training, folder)
    if as_json:
        print_json({"steps": report.steps, "verdicts": {each.name: each.verdict for each in report.weights}})
    else:
        output.print(f"{report}\n{folder / 'gradients.png'}")


@app.command()
@with_flags(_run_flags(2))
def memory(
    folder: Folder = Path("debug"),
    measure: Annotated[str, typer.Option(help="tensors (exact), or device: what the allocator or system says.")] = (
        "tensors"
    ),
    as_json: Json = False,
    **given: object,
) -> None:
    """Show the modules that need most memory, and draw it over time."""
    from dataclasses import asdict

    from muybridge.service import debugging

    if measure not in ("tensors", "device"):
        raise ConfigError(f"--measure must be tensors or device; given {measure!r}.")
    report = debugging.memory_run(_run(given), folder, measure)
    if as_json:
        modules = [asdict(module) for module in report.modules]
        print_json({"measure": report.measure, "peak_bytes": report.peak_bytes, "modules": modules})
        return
    output.print(f"{report}\n{folder / 'memory.png'}")
    if report.snapshot is not None:
        output.print(f"{report.snapshot} is for https://pytorch.org/memory_viz")


@app.command()
@with_flags(_run_flags(2))
def probe(
    pattern: Annotated[list[str] | None, typer.Argument(help="Names of modules, with * and ?.")] = None,
    path: Annotated[Path, typer.Option("-o", "--output", help="The recording; .json and .safetensors.")] = Path(
        "debug/probe"
    ),
    full: Annotated[bool, typer.Option(help="Keep whole tensors, and not only statistics.")] = False,
    against: Annotated[Path | None, typer.Option(help="Compare with this recording.")] = None,
    tolerance: Annotated[float, typer.Option(help="Relative difference that is allowed.", min=0)] = 0.0,
    as_json: Json = False,
    **given: object,
) -> None:
    """Record what modules receive and give, and find where two runs first differ."""
    from dataclasses import asdict

    from muybridge.service import debugging

    saved, count, silent = debugging.probe_run(_run(given), pattern or ["*"], path, full)
    found = None if against is None else debugging.compare_runs(against, saved, tolerance)
    if as_json:
        difference = None if found is None else asdict(found)
        print_json({"path": str(saved), "calls": count, "silent": silent, "difference": difference})
        return
    output.print(f"{saved}: {count} calls, {len(silent)} modules were not called")
    if against is not None:
        output.print(f"no difference from {against}" if found is None else f"{found}")


@app.command()
@with_flags(_run_flags(4))
def attention(
    sites: Annotated[list[str] | None, typer.Argument(help="Names of motion modules, with * and ?.")] = None,
    folder: Folder = Path("debug/attention"),
    as_json: Json = False,
    **given: object,
) -> None:
    """Draw which frame looks at which, for each motion site."""
    from muybridge.service import debugging

    files = debugging.attention_run(_run(given), folder, sites or ["*"])
    if as_json:
        print_json({"files": [str(path) for path in files]})
        return
    for path in files:
        output.print(f"{path}")


@app.command()
@with_flags(_run_flags(2))
def profile(
    folder: Folder = Path("debug"),
    as_json: Json = False,
    **given: object,
) -> None:
    """Show the modules that take most time, and trace every stage."""
    from dataclasses import asdict

    from muybridge.service import debugging

    report = debugging.profile_run(_run(given), folder)
    if as_json:
        print_json({"stage_seconds": report.stage_seconds, "modules": [asdict(each) for each in report.top()]})
        return
    output.print(f"{report}")
    for paths in report.traces.values():
        output.print("\n".join(str(path) for path in paths))
