"""What an AnimateDiff video must obey besides its text, from the arguments of a call to what a step needs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.backbones.unet.sparse_control import SparseControlModel
from muybridge.checkpoints import locate_weights
from muybridge.checkpoints.places import require_kind
from muybridge.conditioning import Picture, pin_video
from muybridge.conditioning.sparse import keyframe_condition, place_pictures, sketch_condition
from muybridge.errors import CheckpointError, ConfigError
from muybridge.pipelines.controls import DenseControl, Influence, Residuals, control_pixels, dense_residuals
from muybridge.pipelines.source_video import SourceVideo, Usual
from muybridge.types import ScaleFactors, VideoShape
from muybridge.vae import encode_images
from muybridge.vae.device import working_device
from muybridge.video import Video
from muybridge.weights.files import read_weights

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

USUAL_FRAMES, _FPS = 16, 8.0

ResidualsOf = Callable[[Tensor, Tensor, Tensor, Tensor], Residuals]
"""(latents, timestep, text states, the condition `[b, c, f, h, w]`) -> what is added to the U-Net."""


@dataclass(frozen=True, eq=False)
class Control:
    """A network beside the U-Net, ready to run.

    Attributes:
        condition: what it is shown, `[1, c, f, h, w]`, the same for all videos of a batch.
        influence: when, and how strongly.
        residuals: runs it.
    """

    condition: Tensor
    influence: Influence
    residuals: ResidualsOf


class ControlledUNet:
    """The U-Net with the networks beside it: what guidance calls in every step.

    Latents stay float32 between the steps, whatever the U-Net computes in. Conditions named `control_0`, `control_1`
    and so on belong to the networks, `motion_strengths [b, f]` are strengths by frame, and others go to the U-Net.
    Where each frame has a text of its own, `text_embeds [b, f, d]` too; the U-Net is told their mean.
    """

    def __init__(
        self,
        unet: UNet3DConditionModel,
        settings: Mapping[str, Any] | None = None,
        controls: Sequence[Control] = (),
    ) -> None:
        """`settings` are further arguments of the U-Net."""
        self.unet = unet
        self._settings = dict(settings or {})
        self._controls = controls
        self._level: float | None = None

    def begin_step(self, level: float) -> None:
        """Say at which noise level (timestep) the next step is; networks that do not count there are not run."""
        self._level = level

    def __call__(self, latents: Tensor, timestep: Tensor, /, **conditions: Tensor) -> Tensor:
        """The prediction for `latents [b, c, f, h, w]`."""
        latents = latents.to(self.unet.dtype)
        settings = dict(self._settings)
        if "motion_strengths" in conditions:
            settings["motion_strength"] = conditions.pop("motion_strengths")[0]
        if "text_embeds" in conditions and conditions["text_embeds"].ndim == 3:
            conditions["text_embeds"] = conditions["text_embeds"].mean(dim=1)
        total: Residuals | None = None
        for name, control in zip(control_names(self._controls), self._controls, strict=True):
            shown = conditions.pop(name)
            if self._level is None or control.influence.counts_at(self._level):
                residuals = control.residuals(latents, timestep, conditions["encoder_hidden_states"], shown)
                total = residuals.times(control.influence.strength).plus(total)
        if total is not None:
            settings |= {
                "down_block_additional_residuals": total.down,
                "mid_block_additional_residual": total.mid,
            }
        return self.unet(latents, timestep, **conditions, **settings).sample.float()


def control_names(controls: Sequence[Control]) -> list[str]:
    """Names of the conditions of `controls`."""
    return [f"control_{index}" for index in range(len(controls))]


def dense_controls(controls: Sequence[DenseControl], shape: VideoShape, timesteps: Tensor) -> list[Control]:
    """ControlNets, ready to run in the steps `timesteps`.

    Raises:
        ConfigError: strength or influence out of range.
        ShapeError: not a picture for each frame.
        InputFileError: a picture that cannot be read.
    """
    return [
        Control(
            control_pixels(each.frames, shape.num_frames, shape.height, shape.width),
            Influence.during(each.strength, each.start, each.end, timesteps),
            _dense(each),
        )
        for each in controls
    ]


def _dense(control: DenseControl) -> ResidualsOf:
    def residuals(latents: Tensor, timestep: Tensor, text: Tensor, pixels: Tensor) -> Residuals:
        return dense_residuals(control.model, latents, timestep, text, pixels)

    return residuals


def sparse_control(
    model: SparseControlModel,
    pictures: Mapping[int, Picture],
    shape: VideoShape,
    influence: Influence,
    vae: Any,
    frame_positions: Tensor | None = None,
) -> Control:
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

    return Control(condition, influence, residuals)


def sparse_controls(
    models: Mapping[str, SparseControlModel | None],
    pictures: Mapping[str, Mapping[int, Picture] | None],
    shape: VideoShape,
    influence: Influence,
    vae: Any,
    positions: Callable[[int], Tensor | None],
) -> list[Control]:
    """The SparseCtrls that a call has pictures for, ready to run; see `sparse_control`.

    Args:
        models: "keyframes" and "sketches", or None where the pipeline has none.
        pictures: likewise, or None where the call has none.
        shape: of the video.
        influence: when, and how strongly.
        vae: encodes pictures.
        positions: from the frames a motion module was trained on to the positions of this video's.

    Raises:
        ConfigError: pictures without their SparseCtrl, and as of `sparse_control`.
    """
    found = []
    for what, given in pictures.items():
        if given is None:
            continue
        if (model := models[what]) is None:
            raise ConfigError(
                f"This pipeline has no SparseCtrl for {what}; give it one with pipe.set_sparse_control(model), or "
                "name its file."
            )
        adapter = model.motion_adapter
        trained = None if adapter is None else adapter.trained_frames
        own = None if trained is None else positions(trained)
        found.append(sparse_control(model, given, shape, influence, vae, own))
    return found


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


def check_source(init_video: object, strength: float | None) -> float:
    """The share of the noise levels to run through.

    Raises:
        ConfigError: out of range, or without a video to start from.
    """
    if strength is not None and init_video is None:
        raise ConfigError("strength says how far init_video may change; give that too.")
    if strength is not None and not 0 < strength <= 1:
        raise ConfigError(f"strength must be above 0 and at most 1; given {strength}.")
    return 1.0 if init_video is None else 0.8 if strength is None else strength


def usual_of(unet: UNet3DConditionModel, factors: ScaleFactors, windows: object | None) -> Usual:
    """What is made where neither a call nor a source video says anything; with `windows` of any length."""
    sample_size = unet.config["sample_size"]
    side = sample_size * factors.spatial if isinstance(sample_size, int) else None
    size = None if side is None else (side, side)
    return Usual(USUAL_FRAMES, size, _FPS, factors.spatial, lambda most: most, windows is None, _longer_by_windows)


def _longer_by_windows(num_frames: int) -> str:
    return f"For all, give num_frames={num_frames} with windows (--frames {num_frames} --window 16)."


def source_frames(init_video: SourceVideo, shape: VideoShape) -> np.ndarray:
    """Frames to start from, `uint8 [f, h, w, 3]`, stretched to the size of the video.

    Raises:
        ShapeError: fewer frames than asked for.
    """
    frames = init_video.frames if isinstance(init_video, Video) else init_video
    return pin_video(frames, None, shape.num_frames, shape.height, shape.width).frames


def encode_source(vae: AutoencoderKL, frames: np.ndarray, device: torch.device, chunk: int = 8) -> Tensor:
    """Mean latents of frames `uint8 [f, h, w, 3]`: `float32 [1, c, f, h, w]`, scaled; `chunk` frames at once."""
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)
    with torch.no_grad():
        pieces = [encode_images(vae, each.to(device).float() / 127.5 - 1) for each in pixels.split(chunk)]
    return torch.cat(pieces).transpose(0, 1)[None]
