"""The everyday settings of a video as flags of the command line: one line each, data and not code."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from muybridge.errors import ConfigError
from muybridge.types import SettingsDict, SettingsView


@dataclass(frozen=True)
class Flag:
    """A flag.

    Attributes:
        option: as it is typed, without dashes.
        name: of the parameter, and of the setting by its flat name.
        type: of its value; `list[...]` where it may be repeated.
        help: what it does.
        metavar: what its value looks like.
        panel: heading in the help; None for the everyday ones.
        default: what it is where it is not given; None, or False of a switch, where it then stays away.
        least: the smallest value allowed.
    """

    option: str
    name: str
    type: type
    help: str
    metavar: str | None = None
    panel: str | None = None
    default: str | int | float | None = None
    least: int | None = None

    def parameter(self) -> inspect.Parameter:
        """As a parameter of a command."""
        is_pair = self.name == "plain_prompt"  # --no-plain-prompt takes it back
        word = f"--{self.option}/--no-{self.option}" if is_pair else f"--{self.option}"
        info = typer.Option(word, help=self.help, metavar=self.metavar, rich_help_panel=self.panel, min=self.least)
        kind, default = self.type, self.default
        if kind is bool and not is_pair:
            default = False
        elif default is None:
            kind = self.type | None
        return inspect.Parameter(
            self.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info]
        )


_MODEL, _PICTURES, _LONG, _MEMORY = "Model", "Pictures and videos", "Long videos", "Speed and memory"

FLAGS: tuple[Flag, ...] = (
    Flag("model", "model", str, "A shipped model, a folder, a hub id, or a single file."),
    Flag("seed", "seed", int, "Same seed, same video; random if not given."),
    Flag("frames", "num_frames", int, "Number of frames."),
    Flag(
        "size",
        "size",
        str,
        "Width x height in pixels; or fit:512 for the shape of the first keyframe or the source video.",
        "WxH",
    ),
    Flag("steps", "num_inference_steps", int, "Denoising steps."),
    Flag("guidance", "guidance_scale", float, "How strongly the prompt is followed; 1 is off."),
    Flag("negative", "negative_prompt", str, "What not to show."),
    Flag("fps", "fps", float, "Frames per second of playback."),
    Flag("motion", "motion_strength", float, "Motion strength; 0 gives stills."),
    Flag("scheduler", "scheduler", str, "Another solver by name."),
    Flag("travel", "travel", list[str], "Another prompt from a frame on, as in 32='night'.", "FRAME=TEXT"),
    Flag("plain-prompt", "plain_prompt", bool, "Read brackets, tags and names of embeddings in prompts as words."),
    Flag(
        "keyframe",
        "keyframes",
        list[str],
        "Pin a picture to a frame, as in 0=start.png and -1=end.png.",
        "FRAME=FILE",
        _PICTURES,
    ),
    Flag("init-video", "init_video", Path, "A video to start from.", None, _PICTURES),
    Flag("strength", "strength", float, "How far the video to start from may change.", None, _PICTURES),
    Flag("mask", "mask", Path, "A picture; what is white in it is made anew.", None, _PICTURES),
    Flag("sketch", "sketches", list[str], "Pin a drawing to a frame, white lines on black.", "FRAME=FILE", _PICTURES),
    Flag(
        "control",
        "controls",
        list[str],
        "A ControlNet, file or folder, and the video that it is shown.",
        "MODEL=VIDEO[:STRENGTH]",
        _PICTURES,
    ),
    Flag(
        "image-prompt",
        "image_prompt",
        list[Path],
        "A picture to take subject and style from; for an IP-Adapter.",
        None,
        _PICTURES,
    ),
    Flag("image-prompt-strength", "image_prompt_strength", float, "How much the picture counts.", None, _PICTURES),
    Flag(
        "window",
        "windows",
        str,
        "Frames of a longer video that are seen at once, as in 16/4.",
        "SIZE[/OVERLAP]",
        _LONG,
    ),
    Flag("looped", "looped", bool, "With --window: the video goes on from its end.", None, _LONG),
    Flag("free-noise", "free_noise", bool, "With --window: noise that repeats.", None, _LONG),
    Flag("free-init", "free_init", int, "Denoise so many times.", None, _LONG),
    Flag("segment", "segment_frames", int, "Frames made at once of a long video.", None, _LONG),
    Flag("overlap", "overlap_frames", int, "Frames that the segments of a long video share.", None, _LONG),
    Flag(
        "overlap-strategy",
        "overlap_strategy",
        str,
        "crossfade or latent: what a segment continues from.",
        None,
        _LONG,
    ),
    Flag("redo", "redo", list[int], "Make this segment of a long video anew.", None, _LONG),
    Flag("redo-following", "redo_following", bool, "With --redo: those behind it too.", None, _LONG),
    Flag(
        "motion-adapter",
        "motion_adapter",
        str,
        "A motion module instead of the model's own: a file, a folder, or one on the hub.",
        None,
        _MODEL,
    ),
    Flag(
        "motion-variant",
        "motion_variant",
        str,
        "What its file is, where keys, shapes and name fit several, as in animatelcm.",
        None,
        _MODEL,
    ),
    Flag("lora", "lora", list[str], "Load a LoRA, as in style.safetensors:0.8.", "FILE[:WEIGHT]", _MODEL),
    Flag(
        "embedding",
        "embeddings",
        list[str],
        "An embedding (textual inversion) that prompts name.",
        "FILE[:NAME]",
        _MODEL,
    ),
    Flag("vae", "vae", str, "Another VAE: a file or folder, here or on the hub.", "FILE", _MODEL),
    Flag("parts-from", "parts_from", str, "A folder or hub id with what a single-file model lacks.", None, _MODEL),
    Flag(
        "prediction",
        "prediction",
        str,
        "What the model predicts, where nothing beside it says so.",
        "epsilon|v|sample",
        _MODEL,
    ),
    Flag(
        "keyframe-control",
        "keyframe_control",
        str,
        "A SparseCtrl for keyframes, where the model has none.",
        None,
        _MODEL,
    ),
    Flag("sketch-control", "sketch_control", str, "A SparseCtrl for sketches, where the model has none.", None, _MODEL),
    Flag(
        "image-prompt-adapter", "image_prompt_adapter", str, "An IP-Adapter: a file, or one on the hub.", None, _MODEL
    ),
    Flag(
        "image-encoder",
        "image_encoder",
        str,
        "The folder of its CLIP encoder; by default image_encoder beside it.",
        None,
        _MODEL,
    ),
    Flag("device", "device", str, "cpu, cuda, cuda:1, ...; by default the best there is.", None, _MEMORY),
    Flag(
        "dtype",
        "dtype",
        str,
        "float32, bfloat16, float16, or auto; by default what a card does well, and float32 on a CPU.",
        None,
        _MEMORY,
    ),
    Flag(
        "memory",
        "memory",
        str,
        "What may be used of the device: an amount, auto for what is free (the default on a card), or max for all.",
        "12GB|auto|max",
        _MEMORY,
    ),
    Flag("speed", "speed", list[str], "An optimization by name, as in compile or channels_last.", "NAME", _MEMORY),
)

PARTS_OF_MODELS = tuple(
    flag for flag in FLAGS if flag.panel == _MODEL and flag.name not in ("model", "embeddings", "prediction")
)
"""What is put into a model and takes memory."""


def with_flags(flags: Sequence[Flag]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator that gives a command these flags; it gets their values by name, together, as `given`.

    The command's own parameters stay; its last one must be `**given`.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [
            each
            for each in inspect.signature(command, eval_str=True).parameters.values()
            if each.kind != each.VAR_KEYWORD
        ]
        parameters = [*own, *(flag.parameter() for flag in flags)]

        def run(**values: object) -> None:
            command(**values)

        run.__name__, run.__doc__, run.__module__ = command.__name__, command.__doc__, command.__module__
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # what typer reads
            [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
        )
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return decorate


def plain_flags(given: SettingsView) -> SettingsDict:
    """Those that were given, paths as text."""
    found: SettingsDict = {}
    for name, value in given.items():
        if value is None or (value is False and name != "plain_prompt") or value in ([], ()):
            continue
        if isinstance(value, (list, tuple)):
            found[name] = [str(each) if isinstance(each, Path) else each for each in value]
        else:
            found[name] = str(value) if isinstance(value, Path) else value
    return found


def parse_loras(texts: Sequence[str]) -> dict[str, float]:
    """Files and weights, of values of `--lora`.

    Raises:
        ConfigError: a file named twice.
    """
    loras: dict[str, float] = {}
    for text in texts:
        match = re.fullmatch(r"(.+?)(?::([+-]?(?:\d+\.?\d*|\.\d+)))?", text)
        path, weight = (match[1], float(match[2] or 1)) if match else (text, 1.0)
        if path in loras:
            raise ConfigError(f"--lora names {path} twice.")
        loras[path] = weight
    return loras
