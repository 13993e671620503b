"""What to load: plain values, and the key of a cache of warm models."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _as_list(value: object) -> object:
    return (value,) if isinstance(value, str) else value


DEFAULT_MODEL = "demo/animatediff"


class ModelChoice(BaseModel):
    """A model and all that is put into it; None is the model's own, or its default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(default=DEFAULT_MODEL, min_length=1)
    """A shipped model, a folder, a hub id, or a single file."""
    motion_adapter: str | None = None
    motion_variant: str | None = None
    """What `motion_adapter` is, where keys, shapes and name fit several published files."""
    parts_from: str | None = None
    """A folder or hub id with what `model` lacks, where that is a single file."""
    vae: str | None = None
    """A VAE to use instead of the model's own: a file or folder, here or on the hub."""
    prediction: str | None = Field(default=None, examples=["epsilon", "v", "sample"])
    """What the model predicts, where it is not said beside it: epsilon, v or sample."""
    loras: dict[str, float] = Field(default_factory=dict)
    """LoRA files and the weight of each."""
    embeddings: dict[str, str] = Field(default_factory=dict)
    """Embedding files and the name of each in prompts."""
    networks: dict[str, str] = Field(default_factory=dict)
    """Networks beside the model by what they are for: keyframes, sketches, image_prompt, image_encoder."""
    dtype: str | None = Field(default=None, examples=["auto", "float32", "bfloat16", "float16"])
    """Precision: float32, bfloat16, float16, or auto for what the device does well."""
    device: str | None = None
    memory: int | str | None = None
    """What may be used of the device: bytes, or an amount such as 12GB, auto for what is free, max for all."""
    speed: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = ()
    """Names of optimizations."""
