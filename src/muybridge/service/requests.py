"""The one schema of a request to generate, whether it comes from the command line, a file, or later a browser."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from muybridge.errors import ConfigError


class GenerateRequest(BaseModel):
    """Everything that decides what a video looks like. Fields are the pipeline's arguments; None means its default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = "demo/animatediff"
    prompt: str = Field(min_length=1)
    negative_prompt: str | None = None
    num_frames: int = Field(default=16, ge=1)
    width: int | None = Field(default=None, ge=1)
    height: int | None = Field(default=None, ge=1)
    num_inference_steps: int | None = Field(default=None, ge=1)
    guidance_scale: float | None = Field(default=None, ge=0, lt=1000)
    scheduler: str | None = None
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    eta: float = Field(default=0.0, ge=0, le=1)
    motion_strength: float = Field(default=1.0, ge=0, le=10)
    fps: float = Field(default=8.0, gt=0, le=240)

    @classmethod
    def parse(cls, values: dict[str, Any]) -> GenerateRequest:
        """Validate plain values.

        Raises:
            ConfigError: names each field that is wrong, and why.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            raise ConfigError(describe_validation(error)) from error

    @classmethod
    def from_embedded(cls, embedded: dict[str, Any]) -> GenerateRequest:
        """The request a video file carries; versions and settings of no effect are left out.

        Raises:
            ConfigError: it was made otherwise than by a single text prompt, or is not a request.
        """
        known = {key: value for key, value in embedded.items() if key in cls.model_fields and value is not None}
        if not known.get("model"):
            raise ConfigError("The file's request names no model, so it cannot be repeated; give --model and a prompt.")
        return cls.parse(known)


def describe_validation(error: ValidationError) -> str:
    """Pydantic's findings, one a line, in the words of the request."""
    lines = []
    for finding in error.errors():
        where = ".".join(str(part) for part in finding["loc"]) or "the request"
        given = "" if isinstance(finding["input"], dict) else f" (given {finding['input']!r})"
        lines.append(f"{where}: {finding['msg']}{given}")
    return "; ".join(lines)
