"""`muybridge generate`: from a prompt to a file."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from muybridge.cli.console import Json, errors, output, print_json
from muybridge.cli.flags import FLAGS, Flag, parse_loras, plain_flags, with_flags
from muybridge.errors import ConfigError
from muybridge.pipelines.families import built_in_families
from muybridge.types import SettingsDict, SettingsView

if TYPE_CHECKING:
    from muybridge.pipelines.family import PromptFiles
    from muybridge.request import GenerateRequest
    from muybridge.service.generation import GenerationResult

_PROMPT_FILES = {
    family.prompt_files.option.replace("-", "_"): family.prompt_files
    for family in built_in_families()
    if family.prompt_files is not None
}
"""Prompt files of original programs, by the parameter that names one."""
_PROMPT_FILE_FLAGS = tuple(Flag(files.option, name, Path, files.help) for name, files in _PROMPT_FILES.items())


@with_flags((*FLAGS, *_PROMPT_FILE_FLAGS))
def generate(  # a request comes from flags, from files, or from both
    context: typer.Context,
    prompt: Annotated[str | None, typer.Argument(help="What to show.")] = None,
    output_path: Annotated[
        Path | None, typer.Option("-o", "--output", help=".mp4, .gif, .webp, or .png for a folder of pictures.")
    ] = None,
    like: Annotated[
        Path | None, typer.Option(help="Repeat the request inside this file; flags given change it.")
    ] = None,
    request_file: Annotated[
        Path | None, typer.Option("--request", help="A request as YAML or JSON; flags given change it.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any setting of a request, as in sampling.eta=0.5."),
    ] = None,
    metadata: Annotated[bool, typer.Option(help="Store the request in the file.")] = True,
    as_json: Json = False,
    **given: Any,
) -> None:
    """Make a video from a prompt."""
    for name, files in _PROMPT_FILES.items():
        if (path := given.pop(name)) is not None:
            _refuse_others(context, {name, "model", "output_path", "device", "as_json"})
            _run_prompt_file(files, path, given["model"], output_path, given["device"], as_json)
            return
    redo, following = given.pop("redo") or (), given.pop("redo_following")
    if like is not None and request_file is not None:
        raise ConfigError("--like and --request both say what to make; give one of them.")
    embedded = None if like is None else _embedded_request(like)
    request = _request(prompt, given, embedded, request_file, changes or [])

    from muybridge.request.generate_request import check_inputs
    from muybridge.service.generation import generate_file, open_inputs

    inputs = open_inputs(request)
    if embedded is not None:
        check_inputs(inputs, embedded)
    with _output(output_path, request.prompt or "", is_made_anew=bool(redo or following)) as path:
        result = generate_file(request, path, inputs, metadata, not as_json, redo, following)
    _report(result, as_json)


def _request(
    prompt: str | None,
    given: SettingsDict,
    embedded: SettingsDict | None,
    request_file: Path | None,
    changes: list[str],
) -> GenerateRequest:
    """What the flags ask for, over what a file asks for."""
    from muybridge.request import GenerateRequest
    from muybridge.request.changes import changed
    from muybridge.request.flat import over
    from muybridge.request.generate_request import repeated

    document = {} if request_file is None else _read_request(request_file)
    start = document.get("prompt") if embedded is None else embedded.get("prompt")
    flat = _flat(prompt, given, start)
    if embedded is not None:
        request = repeated(embedded, flat)
        return GenerateRequest.parse(changed(request.plain(), changes)) if changes else request
    values = over(document, flat)
    if changes:
        values = changed(values, changes)
    if values.get("prompt") is None:
        raise ConfigError('Give a prompt, as in: muybridge generate "a red circle moving left"')
    return GenerateRequest.parse(values)


def _flat(prompt: str | None, flags: SettingsDict, start: object) -> SettingsDict:
    """The values of flags by flat names; `start` is the prompt of the file that they change."""
    given = plain_flags(flags)
    if prompt is not None:
        given["prompt"] = prompt
    looped = given.pop("looped", False)
    if looped and "windows" not in given:
        raise ConfigError("--looped is about windows; give --window too, as in --window 16/4.")
    readers: dict[str, Callable[[Any], object]] = {
        "keyframes": lambda texts: _parse_frames(texts, "--keyframe FRAME=FILE, as in 0=start.png"),
        "sketches": lambda texts: _parse_frames(texts, "--sketch FRAME=FILE, as in 0=lines.png"),
        "controls": lambda texts: [_parse_control(each) for each in texts],
        "windows": lambda text: _parse_window(text, looped),
        "free_init": lambda passes: {"passes": passes},
        "lora": parse_loras,
        "embeddings": _parse_embeddings,
    }
    given |= {name: read(given[name]) for name, read in readers.items() if name in given}
    if (travel := given.pop("travel", None)) is not None:
        prompts = _parse_frames(travel, "--travel FRAME=TEXT, as in 32='a blue circle'", may_be_empty=True)
        first = start if prompt is None else prompt
        before = first if isinstance(first, dict) else {} if first is None else {0: first}
        if not all(str(frame).isdecimal() for frame in before):
            raise ConfigError("The file's prompts by frame must have frames for names; mend it, or give a prompt.")
        given["prompt"] = dict(sorted({**{int(frame): text for frame, text in before.items()}, **prompts}.items()))
    if (size := given.pop("size", None)) is not None:
        given |= {"fit": size.removeprefix("fit:")} if size.startswith("fit:") else _parse_size(size)
    return given


def _report(result: GenerationResult, as_json: bool) -> None:
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
    output.print(f"{result.path}")
    output.print("  " + ", ".join(_shown(result.settings)))
    if result.placement is not None:
        output.print(f"  {result.placement}")
    output.print(f"  {result.seconds:.1f} s, peak memory {result.peak_memory_bytes / 2**20:.0f} MiB")


def _shown(settings: SettingsView) -> list[str]:
    """The settings in words, without what only matters for repeating them."""
    found = []
    for name, value in settings.items():
        if name in ("made", "inputs") or value in (None, False, [], {}):
            continue
        if name == "conditions":
            found += [each["kind"] for each in value]
        elif isinstance(value, Mapping):
            found += [f"{key} {each}" for key, each in value.items() if each not in (None, False, 0.0, [], {})]
        else:
            found.append(f"{name} {value}")
    return found


def _read_request(path: Path) -> SettingsDict:
    import yaml

    from muybridge.files.validation import YAML_ERRORS, yaml_problem

    try:
        text = path.read_text(encoding="utf-8")
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise ConfigError(f"{path} has aliases of YAML (*name), which a request may not; write the values out.")
        found = yaml.safe_load(text)
    except YAML_ERRORS as error:
        raise ConfigError(f"{path} cannot be read: {yaml_problem(error)}.") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path} is no request: it must hold settings by name, such as prompt and shape.")
    return {name: value for name, value in found.items() if name not in ("made", "inputs")}  # of a run in the past


def _output(
    given: Path | None, prompt: str | dict[int, str], is_made_anew: bool
) -> contextlib.AbstractContextManager[Path]:
    """The file asked for, or a new one named after the prompt; where segments are made anew, that which has them."""
    from muybridge.service.output_names import name_after, reserved_file

    first = prompt if isinstance(prompt, str) else next(iter(prompt.values()))
    if given is None and not is_made_anew:
        return reserved_file(first)
    return contextlib.nullcontext(given or Path(f"{name_after(first)}.mp4"))


def _parse_size(text: str) -> dict[str, int]:
    match = re.fullmatch(r"(\d{1,9})x(\d{1,9})", text)
    if match is None:
        raise ConfigError(f"--size takes WIDTHxHEIGHT in pixels, for example 64x64, or fit:512; given {text!r}.")
    return {"width": int(match.group(1)), "height": int(match.group(2))}


def _refuse_others(context: typer.Context, allowed: set[str]) -> None:
    sources = {name: context.get_parameter_source(name) for name in context.params}
    given = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    options = {flag.name: flag.option for flag in FLAGS}
    if foreign := [options.get(name, name.replace("_", "-")) for name in given if name not in allowed]:
        raise ConfigError(f"A prompt file holds its own prompts and settings; leave {', '.join(foreign)} out.")


def _run_prompt_file(
    files: PromptFiles, path: Path, model: str | None, output_path: Path | None, device: str | None, as_json: bool
) -> None:
    if model is None:
        raise ConfigError(f"--{files.option} needs --model: {files.base}.")
    from muybridge.service.prompt_files import run_prompt_file

    def show(done: int, total: int) -> None:
        errors.print(f"{done}/{total} videos")

    folder = output_path or Path("samples")
    videos = run_prompt_file(files, path, model, folder, device, None if as_json else show)
    if as_json:
        print_json({"path": str(folder), "videos": [str(video) for video in videos]})
        return
    for video in videos:
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


def _parse_control(text: str) -> SettingsDict:
    match = re.fullmatch(r"([^=]+)=(.+?)(?::(\d+\.?\d*|\.\d+))?", text)
    if match is None:
        raise ConfigError(f"--control takes MODEL=VIDEO[:STRENGTH], as in depth=depth.mp4:0.7; given {text!r}.")
    return {"model": match[1], "frames": match[2], "strength": float(match[3] or 1)}


def _parse_window(text: str, looped: bool) -> SettingsDict:
    match = re.fullmatch(r"(\d{1,9})(?:/(\d{1,9}))?", text)
    if match is None:
        raise ConfigError(f"--window takes SIZE or SIZE/OVERLAP in frames, as in 16/4; given {text!r}.")
    settings: SettingsDict = {"size": int(match[1]), "schedule": "looped" if looped else "uniform"}
    return settings if match[2] is None else {**settings, "overlap": int(match[2])}


def _parse_embeddings(texts: list[str]) -> dict[str, str]:
    embeddings: dict[str, str] = {}
    for text in texts:
        match = None if Path(text).exists() else re.fullmatch(r"(.+?):([^:/\\]+)", text)
        path, name = (match[1], match[2]) if match else (text, Path(text).stem)
        if path in embeddings:
            raise ConfigError(f"--embedding names {path} twice.")
        embeddings[path] = name
    return embeddings


def _embedded_request(path: Path) -> SettingsDict:
    from muybridge.video import read_request

    embedded = read_request(path)
    if embedded is None:
        raise ConfigError(f"{path} carries no request; it was made elsewhere, or without metadata.")
    return embedded
