"""ControlNets: a picture of every frame, and a network that is made for it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from diffusers import ControlNetModel
from torch import Tensor, nn

from muybridge.checkpoints.control_files import read_control
from muybridge.conditioning.prepared import Parts, Task
from muybridge.conditioning.residuals import ActiveControl, Influence, Residuals
from muybridge.errors import ConfigError, ShapeError
from muybridge.request.pictures import Picture, open_picture, resized
from muybridge.video import Video


class AskedControl(Protocol):
    """What is needed of the condition."""

    model: str | os.PathLike[str] | ControlNetModel
    frames: Video | Sequence[Picture] | np.ndarray
    strength: float
    start: float
    end: float


def dense_control(asked: AskedControl, parts: Parts, task: Task) -> ActiveControl:
    """A ControlNet, ready to run in the steps of a task.

    Args:
        asked: the condition, with `model`, `frames`, `strength`, `start` and `end`.
        parts: of the model.
        task: what is made.

    Raises:
        ConfigError: strength or influence out of range, or a network for another image model.
        ShapeError: not a picture for each frame.
        InputFileError: a picture that cannot be read.
        CheckpointError: the network cannot be loaded.
    """
    shape = task.shape
    influence = Influence.during(asked.strength, asked.start, asked.end, task.timesteps)
    if isinstance(name := asked.model, (str, os.PathLike)):
        model = task.inputs.once(("control", os.fspath(name)), lambda: read_control(name, parts.backbone.dtype))
    else:
        model = name
    _place(model, parts)
    frames = asked.frames
    if isinstance(frames, Sequence) and not isinstance(frames, str):
        frames = [task.inputs.picture(each, f"Picture {i} of a control") for i, each in enumerate(frames)]
    else:
        frames = task.inputs.video(frames, None)
    pixels = control_pixels(frames, shape.num_frames, shape.height, shape.width)

    def residuals(latents: Tensor, timestep: Tensor, text: Tensor, shown: Tensor) -> Residuals:
        return dense_residuals(model, latents, timestep, text, shown)

    return ActiveControl(pixels, influence, residuals)


def _place(model: ControlNetModel, parts: Parts) -> None:
    """Move a ControlNet, which is no part of a pipeline, to where it runs."""
    for name in ("block_out_channels", "cross_attention_dim", "layers_per_block", "in_channels"):
        has, needed = (_plain(network.config[name]) for network in (model, parts.backbone))
        if has != needed:
            raise ConfigError(
                f"This ControlNet is for another image model: its {name} is {has}, and the U-Net's is {needed}. "
                "Use one for the family of the model."
            )
    nn.Module.to(model, parts.working_device)


def _plain(setting: object) -> object:
    """A list for what a file has as one, and what made the network as a tuple."""
    return list(setting) if isinstance(setting, Sequence) else setting


def control_pixels(frames: Video | Sequence[Picture] | np.ndarray, num_frames: int, height: int, width: int) -> Tensor:
    """Pictures of a control as `float32 [1, 3, f, h, w]` in [0, 1].

    Raises:
        ShapeError: not a picture for each frame.
        InputFileError: a picture that cannot be read.
    """
    pictures = frames.frames if isinstance(frames, Video) else frames
    if len(pictures) < num_frames:
        raise ShapeError(f"A dense control needs a picture for each of {num_frames} frames; given {len(pictures)}.")
    array = np.stack(
        [
            resized(open_picture(picture, f"Picture {index} of a control"), height, width)
            for index, picture in enumerate(pictures[:num_frames])
        ]
    )
    return torch.from_numpy(array).permute(3, 0, 1, 2)[None].float().div_(255)


def dense_residuals(
    model: ControlNetModel, latents: Tensor, timestep: Tensor, text: Tensor, pixels: Tensor
) -> Residuals:
    """Run a ControlNet on every frame by itself.

    Args:
        model: the ControlNet.
        latents: `[b, c, f, h, w]`.
        timestep: one for all.
        text: `[b, n, d]`, or `[b, f, n, d]` with a text for each frame.
        pixels: `[b, 3, f, H, W]` in [0, 1].
    """
    batch, num_frames = latents.shape[0], latents.shape[2]
    states = text.flatten(0, 1) if text.ndim == 4 else text.repeat_interleave(num_frames, dim=0)
    images, pictures = (x.transpose(1, 2).flatten(0, 1).to(model.dtype) for x in (latents, pixels))
    down, mid = model(images, timestep, states.to(model.dtype), pictures, return_dict=False)

    def unfolded(x: Tensor) -> Tensor:
        return x.unflatten(0, (batch, num_frames)).transpose(1, 2).to(latents.dtype)

    return Residuals([unfolded(each) for each in down], unfolded(mid))
