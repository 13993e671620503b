"""The one schema of a request to generate, whether it comes from the command line, a file, or later a browser."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from muybridge.errors import ConfigError


class GenerateRequest(BaseModel):
    """Everything that decides what a video looks like. Fields are the pipeline's arguments; None means its default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(default="demo/animatediff", min_length=1)
    motion_adapter: str | None = None
    prompt: str = Field(min_length=1)
    negative_prompt: str | None = None
    num_frames: int | None = Field(default=None, ge=1)
    width: int | None = Field(default=None, ge=1)
    height: int | None = Field(default=None, ge=1)
    num_inference_steps: int | None = Field(default=None, ge=1)
    guidance_scale: float | None = Field(default=None, ge=0, lt=1000)
    scheduler: str | None = None
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    eta: float = Field(default=0.0, ge=0, le=1)
    motion_strength: float = Field(default=1.0, ge=0, le=10)
    fps: float | None = Field(default=None, gt=0, le=240)
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
    """Base resolution at which the size follows the first keyframe, instead of width and height."""
    segment_frames: int | None = Field(default=None, ge=1)
    """Longer videos are made in segments of so many frames; by default what the model makes at once."""
    overlap_frames: int | None = Field(default=None, ge=1)
    """Frames that neighbouring segments share; 4 by default."""

    @classmethod
    def parse(cls, values: dict[str, Any]) -> GenerateRequest:
        """Validate plain values.

        Raises:
            ConfigError: names each field that is wrong, and why.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(describe_validation(error)) from error

    @classmethod
    def from_embedded(cls, embedded: dict[str, Any], changes: dict[str, Any] | None = None) -> GenerateRequest:
        """The request a video file carries, with some values changed; versions are left out.

        Raises:
            ConfigError: it was made from more than a prompt and settings, or is not a request.
        """
        if unrecorded := embedded.get("unrecorded"):
            raise ConfigError(f"The file cannot be repeated: it was made with {unrecorded}, which it does not hold.")
        if embedded.get("interrupted"):
            raise ConfigError("The file cannot be repeated: it was interrupted, so its settings give another video.")
        if embedded.get("dtype", "float32") != "float32":
            raise ConfigError(f"The file cannot be repeated: it was made in {embedded['dtype']}, not in float32.")
        known = {key: value for key, value in embedded.items() if key in cls.model_fields and value is not None}
        values = {**known, **(changes or {})}
        if "model" not in values:
            raise ConfigError("The file's request names no model; name it with --model.")
        if "prompt" not in values:
            raise ConfigError("The file's request has no prompt; give one.")
        return cls.parse(values)


def describe_validation(error: ValidationError) -> str:
    """Pydantic's findings in one line, in the words of the request."""
    findings = []
    for finding in error.errors():
        where = ".".join(str(part) for part in finding["loc"]) or "the request"
        what = "there is no such setting" if finding["type"] == "extra_forbidden" else finding["msg"]
        given = "" if isinstance(finding["input"], dict) else f" (given {finding['input']!r})"
        findings.append(f"{where}: {what}{given}")
    return "; ".join(findings)
