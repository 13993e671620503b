"""`muybridge plan`: how much memory a video will take, before anything is loaded."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from muybridge.cli.console import Json, output, print_json
from muybridge.cli.flags import PARTS_OF_MODELS, parse_loras, plain_flags, with_flags
from muybridge.errors import ConfigError


@with_flags(PARTS_OF_MODELS)
def plan(
    model: Annotated[str, typer.Option(help="A shipped model, a folder, or a hub id; its weights are not loaded.")],
    size: Annotated[str, typer.Option(metavar="WxH", help="Width x height in pixels.")],
    frames: Annotated[int, typer.Option(help="Number of frames.", min=1)],
    budget: Annotated[
        str | None, typer.Option(help="Memory there is, as in 12GB; names the cheapest settings that fit.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Denoising steps; for the cost of moving weights.", min=1)] = 25,
    device: Annotated[str, typer.Option(help="Where it is to run, cuda or cpu; need not be here.")] = "cuda",
    profile: Annotated[
        str | None, typer.Option(help="Numbers of the original (reference) or not (clean), as generate takes it.")
    ] = None,
    as_json: Json = False,
    **given: Any,
) -> None:
    """Predict the peak of every stage, and which settings fit a budget."""
    match = re.fullmatch(r"(\d+)x(\d+)", size)
    if match is None:
        raise ConfigError(f"--size takes WIDTHxHEIGHT in pixels, for example 960x960; given {size!r}.")

    with _without_collecting():
        from muybridge.files.byte_counts import parse_bytes
        from muybridge.pipelines.planning import plan_video
        from muybridge.request.flat import nested
        from muybridge.request.model_choice import ModelChoice
        from muybridge.runtime.plan import choose_run, describe
        from muybridge.types import VideoShape

        allowed = None if budget is None else parse_bytes(budget)
        parts = {"model": model, **plain_flags(given)}
        if "lora" in parts:
            parts["lora"] = parse_loras(parts["lora"])
        choice = ModelChoice.model_validate(nested(parts)["model"])
        shape = VideoShape(frames, int(match[2]), int(match[1]))
        planned = plan_video(choice, shape, steps, device=device, profile=profile)
    chosen = None if allowed is None else choose_run(planned.runs, allowed)
    if as_json:
        runs = [{"settings": vars(run.settings), "peaks": run.peaks, "costs": run.costs} for run in planned.runs]
        print_json({"runs": runs, "chosen": None if chosen is None else planned.runs.index(chosen)})
        return
    for run in planned.runs:
        mark = "->" if run is chosen else "  "
        stages = ", ".join(f"{name} {peak / 1e9:.3g}" for name, peak in run.peaks.items())
        output.print(f"{mark} {run.peak / 1e9:6.3g} GB  {describe(run.settings)}  ({stages})")
        if run is chosen:
            for cost in run.costs:
                output.print(f"              costs: {cost}")


@contextmanager
def _without_collecting() -> Iterator[None]:
    """Looking for circles among the million objects of the libraries takes a seventh of the whole time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
