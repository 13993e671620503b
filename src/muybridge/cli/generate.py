"""`muybridge generate`: from a prompt to a file."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from muybridge.cli.console import Json, errors, output, print_json
from muybridge.errors import ConfigError


def generate(  # noqa: PLR0913  # the everyday settings of a video, each a flag
    context: typer.Context,
    prompt: Annotated[str | None, typer.Argument(help="What to show.")] = None,
    model: Annotated[str | None, typer.Option(help="A shipped model, a folder, or a hub id.")] = None,
    motion_adapter: Annotated[
        str | None,
        typer.Option(help="A motion module instead of the model's own: a file, a folder, or one on the hub."),
    ] = None,
    motion_variant: Annotated[
        str | None, typer.Option(help="What its file is, where keys, shapes and name fit several, as in animatelcm.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same video; random if not given.")] = None,
    frames: Annotated[int | None, typer.Option(help="Number of frames.")] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="WxH",
            help="Width x height in pixels; or fit:512 for the shape of the first keyframe or the source video.",
        ),
    ] = None,
    keyframe: Annotated[
        list[str] | None,
        typer.Option(metavar="FRAME=FILE", help="Pin a picture to a frame, as in 0=start.png and -1=end.png."),
    ] = None,
    sketch: Annotated[
        list[str] | None,
        typer.Option(metavar="FRAME=FILE", help="Pin a drawing to a frame, white lines on black."),
    ] = None,
    keyframe_control: Annotated[
        str | None, typer.Option(help="A SparseCtrl for keyframes, where the model has none.")
    ] = None,
    sketch_control: Annotated[
        str | None, typer.Option(help="A SparseCtrl for sketches, where the model has none.")
    ] = None,
    image_prompt: Annotated[
        list[Path] | None, typer.Option(help="A picture to take subject and style from; for an IP-Adapter.")
    ] = None,
    image_prompt_adapter: Annotated[str | None, typer.Option(help="An IP-Adapter: a file, or one on the hub.")] = None,
    image_encoder: Annotated[
        str | None, typer.Option(help="The folder of its CLIP encoder; by default image_encoder beside it.")
    ] = None,
    image_prompt_strength: Annotated[float | None, typer.Option(help="How much the picture counts.")] = None,
    control: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL=VIDEO[:STRENGTH]", help="A ControlNet, file or folder, and the video that it is shown."
        ),
    ] = None,
    travel: Annotated[
        list[str] | None, typer.Option(metavar="FRAME=TEXT", help="Another prompt from a frame on, as in 32='night'.")
    ] = None,
    window: Annotated[
        str | None,
        typer.Option(metavar="SIZE[/OVERLAP]", help="Frames of a longer video that are seen at once, as in 16/4."),
    ] = None,
    looped: Annotated[bool, typer.Option("--looped", help="With --window: the video goes on from its end.")] = False,
    free_noise: Annotated[bool, typer.Option("--free-noise", help="With --window: noise that repeats.")] = False,
    free_init: Annotated[int | None, typer.Option(help="Denoise so many times.", min=1)] = None,
    init_video: Annotated[Path | None, typer.Option(help="A video to start from.")] = None,
    mask: Annotated[Path | None, typer.Option(help="A picture; what is white in it is made anew.")] = None,
    strength: Annotated[float | None, typer.Option(help="How far the video to start from may change.")] = None,
    segment: Annotated[int | None, typer.Option(help="Frames made at once of a long video.")] = None,
    overlap: Annotated[int | None, typer.Option(help="Frames that the segments of a long video share.")] = None,
    overlap_strategy: Annotated[
        str | None, typer.Option(help="crossfade or latent: what a segment continues from.")
    ] = None,
    redo: Annotated[list[int] | None, typer.Option(min=0, help="Make this segment of a long video anew.")] = None,
    redo_following: Annotated[bool, typer.Option("--redo-following", help="With --redo: those behind it too.")] = False,
    parts_from: Annotated[
        str | None, typer.Option(help="A folder or hub id with what a single-file model lacks.")
    ] = None,
    vae: Annotated[
        str | None, typer.Option(metavar="FILE", help="Another VAE: a file or folder, here or on the hub.")
    ] = None,
    prediction: Annotated[
        str | None,
        typer.Option(metavar="epsilon|v|sample", help="What the model predicts, where nothing beside it says so."),
    ] = None,
    lora: Annotated[
        list[str] | None, typer.Option(metavar="FILE[:WEIGHT]", help="Load a LoRA, as in style.safetensors:0.8.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    guidance: Annotated[float | None, typer.Option(help="How strongly the prompt is followed; 1 is off.")] = None,
    negative: Annotated[str | None, typer.Option(help="What not to show.")] = None,
    plain_prompt: Annotated[
        bool | None, typer.Option(help="Read brackets, tags and names of embeddings in prompts as words.")
    ] = None,
    embedding: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE[:NAME]", help="An embedding (textual inversion) that prompts name."),
    ] = None,
    scheduler: Annotated[str | None, typer.Option(help="Another solver by name.")] = None,
    motion: Annotated[float | None, typer.Option(help="Motion strength; 0 gives stills.")] = None,
    fps: Annotated[float | None, typer.Option(help="Frames per second of playback.")] = None,
    output_path: Annotated[
        Path | None, typer.Option("-o", "--output", help=".mp4, .gif, .webp, or .png for a folder of pictures.")
    ] = None,
    animatediff_config: Annotated[
        Path | None,
        typer.Option(help="A prompt file of AnimateDiff's own, with --model as its base and -o as its folder."),
    ] = None,
    like: Annotated[
        Path | None, typer.Option(help="Repeat the request inside this file; flags given change it.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; by default the best there is.")] = None,
    metadata: Annotated[bool, typer.Option(help="Store the request in the file.")] = True,
    as_json: Json = False,
) -> None:
    """Make a video from a prompt."""
    if animatediff_config is not None:
        _refuse_others(context, {"animatediff_config", "model", "output_path", "device", "as_json"})
        _run_jobs(animatediff_config, model, output_path, device, as_json)
        return
    from muybridge.service.requests import GenerateRequest

    given: dict[str, Any] = {
        "model": model,
        "motion_adapter": motion_adapter,
        "motion_variant": motion_variant,
        "prompt": prompt,
        "negative_prompt": negative,
        "plain_prompt": plain_prompt,
        "embeddings": _parse_embeddings(embedding) if embedding else None,
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
        "lora": _parse_loras(lora) if lora else None,
        "overlap_strategy": overlap_strategy,
        "parts_from": parts_from,
        "vae": vae,
        "prediction": prediction,
        "keyframes": _parse_frames(keyframe, "--keyframe FRAME=FILE, as in 0=start.png") if keyframe else None,
        "sketches": _parse_frames(sketch, "--sketch FRAME=FILE, as in 0=lines.png") if sketch else None,
        "keyframe_control": keyframe_control,
        "sketch_control": sketch_control,
        "image_prompt": [str(path) for path in image_prompt] if image_prompt else None,
        "image_prompt_adapter": image_prompt_adapter,
        "image_encoder": image_encoder,
        "image_prompt_strength": image_prompt_strength,
        "controls": [_parse_control(each) for each in control] if control else None,
        "windows": _parse_window(window, looped) if window else None,
        "free_noise": free_noise or None,
        "free_init": None if free_init is None else {"passes": free_init},
    }
    if travel:
        prompts = _parse_frames(travel, "--travel FRAME=TEXT, as in 32='a blue circle'", may_be_empty=True)
        start = prompt if like is None or prompt is not None else _embedded_request(like).get("prompt")
        before = start if isinstance(start, dict) else {} if start is None else {0: start}
        given["prompt"] = dict(sorted({**{int(frame): text for frame, text in before.items()}, **prompts}.items()))
    if looped and window is None:
        raise ConfigError("--looped is about windows; give --window too, as in --window 16/4.")
    if size is not None and size.startswith("fit:"):
        given["fit"] = size.removeprefix("fit:")
    elif size is not None:
        given["width"], given["height"] = _parse_size(size)
    given = {name: value for name, value in given.items() if value is not None}
    if like is not None:
        from muybridge.service.recording import check_inputs

        embedded = _embedded_request(like)
        request = GenerateRequest.from_embedded(embedded, given)
        check_inputs(request, embedded)
    elif given.get("prompt") is None:
        raise ConfigError('Give a prompt, as in: muybridge generate "a red circle moving left"')
    else:
        request = GenerateRequest.parse(given)

    from muybridge.service.generation import generate_file

    anew = redo or ()
    with _output(output_path, request.prompt, is_made_anew=bool(anew or redo_following)) as path:
        result = generate_file(request, path, device, metadata, not as_json, anew, redo_following)
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
    hidden = {"versions", "interrupted", "unrecorded", "inputs"}
    shown = {name: v for name, v in result.settings.items() if name not in hidden and v is not None and v is not False}
    output.print(f"{result.path}")
    output.print("  " + ", ".join(f"{name} {value}" for name, value in shown.items()))
    output.print(f"  {result.seconds:.1f} s, peak memory {result.peak_memory_bytes / 2**20:.0f} MiB")


def _output(
    given: Path | None, prompt: str | dict[int, str], is_made_anew: bool
) -> contextlib.AbstractContextManager[Path]:
    """The file asked for, or a new one named after the prompt; where segments are made anew, that which has them."""
    from muybridge.service.output_names import name_after, reserved_file

    first = prompt if isinstance(prompt, str) else next(iter(prompt.values()))
    if given is None and not is_made_anew:
        return reserved_file(first)
    return contextlib.nullcontext(given or Path(f"{name_after(first)}.mp4"))


def _parse_size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,9})x(\d{1,9})", text)
    if match is None:
        raise ConfigError(f"--size takes WIDTHxHEIGHT in pixels, for example 64x64, or fit:512; given {text!r}.")
    return int(match.group(1)), int(match.group(2))


def _refuse_others(context: typer.Context, allowed: set[str]) -> None:
    sources = {name: context.get_parameter_source(name) for name in context.params}
    given = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    if foreign := [name.replace("_", "-") for name in given if name not in allowed]:
        raise ConfigError(f"A prompt file holds its own prompts and settings; leave {', '.join(foreign)} out.")


def _run_jobs(path: Path, model: str | None, output_path: Path | None, device: str | None, as_json: bool) -> None:
    if model is None:
        raise ConfigError("--animatediff-config needs --model: the Stable Diffusion 1.5 that its jobs are based on.")
    from muybridge.service.animatediff_jobs import run_jobs

    def show(done: int, total: int) -> None:
        errors.print(f"{done}/{total} videos")

    found = run_jobs(path, model, output_path or Path("samples"), device, None if as_json else show)
    if as_json:
        print_json({"path": str(found.folder), "videos": [str(video) for video in found.videos]})
        return
    for video in found.videos:
        output.print(f"{video}")


def _parse_frames(texts: list[str], usage: str, may_be_empty: bool = False) -> dict[int, str]:
    option = usage.split(maxsplit=1)[0]
    found: dict[int, str] = {}
    for text in texts:
        match = re.fullmatch(r"(-?\d{1,9})=(.*)", text, re.DOTALL)
        if match is None or not (match[2] or may_be_empty):
            raise ConfigError(f"{option} takes {usage.removeprefix(option).strip()}; given {text!r}.")
        if int(match.group(1)) in found:
            raise ConfigError(f"{option} names frame {match.group(1)} twice; give one for it.")
        found[int(match.group(1))] = match.group(2)
    return found


def _parse_control(text: str) -> dict[str, Any]:
    match = re.fullmatch(r"([^=]+)=(.+?)(?::(\d+\.?\d*|\.\d+))?", text)
    if match is None:
        raise ConfigError(f"--control takes MODEL=VIDEO[:STRENGTH], as in depth=depth.mp4:0.7; given {text!r}.")
    return {"model": match[1], "frames": match[2], "strength": float(match[3] or 1)}


def _parse_window(text: str, looped: bool) -> dict[str, Any]:
    match = re.fullmatch(r"(\d{1,9})(?:/(\d{1,9}))?", text)
    if match is None:
        raise ConfigError(f"--window takes SIZE or SIZE/OVERLAP in frames, as in 16/4; given {text!r}.")
    settings: dict[str, Any] = {"size": int(match[1]), "schedule": "looped" if looped else "uniform"}
    return settings if match[2] is None else {**settings, "overlap": int(match[2])}


def _parse_loras(texts: list[str]) -> dict[str, float]:
    loras: dict[str, float] = {}
    for text in texts:
        match = re.fullmatch(r"(.+?)(?::([+-]?(?:\d+\.?\d*|\.\d+)))?", text)
        path, weight = (match[1], float(match[2] or 1)) if match else (text, 1.0)
        if path in loras:
            raise ConfigError(f"--lora names {path} twice.")
        loras[path] = weight
    return loras


def _parse_embeddings(texts: list[str]) -> dict[str, str]:
    embeddings: dict[str, str] = {}
    for text in texts:
        match = None if Path(text).exists() else re.fullmatch(r"(.+?):([^:/\\]+)", text)
        path, name = (match[1], match[2]) if match else (text, Path(text).stem)
        if path in embeddings:
            raise ConfigError(f"--embedding names {path} twice.")
        embeddings[path] = name
    return embeddings


def _embedded_request(path: Path) -> dict[str, Any]:
    from muybridge.video import read_request

    embedded = read_request(path)
    if embedded is None:
        raise ConfigError(f"{path} carries no request; it was made elsewhere, or without metadata.")
    return embedded
