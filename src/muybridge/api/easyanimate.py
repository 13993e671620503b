"""EasyAnimate's own endpoints, for programs that know no others; off unless asked for."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.concurrency import run_in_threadpool

from muybridge.api.bodies import Kept
from muybridge.api.errors import ApiError, of_muybridge
from muybridge.api.fields import parse_json
from muybridge.api.service import Owner, Service, Shared
from muybridge.api.submitting import finished, submit
from muybridge.errors import ConfigError, MuybridgeError
from muybridge.files.validation import describe_validation
from muybridge.jobs.record import Job
from muybridge.types import SettingsDict

router = APIRouter(prefix="/easyanimate", tags=["easyanimate"])

_SAMPLERS = {"Euler": "euler", "Euler A": "euler-a", "DPM++": "dpm++2m", "PNDM": "pndm", "DDIM": "ddim"}
_EDITIONS = ("v3",)
_NONE = "none"
_DEFAULT = "demo/easyanimate"
_NEGATIVE = "Blurring, mutation, deformation, distortion, dark and solid, comics, text subtitles, line art."


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

    def fields(self, model: str, kept: Kept) -> SettingsDict:
        """As fields of our own calls; files are kept.

        Raises:
            MuybridgeError: a file that cannot be used, or what EasyAnimate V3 cannot do.
        """
        if self.control_video:
            raise ConfigError("control_video: EasyAnimate V3 follows no control video; leave it out.")
        names = kept.service.catalog
        found: SettingsDict = {
            "model": model if self.base_model_path == _NONE else _name(self.base_model_path, names.names("models")),
            "prompt": self.prompt_textbox,
            "negative_prompt": self.negative_prompt_textbox,
            "plain_prompt": True,
            "scheduler": _SAMPLERS[self.sampler_dropdown],
            "num_inference_steps": self.sample_step_slider,
            "guidance_scale": self.cfg_scale_slider,
            "num_frames": 1 if self.is_picture else self.length_slider,
            **self._size(),
            **self._conditions(kept),
        }
        if self.seed_textbox >= 0:
            found["seed"] = self.seed_textbox
        if self.motion_module_path != _NONE:
            found["motion_adapter"] = _name(self.motion_module_path, names.names("motion_adapters"))
        if self.lora_model_path != _NONE:
            found["lora"] = {_name(self.lora_model_path, names.names("loras")): self.lora_alpha_slider}
        if self.generation_method == "Long Video Generation" and not self.is_picture:
            found |= {"segment_frames": self.partial_video_length, "overlap_frames": self.overlap_video_length}
        return found

    def _size(self) -> SettingsDict:
        if self.resize_method == "Generate by":
            return {"width": self.width_slider, "height": self.height_slider}
        return {"fit": self.base_resolution}

    def _conditions(self, kept: Kept) -> SettingsDict:
        found: SettingsDict = {}
        pictures = {"0": ("start_image", self.start_image), "-1": ("end_image", self.end_image)}
        keyframes = {frame: _upload(kept, text, name) for frame, (name, text) in pictures.items() if text}
        if keyframes:
            found["keyframes"] = keyframes
        if self.validation_video:
            found["init_video"] = _upload(kept, self.validation_video, "validation_video")
            found["strength"] = self.denoise_strength
        if self.validation_video_mask:
            found["mask"] = _upload(kept, self.validation_video_mask, "validation_video_mask")
        return found


def _upload(kept: Kept, text: str, name: str) -> str:
    body = text.partition(",")[2] if text.startswith("data:") else text
    return kept.reference(f"data:;base64,{body}", name)[0]


def _name(path: str, known: list[str]) -> str:
    """A name of the catalog for a path of EasyAnimate's folders: the path itself or its last part."""
    last = PurePosixPath(path)
    return path if path in known else last.name if last.name in known else last.stem if last.stem in known else path


@router.post("/update_edition")
async def update_edition(request: Request, service: Shared, owner: Owner) -> dict[str, str]:
    """Accept the edition that is served, so that clients that begin so go on."""
    del service, owner
    edition = (await _body(request)).get("edition", "v2")
    if edition in _EDITIONS:
        return {"message": "Success"}
    return _failure(f"edition: must be one of {', '.join(_EDITIONS)} (given {edition!r:.40})")


@router.post("/update_diffusion_transformer")
async def update_diffusion_transformer(request: Request, service: Shared, owner: Owner) -> dict[str, str]:
    """Choose the model of further calls of the same caller."""
    path = (await _body(request)).get("diffusion_transformer_path", _NONE)
    names = service.catalog.names("models")
    name = _name(str(path), names)
    if path == _NONE:
        request.app.state.easyanimate_models.pop(owner, None)
    elif name in names:
        request.app.state.easyanimate_models[owner] = name
    else:
        return _failure(f"diffusion_transformer_path: there is no model {path!r:.80}. Known: {', '.join(names)}")
    return {"message": "Success"}


@router.post("/infer_forward")
async def infer_forward(request: Request, service: Shared, owner: Owner) -> dict[str, Any]:
    """Make a video or a picture and answer with it."""
    model = request.app.state.easyanimate_models.get(owner, _DEFAULT)
    try:
        wanted = _forward(await _body(request))

        async def fields(kept: Kept) -> SettingsDict:
            return await service.decode(wanted.fields, model, kept)

        job = await submit(service, owner, fields)
        over = await finished(service, job, service.settings.sync_seconds)
        if over is None:
            await run_in_threadpool(service.store.cancel, job.id, owner)
            return _failure(f"it was not made within {service.settings.sync_seconds:g} seconds")
        if over.status == "failed":
            return _failure(over.error_message or "it was not made")
        encoded = await service.decode(_encoded, service, over, wanted.is_picture)
    except MuybridgeError as error:
        if isinstance(error, ApiError) and error.status in (401, 403, 413):
            raise
        return _failure(str(of_muybridge(error)))
    path = f"/v1/videos/{over.id}/content"
    return {"message": "Success", "save_sample_path": path, "base64_encoding": encoded}


def _forward(values: SettingsDict) -> Forward:
    try:
        return Forward.model_validate(values)
    except ValidationError as error:
        raise ConfigError(describe_validation(error, Forward)) from error


async def _body(request: Request) -> SettingsDict:
    """JSON, whatever the header says of it: EasyAnimate's client says nothing."""
    found = parse_json(await request.body(), "the body")
    if not isinstance(found, dict):
        raise ApiError(400, "The body must be a JSON object.")
    return found


def _failure(reason: str) -> dict[str, str]:
    return {"message": f"Error. error information is {reason}"}


def _encoded(service: Service, job: Job, is_picture: bool) -> str:
    key = job.results["video"]
    if not is_picture:
        with service.files.open_result(key) as file:
            return base64.b64encode(file.read()).decode("ascii")
    with tempfile.TemporaryDirectory(prefix="muybridge-") as folder:
        frame = Path(folder, "frame.png")
        service.decoder.first_frame(service.files.local_result(key), frame)
        return base64.b64encode(frame.read_bytes()).decode("ascii")
