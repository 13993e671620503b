"""From a request to the arguments of a pipeline: files read, settings that a family does not have refused."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from muybridge.checkpoints.control_files import read_control
from muybridge.conditioning import fit_size, open_picture
from muybridge.errors import ConfigError, ShapeError
from muybridge.pipelines import AnimateDiffPipeline, EasyAnimatePipeline
from muybridge.pipelines.animatediff_conditions import read_sparse_control
from muybridge.pipelines.controls import DenseControl
from muybridge.sampling import FreeInit, WindowSettings
from muybridge.service.requests import GenerateRequest
from muybridge.video import Video, read_video

_OF_EASYANIMATE = frozenset(
    {
        "profile",
        "clip_apply_ratio",
        "mask",
        "fit",
        "segment_frames",
        "overlap_frames",
        "overlap_strategy",
    }
)
_OF_ANIMATEDIFF = frozenset(
    {
        "motion_variant",
        "parts_from",
        "embeddings",
        "sketches",
        "keyframe_control",
        "sketch_control",
        "control_strength",
        "control_start",
        "control_end",
        "controls",
        "image_prompt",
        "image_prompt_strength",
        "image_prompt_adapter",
        "image_encoder",
        "windows",
        "free_noise",
        "free_init",
        "positions",
    }
)
_NOT_OF_THE_CALL = frozenset(
    {
        "model",
        "motion_adapter",
        "motion_variant",
        "parts_from",
        "vae",
        "prediction",
        "lora",
        "embeddings",
        "keyframe_control",
        "sketch_control",
        "image_prompt_adapter",
        "image_encoder",
        "fit",
        "segment_frames",
        "overlap_frames",
        "overlap_strategy",
    }
)


@dataclass(frozen=True, eq=False)
class Inputs:
    """The files of a request, opened; None for those that it does not name.

    Attributes:
        keyframes: pictures by frame.
        init_video: frames and their rate.
        mask: `uint8 [h, w]`.
        sketches: drawings by frame.
        control_frames: what each ControlNet is shown.
        image_prompt: pictures for an IP-Adapter.
    """

    keyframes: dict[int, Image.Image] | None
    init_video: Video | None
    mask: npt.NDArray[np.uint8] | None
    sketches: dict[int, Image.Image] | None = None
    control_frames: tuple[Video, ...] = ()
    image_prompt: tuple[Image.Image, ...] | None = None


def open_inputs(request: GenerateRequest) -> Inputs:
    """Open the files of a request, each once, and check what needs no model: call it before one is loaded.

    Raises:
        ConfigError: settings that exclude each other or have no effect; a mask that is black everywhere.
        InputFileError: a file that is missing or cannot be read.
        ShapeError: a mask of another size than the source video.
    """
    _check_fit(request)
    _check_networks(request)
    if request.init_video is None and (request.mask is not None or request.strength is not None):
        raise ConfigError("mask and strength are about a video to start from; give init_video too.")
    pictures: dict[str, dict[int, Image.Image]] = {}
    for name, files in {"keyframe": request.keyframes, "sketch": request.sketches}.items():
        if files is not None:
            pictures[name] = {frame: open_picture(path, f"The {name} {frame}") for frame, path in files.items()}
    styles = None
    if request.image_prompt is not None:
        styles = tuple(open_picture(path, "The image prompt") for path in request.image_prompt)
    shown = tuple(read_video(Path(control.frames), request.num_frames) for control in request.controls or ())
    video = None if request.init_video is None else read_video(Path(request.init_video), request.num_frames)
    mask = None if request.mask is None else np.asarray(open_picture(request.mask, "The mask").convert("L"))
    if video is not None and mask is not None:
        _check_mask(mask, video)
    return Inputs(pictures.get("keyframe"), video, mask, pictures.get("sketch"), shown, styles)


def _check_fit(request: GenerateRequest) -> None:
    if request.fit is None:
        return
    if request.width is not None or request.height is not None:
        raise ConfigError("fit takes the size from a keyframe or source video; leave width and height out.")
    if request.keyframes is None and request.init_video is None:
        raise ConfigError(
            "fit takes the size from the first keyframe, as in 0=start.png, or from the source video; give one of them."
        )


def _check_networks(request: GenerateRequest) -> None:
    """Whether every network that the request names has something to be shown, or to belong to."""
    if request.image_encoder is not None and request.image_prompt_adapter is None:
        raise ConfigError("image_encoder is that of an image prompt adapter; give image_prompt_adapter too.")
    for network, shown in (
        ("image_prompt_adapter", "image_prompt"),
        ("keyframe_control", "keyframes"),
        ("sketch_control", "sketches"),
    ):
        if getattr(request, network) is not None and getattr(request, shown) is None:
            raise ConfigError(f"{network} has no effect without {shown}; give {shown} too, or leave it out.")


def _check_mask(mask: npt.NDArray[np.uint8], video: Video) -> None:
    if mask.shape != (video.height, video.width):
        raise ShapeError(
            f"The mask must be {video.width}x{video.height} like the source video; given "
            f"{mask.shape[1]}x{mask.shape[0]}."
        )
    brightest = int(mask.max())
    if brightest == 0 or 1 < brightest <= 127:  # a mask may also be of zeros and ones
        raise ConfigError("The mask is black everywhere: nothing is to be made. White marks what is made anew.")


def animatediff_arguments(
    request: GenerateRequest, pipeline: AnimateDiffPipeline, inputs: Inputs | None = None
) -> dict[str, Any]:
    """Arguments of `AnimateDiffPipeline`; SparseCtrls that the request names are loaded and given to it.

    Args:
        request: with the settings.
        pipeline: of the model.
        inputs: the files of `request`; by default they are opened here.

    Raises:
        ConfigError: a setting that this family does not have.
        CheckpointError: a network beside the U-Net that cannot be loaded.
        MuybridgeError: as `open_inputs`.
    """
    opened = open_inputs(request) if inputs is None else inputs
    arguments = _arguments(request, opened, _OF_EASYANIMATE, "An AnimateDiff", "an EasyAnimate")
    _load_embeddings(request, pipeline)
    for name, kind in (("keyframe_control", "rgb"), ("sketch_control", "scribble")):
        if (path := getattr(request, name)) is not None:
            model = read_sparse_control(path, pipeline.unet.dtype)
            if model.kind != kind:
                raise ConfigError(f"{path} is a SparseCtrl for {model.kind}, and {name} needs one for {kind}.")
            pipeline.set_sparse_control(model)
    if request.image_prompt_adapter is not None:
        pipeline.load_image_prompt_adapter(request.image_prompt_adapter, request.image_encoder)
    if request.controls is not None:
        arguments["controls"] = [
            DenseControl(
                read_control(control.model, pipeline.unet.dtype), frames, control.strength, control.start, control.end
            )
            for control, frames in zip(request.controls, opened.control_frames, strict=True)
        ]
    if request.windows is not None:
        arguments["windows"] = WindowSettings(**request.windows.model_dump())
    if request.free_init is not None:
        arguments["free_init"] = FreeInit(**request.free_init.model_dump())
    return arguments


def _load_embeddings(request: GenerateRequest, pipeline: AnimateDiffPipeline) -> None:
    for path, name in (request.embeddings or {}).items():
        pipeline.load_embedding(path, name)
    prompts = request.prompt.values() if isinstance(request.prompt, dict) else [request.prompt]
    texts = [] if request.plain_prompt else [*prompts, request.negative_prompt or ""]
    used = pipeline.embeddings_in(texts)
    if idle := [name for path, name in (request.embeddings or {}).items() if path not in used]:
        warnings.warn(f"No prompt names the embedding {', '.join(idle)}, so it does nothing.", stacklevel=2)


def _arguments(
    request: GenerateRequest, opened: Inputs, foreign_names: frozenset[str], family: str, other: str
) -> dict[str, Any]:
    given = request.model_dump(exclude_none=True)
    if foreign := sorted(given.keys() & foreign_names):
        raise ConfigError(f"{family} model has no {', '.join(foreign)}; leave out, or use {other} model.")
    arguments = {name: value for name, value in given.items() if name not in _NOT_OF_THE_CALL}
    for name in ("keyframes", "sketches", "init_video", "mask", "image_prompt"):
        if (value := getattr(opened, name)) is not None:
            arguments[name] = value
    return arguments


def easyanimate_arguments(
    request: GenerateRequest, pipeline: EasyAnimatePipeline, inputs: Inputs | None = None
) -> dict[str, Any]:
    """Arguments of `EasyAnimatePipeline`.

    Args:
        request: with the settings.
        pipeline: of the model.
        inputs: the files of `request`; by default they are opened here.

    Raises:
        MuybridgeError: as `open_inputs`.
    """
    opened = open_inputs(request) if inputs is None else inputs
    arguments = _arguments(request, opened, _OF_ANIMATEDIFF, "An EasyAnimate", "an AnimateDiff")
    if isinstance(request.prompt, dict):
        raise ConfigError("An EasyAnimate model has one prompt for all frames; give one, or use an AnimateDiff model.")
    shown = opened.init_video
    if opened.keyframes is not None:
        shown = opened.keyframes[min(opened.keyframes, key=lambda frame: (frame < 0, frame))]
    if request.fit is not None and shown is not None:
        size = fit_size(shown.height, shown.width, request.fit, pipeline.size_multiple)
        arguments["height"], arguments["width"] = size
    return arguments
