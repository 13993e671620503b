"""`muybridge generate`: from a prompt to a file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from muybridge.cli.console import Json, output, print_json
from muybridge.errors import ConfigError


def generate(  # noqa: PLR0913  # the everyday settings of a video, each a flag
    prompt: Annotated[str | None, typer.Argument(help="What to show.")] = None,
    model: Annotated[str | None, typer.Option(help="A shipped model, a folder, or a hub id.")] = None,
    motion_adapter: Annotated[
        Path | None, typer.Option(help="A motion module file, or the folder of an adapter, instead of the model's own.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same video; random if not given.")] = None,
    frames: Annotated[int | None, typer.Option(help="Number of frames.")] = None,
    size: Annotated[
        str | None,
        typer.Option(metavar="WxH", help="Width x height in pixels; or fit:512 for the shape of the first keyframe."),
    ] = None,
    keyframe: Annotated[
        list[str] | None,
        typer.Option(metavar="FRAME=FILE", help="Pin a picture to a frame, as in 0=start.png and -1=end.png."),
    ] = None,
    init_video: Annotated[Path | None, typer.Option(help="A video to start from.")] = None,
    mask: Annotated[Path | None, typer.Option(help="A picture; what is white in it is made anew.")] = None,
    strength: Annotated[float | None, typer.Option(help="How far the video to start from may change.")] = None,
    segment: Annotated[int | None, typer.Option(help="Frames made at once of a long video.")] = None,
    overlap: Annotated[int | None, typer.Option(help="Frames that the segments of a long video share.")] = None,
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
        "motion_adapter": None if motion_adapter is None else str(motion_adapter),
        "prompt": prompt,
        "negative_prompt": negative,
        "num_frames": frames,
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "scheduler": scheduler,
        "motion_strength": motion,
        "seed": seed,
        "fps": fps,
        "init_video": None if init_video is None else str(init_video),
        "mask": None if mask is None else str(mask),
        "strength": strength,
        "segment_frames": segment,
        "overlap_frames": overlap,
        "keyframes": _parse_keyframes(keyframe) if keyframe else None,
    }
    if size is not None and size.startswith("fit:"):
        given["fit"] = size.removeprefix("fit:")
    elif size is not None:
        given["width"], given["height"] = _parse_size(size)
    given = {name: value for name, value in given.items() if value is not None}
    if like is not None:
        request = GenerateRequest.from_embedded(_embedded_request(like), given)
    elif prompt is None:
        raise ConfigError('Give a prompt, as in: muybridge generate "a red circle moving left"')
    else:
        request = GenerateRequest.parse(given)

    from muybridge.service.generation import generate_file

    result = generate_file(request, output_path or _default_output(request.prompt), device, metadata, not as_json)
    if as_json:
        print_json(
            {
                "path": str(result.path),
                "settings": result.settings,
                "seconds": round(result.seconds, 2),
                "peak_memory_bytes": result.peak_memory_bytes,
            }
        )
        return
    hidden = {"versions", "interrupted", "unrecorded"}
    shown = {name: value for name, value in result.settings.items() if name not in hidden and value is not None}
    output.print(f"{result.path}")
    output.print("  " + ", ".join(f"{name} {value}" for name, value in shown.items()))
    output.print(f"  {result.seconds:.1f} s, peak memory {result.peak_memory_bytes / 2**20:.0f} MiB")


def _parse_size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None:
        raise ConfigError(f"--size takes WIDTHxHEIGHT in pixels, for example 64x64, or fit:512; given {text!r}.")
    return int(match.group(1)), int(match.group(2))


def _parse_keyframes(texts: list[str]) -> dict[int, str]:
    keyframes: dict[int, str] = {}
    for text in texts:
        match = re.fullmatch(r"(-?\d+)=(.+)", text)
        if match is None:
            raise ConfigError(f"--keyframe takes FRAME=FILE, as in 0=start.png; given {text!r}.")
        if int(match.group(1)) in keyframes:
            raise ConfigError(f"--keyframe names frame {match.group(1)} twice; give one picture for it.")
        keyframes[int(match.group(1))] = match.group(2)
    return keyframes


def _embedded_request(path: Path) -> dict[str, Any]:
    from muybridge.video import read_request

    embedded = read_request(path)
    if embedded is None:
        raise ConfigError(f"{path} carries no request; it was made elsewhere, or without metadata.")
    return embedded


def _default_output(prompt: str) -> Path:
    words = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")
    return Path(f"{words[:60] or 'video'}.mp4")
