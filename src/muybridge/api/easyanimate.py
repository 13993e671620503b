"""EasyAnimate's own endpoints, for programs that know no others; off unless asked for."""

from __future__ import annotations

import base64
from pathlib import PurePosixPath
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.concurrency import run_in_threadpool

from muybridge.api.bodies import Kept, data_url
from muybridge.api.errors import ApiError
from muybridge.api.fields import parse_json
from muybridge.api.files import result_of
from muybridge.api.service import Owner, Service, Shared
from muybridge.api.submitting import finished, submit_fields
from muybridge.errors import ConfigError, MuybridgeError
from muybridge.files.validation import describe_validation
from muybridge.jobs.record import Job
from muybridge.types import SettingsDict

router = APIRouter(prefix="/easyanimate", tags=["easyanimate"])

_SAMPLERS = {"Euler": "euler", "Euler A": "euler-a", "DPM++": "dpm++2m", "PNDM": "pndm", "DDIM": "ddim"}
_EDITIONS = ("v3",)
_NONE = "none"
_NEGATIVE = (
    "Blurring, mutation, deformation, distortion, dark and solid, comics, text subtitles, line art."
)


class Forward(BaseModel):
    """What EasyAnimate's client sends, with the values it leaves out."""

    model_config = ConfigDict(extra="ignore")  # every edition sends some that only another has

    base_model_path: str = _NONE
    motion_module_path: str = _NONE
    lora_model_path: str = _NONE
    lora_alpha_slider: float = 0.55
    prompt_textbox: str = ""
    negative_prompt_textbox: str = _NEGATIVE
    sampler_dropdown: Literal["Euler", "Euler A", "DPM++", "PNDM", "DDIM"] = "Euler"
    sample_step_slider: int = 30
    resize_method: Literal["Generate by", "Resize to the Start Image"] = "Generate by"
    width_slider: int = 672
    height_slider: int = 384
    base_resolution: int = 512
    is_image: bool = False
    generation_method: Literal["Video Generation", "Image Generation", "Long Video Generation", False] = False
    length_slider: int = 49
    overlap_video_length: int = 4
    partial_video_length: int = 72
    cfg_scale_slider: float = 6.0
    start_image: str | None = None
    end_image: str | None = None
    validation_video: str | None = None
    validation_video_mask: str | None = None
    control_video: str | None = None
    denoise_strength: float = 0.7
    seed_textbox: int = 43

    @property
    def is_picture(self) -> bool:
        """Whether one frame is wanted, as a picture."""
        return self.is_image or self.generation_method == "Image Generation"

    def fields(self, model: str) -> SettingsDict:
        """As fields of our own calls."""
        if self.control_video:
            raise ConfigError("control_video: EasyAnimate V3 follows no control video; leave it out.")
        found: SettingsDict = {
            "model": model if self.base_model_path == _NONE else _name(self.base_model_path),
            "prompt": self.prompt_textbox,
            "negative_prompt": self.negative_prompt_textbox,
            "plain_prompt": True,
            "scheduler": _SAMPLERS[self.sampler_dropdown],
            "num_inference_steps": self.sample_step_slider,
            "guidance_scale": self.cfg_scale_slider,
            "num_frames": 1 if self.is_picture else self.length_slider,
            **self._size(),
            **self._conditions(),
        }
        if self.seed_textbox >= 0:
            found["seed"] = self.seed_textbox
        if self.motion_module_path != _NONE:
            found["motion_adapter"] = _name(self.motion_module_path)
        if self.lora_model_path != _NONE:
            found["lora"] = {_name(self.lora_model_path): self.lora_alpha_slider}
        if self.generation_method == "Long Video Generation" and not self.is_picture:
            found |= {"segment_frames": self.partial_video_length, "overlap_frames": self.overlap_video_length}
        return found

    def _size(self) -> SettingsDict:
        if self.resize_method == "Generate by":
            return {"width": self.width_slider, "height": self.height_slider}
        return {"fit": self.base_resolution}

    def _conditions(self) -> SettingsDict:
        found: SettingsDict = {}
        pictures = {"0": self.start_image, "-1": self.end_image}
        if keyframes := {frame: data_url(each) for frame, each in pictures.items() if each}:
            found["keyframes"] = keyframes
        if self.validation_video:
            found |= {"init_video": data_url(self.validation_video), "strength": self.denoise_strength}
        if self.validation_video_mask:
            found["mask"] = data_url(self.validation_video_mask)
        return found
