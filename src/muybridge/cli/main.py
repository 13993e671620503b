"""The program `muybridge`. Exit codes: 0 done, 2 the user can mend it, 1 a defect of ours, 130 interrupted."""

from __future__ import annotations

import json
import logging
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import click
import typer
from rich.console import Console

from muybridge import __version__
from muybridge.errors import ConfigError, MuybridgeError

app = typer.Typer(name="muybridge", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
output = Console(soft_wrap=True, highlight=False)
errors = Console(stderr=True, soft_wrap=True, highlight=False)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines, and nothing else.")]


def main(arguments: list[str] | None = None) -> None:
    """Run the program and exit with its code."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        status = app(args=arguments, standalone_mode=False)
    except click.exceptions.Abort:
        status = 130
    except click.ClickException as error:
        error.show()
        status = 2
    except MuybridgeError as error:
        _show(error)
        status = 2
    except KeyboardInterrupt:
        errors.print("interrupted; nothing unfinished was left behind")
        status = 130
    sys.exit(status if isinstance(status, int) else 0)


def _show(error: MuybridgeError) -> None:
    errors.print("muybridge: ", style="red", end="")
    errors.print(str(error), markup=False)


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


@app.command()
def generate(  # noqa: PLR0913  # the everyday settings of a video, each a flag
    prompt: Annotated[str | None, typer.Argument(help="What to show.")] = None,
    model: Annotated[str | None, typer.Option(help="A shipped model, a folder, or a hub id.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same video; random if not given.")] = None,
    frames: Annotated[int | None, typer.Option(help="Number of frames.")] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Width x height in pixels.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    guidance: Annotated[float | None, typer.Option(help="How strongly the prompt is followed; 1 is off.")] = None,
    negative: Annotated[str | None, typer.Option(help="What not to show.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="Another solver by name.")] = None,
    motion: Annotated[float | None, typer.Option(help="Motion strength; 0 gives stills.")] = None,
    fps: Annotated[float | None, typer.Option(help="Frames per second of playback.")] = None,
    output_path: Annotated[
        Path | None, typer.Option("-o", "--output", help=".mp4, .gif, .webp, or .png for a folder of pictures.")
    ] = None,
    like: Annotated[
        Path | None, typer.Option(help="Repeat the request inside this file; flags given change it.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; by default the best there is.")] = None,
    metadata: Annotated[bool, typer.Option(help="Store the request in the file.")] = True,
    as_json: Json = False,
) -> None:
    """Make a video from a prompt."""
    from muybridge.service.requests import GenerateRequest

    given: dict[str, Any] = {
        "model": model,
        "prompt": prompt,
        "negative_prompt": negative,
        "num_frames": frames,
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "scheduler": scheduler,
        "motion_strength": motion,
        "seed": seed,
        "fps": fps,
    }
    if size is not None:
        given["width"], given["height"] = _parse_size(size)
    given = {name: value for name, value in given.items() if value is not None}
    base = _request_of(like) if like is not None else {}
    if "prompt" not in given and "prompt" not in base:
        raise ConfigError('Give a prompt, as in: muybridge generate "a red circle moving left"')
    request = GenerateRequest.parse({**base, **given})

    from muybridge.service.generation import generate_file

    result = generate_file(request, output_path or _default_output(request.prompt), device, metadata, not as_json)
    if as_json:
        _print_json(
            {
                "path": str(result.path),
                "settings": result.settings,
                "seconds": round(result.seconds, 2),
                "peak_memory_bytes": result.peak_memory_bytes,
            }
        )
        return
    shown = {k: v for k, v in result.settings.items() if k != "versions" and v is not None}
    output.print(f"{result.path}", markup=False)
    output.print("  " + ", ".join(f"{name} {value}" for name, value in shown.items()), markup=False)
    output.print(f"  {result.seconds:.1f} s, peak memory {result.peak_memory_bytes / 2**20:.0f} MiB")


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="A video, picture sequence or model file.")], as_json: Json = False
) -> None:
    """Say what a file is: the request inside a video."""
    from muybridge.video import read_request, read_video

    video = read_video(path)
    found = {
        "kind": "video",
        "num_frames": len(video),
        "width": video.width,
        "height": video.height,
        "fps": float(video.fps),
        "request": read_request(path),
    }
    if as_json:
        _print_json(found)
        return
    output.print(f"{path}: {len(video)} frames, {video.width}x{video.height}, {float(video.fps):g} fps", markup=False)
    if found["request"] is None:
        output.print("  no request inside")
        return
    for name, value in found["request"].items():
        output.print(f"  {name}: {value}", markup=False)


@app.command()
def train(
    run_file: Annotated[Path, typer.Argument(help="A run file, such as runs/demo-animatediff.yaml.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=VALUE", help="Change a setting of the run file.")
    ] = None,
    output_folder: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where states, logs and the model go; work/NAME if not given.")
    ] = None,
) -> None:
    """Train a model; the same command continues an interrupted run."""
    from muybridge.service.runs import load_run

    run = load_run(run_file, settings)
    folder = output_folder or Path("work") / run.name

    from muybridge.service.training import run_training

    def report(stage: str, step: int, steps: int, metrics: dict[str, float]) -> None:
        values = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        output.print(f"{stage} {step}/{steps}  {values}", markup=False)

    try:
        model = run_training(run_file, settings or [], folder, report)
    except KeyboardInterrupt:
        errors.print("interrupted; the state is saved, the same command continues")
        raise typer.Exit(130) from None
    output.print(f"{model}", markup=False)


evaluate = typer.Typer(no_args_is_help=True, help="Measure how good a model is.")
app.add_typer(evaluate, name="evaluate")


@evaluate.command("demo")
def evaluate_demo(
    model: Annotated[str, typer.Option(help="A model of the toy world.")] = "demo/animatediff",
    count: Annotated[int, typer.Option(help="Number of prompts over held-out combinations.", min=1)] = 200,
    seed: Annotated[int, typer.Option(help="Of prompts and noise.")] = 0,
    sheet: Annotated[Path | None, typer.Option(help="Also write a contact sheet (.png) of the first clips.")] = None,
    as_json: Json = False,
) -> None:
    """Generate held-out prompts of the toy world and measure what came out."""
    from muybridge.service.evaluation import evaluate_demo_model

    def show(done: int, total: int) -> None:
        errors.print(f"{done}/{total} clips")

    report = evaluate_demo_model(model, count, seed, sheet, None if as_json else show)
    if as_json:
        _print_json(report)
        return
    for name, value in report.items():
        output.print(f"{name}: {json.dumps(value)}", markup=False)


def _parse_size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None:
        raise ConfigError(f"--size takes WIDTHxHEIGHT in pixels, for example 64x64; given {text!r}.")
    return int(match.group(1)), int(match.group(2))


def _request_of(path: Path) -> dict[str, Any]:
    from muybridge.service.requests import GenerateRequest
    from muybridge.video import read_request

    embedded = read_request(path)
    if embedded is None:
        raise ConfigError(f"{path} carries no request; it was made elsewhere, or without metadata.")
    return GenerateRequest.from_embedded(embedded).model_dump(exclude_none=True)


def _default_output(prompt: str) -> Path:
    words = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")
    return Path(f"{words[:60] or 'video'}.mp4")


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")


if __name__ == "__main__":
    main()
