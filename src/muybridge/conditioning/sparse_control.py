"""A SparseCtrl with the pictures of a few frames that it is shown."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor

from muybridge.backbones.unet.sparse_control import SparseControlModel
from muybridge.checkpoints import locate_weights
from muybridge.checkpoints.places import require_kind
from muybridge.conditioning.prepared import Parts, Task
from muybridge.conditioning.residuals import ActiveControl, Influence, Residuals
from muybridge.conditioning.sparse import keyframe_condition, place_pictures, sketch_condition
from muybridge.errors import CheckpointError
from muybridge.request.pictures import Picture
from muybridge.types import VideoShape
from muybridge.vae import encode_images
from muybridge.vae.device import working_device
from muybridge.weights.files import read_weights


def sparse_control_of(
    model: SparseControlModel, pictures: Mapping[int, Image.Image], influence: Influence, parts: Parts, task: Task
) -> ActiveControl:
    """A SparseCtrl of a pipeline in a task, ready to run; see `sparse_control`."""
    adapter = model.motion_adapter
    trained = None if adapter is None else adapter.trained_frames
    positions = None if trained is None else task.frame_positions(trained)
    return sparse_control(model, pictures, task.shape, influence, parts.vae, positions)


def sparse_control(
    model: SparseControlModel,
    pictures: Mapping[int, Picture],
    shape: VideoShape,
    influence: Influence,
    vae: AutoencoderKL,
    frame_positions: Tensor | None = None,
) -> ActiveControl:
    """A SparseCtrl with the pictures that it is shown, ready to run.

    Args:
        model: for pictures ("rgb") or for drawings ("scribble").
        pictures: by frame; negative indexes count from the end.
        shape: of the video.
        influence: when, and how strongly.
        vae: encodes pictures; drawings stay pixels.
        frame_positions: `[f]`, where they are not 0, 1, 2 and so on.

    Raises:
        ConfigError: no pictures, two for one frame, or one that is partly transparent.
        ShapeError: a frame outside the video, or a picture of another aspect ratio.
        InputFileError: a picture that cannot be read.
    """
    placed = place_pictures(pictures, shape.num_frames, shape.height, shape.width)
    size = (shape.num_frames, shape.height, shape.width)
    if model.kind == "scribble":
        condition = sketch_condition(placed, *size)
    else:
        with torch.no_grad():
            device = working_device(vae)
            condition = keyframe_condition(placed, *size, lambda pixels: encode_images(vae, pixels.to(device)))

    def residuals(latents: Tensor, timestep: Tensor, text: Tensor, shown: Tensor) -> Residuals:
        found = model(latents.to(model.dtype), timestep, text.to(model.dtype), shown, frame_positions=frame_positions)
        return Residuals(list(found.down_block_residuals), found.mid_block_residual)

    return ActiveControl(condition, influence, residuals)


def read_sparse_control(path: str | os.PathLike[str], dtype: torch.dtype) -> SparseControlModel:
    """Load a SparseCtrl from a file in the original's layout, or from a folder, here or on the hub.

    Raises:
        CheckpointError: missing, damaged, or something else.
    """
    path = locate_weights(path)
    if path.is_dir():
        return SparseControlModel.from_pretrained(path, torch_dtype=dtype)
    try:
        return SparseControlModel.from_single_file(path, torch_dtype=dtype)
    except CheckpointError:
        require_kind(read_weights(path), "sparse-control", str(path), path.name)
        raise
