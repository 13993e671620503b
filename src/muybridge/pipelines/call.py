"""The arguments of a pipeline's call by name, for editors and type checkers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from torch import Tensor

from muybridge.pipelines.base import OutputType, StepCallback
from muybridge.pipelines.progress import OnProgress
from muybridge.request import Condition, FreeInit, Inputs, Picture, Positions, WindowSettings


class CallSettings(TypedDict, total=False):
    """Everything besides the prompts; None is the model's own. Other packages' conditions bring names of their own."""

    plain_prompt: bool
    num_frames: int | None
    height: int | None
    width: int | None
    fit: int | None
    fps: float | None
    seed: int | None
    num_inference_steps: int | None
    guidance_scale: float | None
    scheduler: str | None
    eta: float
    windows: WindowSettings | None
    free_noise: bool
    free_init: FreeInit | None
    profile: str | None
    clip_apply_ratio: float | None
    motion_strength: float | Sequence[float]
    positions: Positions
    conditions: Sequence[Condition]
    keyframes: Mapping[int, Picture] | None
    sketches: Mapping[int, Picture] | None
    control_strength: float
    control_start: float
    control_end: float
    init_video: Any
    strength: float | None
    mask: Any
    controls: Sequence[Condition]
    image_prompt: Picture | Sequence[Picture] | None
    image_prompt_strength: float
    known_latents: Mapping[int, Tensor] | None
    motion_condition: Tensor | None
    latents: Tensor | None
    prompt_embeds: Tensor | None
    negative_prompt_embeds: Tensor | None
    pooled_prompt_embeds: Tensor | None
    negative_pooled_prompt_embeds: Tensor | None
    prompt_mask: Tensor | None
    negative_prompt_mask: Tensor | None
    original_size: tuple[int, int] | None
    crops_coords_top_left: tuple[int, int]
    target_size: tuple[int, int] | None
    negative_original_size: tuple[int, int] | None
    negative_crops_coords_top_left: tuple[int, int]
    negative_target_size: tuple[int, int] | None
    num_videos_per_prompt: int
    output_type: OutputType
    callback_on_step_end: StepCallback | None
    batched_guidance: bool | None
    on_progress: OnProgress | None
    inputs: Inputs | None
