"""The one schema of a request to generate, whether it comes from the command line, a file, or later a browser."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from muybridge.errors import ConfigError
from muybridge.files.validation import describe_validation


class WindowRequest(BaseModel):
    """Settings of context windows; the names of `WindowSettings`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int = Field(default=16, ge=1)
    overlap: int = Field(default=4, ge=0)
    schedule: Literal["standard", "uniform", "looped"] = "standard"
    fusing: Literal["flat", "pyramid", "overlap-linear"] = "pyramid"
    strides: int = Field(default=1, ge=1)


class FreeInitRequest(BaseModel):
    """Settings of FreeInit; the names of `FreeInit`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    passes: int = Field(default=3, ge=1)
    kind: Literal["butterworth", "gaussian", "ideal"] = "butterworth"
    order: int = Field(default=4, ge=1)
    spatial_stop: float = Field(default=0.25, gt=0, le=1)
    temporal_stop: float = Field(default=0.25, gt=0, le=1)
    coarse_to_fine: bool = False


class ControlRequest(BaseModel):
    """A ControlNet and what it is shown."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(min_length=1)
    """A ControlNet: a file or folder, here or on the hub."""
    frames: str = Field(min_length=1)
    """A video file, or a folder of pictures."""
    strength: float = 1.0
    start: float = Field(default=0.0, ge=0, lt=1)
    end: float = Field(default=1.0, gt=0, le=1)


class GenerateRequest(BaseModel):
    """Everything that decides what a video looks like. Fields are the pipeline's arguments; None means its default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(default="demo/animatediff", min_length=1)
    motion_adapter: str | None = None
    motion_variant: str | None = None
    """What `motion_adapter` is, where keys, shapes and name fit several published files."""
    parts_from: str | None = None
    """A folder or hub id with what `model` lacks, where that is a single file."""
    vae: str | None = None
    """A VAE to use instead of the model's own: a file or folder, here or on the hub."""
    prediction: str | None = None
    """What the model predicts, where it is not said beside it: epsilon, v or sample."""
    prompt: str | Annotated[dict[int, str], Field(min_length=1)]
    """One prompt, or prompts by frame; an empty one is what the model shows when it is told nothing."""
    negative_prompt: str | None = None
    plain_prompt: bool = False
    """Whether brackets, tags and names of embeddings in them are words."""
    num_frames: int | None = Field(default=None, ge=1)
    width: int | None = Field(default=None, ge=1)
    height: int | None = Field(default=None, ge=1)
    num_inference_steps: int | None = Field(default=None, ge=1)
    guidance_scale: float | None = Field(default=None, ge=0, lt=1000)
    scheduler: str | None = None
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    eta: float = Field(default=0.0, ge=0, le=1)
    motion_strength: FiniteFloat | list[FiniteFloat] = 1.0
    """One number, or one for each frame."""
    fps: float | None = Field(default=None, gt=0, le=1000)
    profile: Literal["reference", "clean"] | None = None
    clip_apply_ratio: float | None = Field(default=None, ge=0, le=1)
    keyframes: dict[int, str] | None = Field(default=None, min_length=1)
    """Picture files by frame; negative indexes count from the end."""
    init_video: str | None = None
    """A video file to start from."""
    mask: str | None = None
    """A picture file of the size of that video; white is made anew."""
    strength: float | None = Field(default=None, gt=0, le=1)
    fit: int | None = Field(default=None, ge=64)
    """Base resolution at which the size follows the first keyframe or the source video, instead of width and height."""
    segment_frames: int | None = Field(default=None, ge=1)
    """Longer videos are made in segments of so many frames; by default what the model makes at once."""
    overlap_frames: int | None = Field(default=None, ge=1)
    """Frames that neighbouring segments share; 4 by default, with latent one piece of the VAE."""
    overlap_strategy: Literal["crossfade", "latent"] | None = None
    """What a segment continues from: the last pictures of the one before, or its last latents."""
    sketches: dict[int, str] | None = Field(default=None, min_length=1)
    """Drawings by frame, white lines on black."""
    keyframe_control: str | None = None
    """A SparseCtrl for keyframes, file or folder, where the model has none of its own."""
    sketch_control: str | None = None
    """Likewise for sketches."""
    control_strength: float | None = None
    control_start: float | None = Field(default=None, ge=0, lt=1)
    control_end: float | None = Field(default=None, gt=0, le=1)
    controls: list[ControlRequest] | None = Field(default=None, min_length=1)
    image_prompt: list[str] | None = Field(default=None, min_length=1)
    """Picture files to take subject and style from."""
    image_prompt_strength: float | None = None
    image_prompt_adapter: str | None = None
    """The IP-Adapter for them, a file."""
    image_encoder: str | None = None
    """The folder of its CLIP encoder; by default the one beside it."""
    windows: WindowRequest | None = None
    free_noise: bool | None = None
    free_init: FreeInitRequest | None = None
    positions: Literal["plain", "stretched", "capped"] | None = None
    lora: dict[str, float] | None = Field(default=None, min_length=1)
    """LoRA files and the weight of each."""
    embeddings: dict[str, str] | None = Field(default=None, min_length=1)
    """Embedding files and the name of each in prompts."""

    @property
    def reads_syntax(self) -> bool:
        """Whether its prompts mean something else than their plain words."""
        return not self.plain_prompt and _has_syntax([self.prompt, self.negative_prompt])

    @classmethod
    def parse(cls, values: dict[str, Any]) -> GenerateRequest:
        """Validate plain values.

        Raises:
            ConfigError: names each field that is wrong, and why.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(describe_validation(error, cls)) from error

    @classmethod
    def from_embedded(cls, embedded: dict[str, Any], changes: dict[str, Any] | None = None) -> GenerateRequest:
        """The request a video file carries, with some values changed; versions are left out.

        Raises:
            ConfigError: it was made from more than a prompt and settings, or is not a request.
        """
        _check_repeatable(embedded)
        known = {key: value for key, value in embedded.items() if key in cls.model_fields and value is not None}
        changed = changes or {}
        for of, what in (
            ("model", "parts_from"),
            ("model", "vae"),
            ("model", "prediction"),
            ("motion_adapter", "motion_variant"),
            ("image_prompt_adapter", "image_encoder"),
        ):
            if of in changed:  # what was said of the one before says nothing of another
                known.pop(what, None)
        if "fit" in changed:
            known = {key: value for key, value in known.items() if key not in ("width", "height")}
        elif changed.keys() & {"width", "height"}:
            known.pop("fit", None)
        values = {**known, **changed}
        if "model" not in values:
            raise ConfigError("The file's request names no model; name it with --model.")
        if "prompt" not in values:
            raise ConfigError("The file's request has no prompt; give one.")
        if "plain_prompt" not in values:  # from when all was read as words
            kept = [known[name] for name in ("prompt", "negative_prompt") if name in known and name not in changed]
            values["plain_prompt"] = _has_syntax(kept)
        return cls.parse(values)


def _check_repeatable(embedded: dict[str, Any]) -> None:
    if unrecorded := embedded.get("unrecorded"):
        raise ConfigError(f"The file cannot be repeated: it was made with {unrecorded}, which it does not hold.")
    if embedded.get("interrupted"):
        raise ConfigError("The file cannot be repeated: it was interrupted, so its settings give another video.")
    if embedded.get("dtype", "float32") != "float32":
        raise ConfigError(f"The file cannot be repeated: it was made in {embedded['dtype']}, not in float32.")


def _has_syntax(texts: Iterable[Any]) -> bool:
    """Whether any of prompts, or prompts by frame, means something else than its plain words."""
    from muybridge.conditioning.prompt_syntax import has_syntax  # brings in torch

    found = [text for each in texts for text in (each.values() if isinstance(each, dict) else [each])]
    return any(isinstance(text, str) and has_syntax(text) for text in found)
