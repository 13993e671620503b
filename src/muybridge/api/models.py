"""What videos can be made with: models, LoRAs and the rest of the catalog, and what a request may say."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from muybridge.api.errors import not_found
from muybridge.api.schema import request_schema
from muybridge.api.service import Owner, Shared
from muybridge.api.shown import FAILS
from muybridge.jobs.catalog import SAMPLING_OF_SHIPPED_LORAS, shipped_loras
from muybridge.types import SettingsView

_PARTS = ("motion_adapters", "vaes", "controls", "embeddings")
router = APIRouter(prefix="/v1", tags=["models"], responses=FAILS)


class ModelObject(BaseModel):
    """A model that requests can name, and what a worker has told of it: family, what it takes, what it makes."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "muybridge"


class Named(BaseModel):
    """Something that goes into a model."""

    id: str


class ModelList(BaseModel):
    """All models, and what goes into them by what it is."""

    object: Literal["list"] = "list"
    data: list[ModelObject]
    motion_adapters: list[Named]
    vaes: list[Named]
    controls: list[Named]
    embeddings: list[Named]


class LoraObject(BaseModel):
    """A LoRA that requests can name."""

    id: str
    object: Literal["lora"] = "lora"
    sampling: dict[str, Any] | None = Field(None, description="of a request, as the LoRA was trained for; at weight 1")


class LoraList(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[LoraObject]


class Schema(BaseModel):
    """What a request may say."""

    request: dict[str, Any] = Field(description="JSON schema of a request")
    conditions: dict[str, Any] = Field(description="JSON schema of each kind of condition")
    presets: dict[str, Any]
    choices: dict[str, list[str]] = Field(description="names of the catalog by what they are")


@router.get("/models")
def models(service: Shared, owner: Owner) -> ModelList:
    """Models that requests can name."""
    del owner
    told, catalog = service.store.models(), service.catalog
    return ModelList(
        data=[_model(name, told.get(name)) for name in catalog.names("models")],
        motion_adapters=_named(catalog.names("motion_adapters")),
        vaes=_named(catalog.names("vaes")),
        controls=_named(catalog.names("controls")),
        embeddings=_named(catalog.names("embeddings")),
    )


def _named(names: list[str]) -> list[Named]:
    return [Named(id=name) for name in names]


def _model(name: str, told: SettingsView | None) -> ModelObject:
    own = ModelObject.model_fields
    return ModelObject(id=name, **{key: value for key, value in (told or {}).items() if key not in own})


@router.get("/models/{name:path}")
def model(name: str, service: Shared, owner: Owner) -> ModelObject:
    """One model."""
    del owner
    if name not in service.catalog.names("models"):
        raise not_found("model", name)
    return _model(name, service.store.models().get(name))


@router.get("/loras")
def loras(service: Shared, owner: Owner) -> LoraList:
    """LoRAs that requests can name."""
    del owner
    shipped, wanted = shipped_loras(), dict(SAMPLING_OF_SHIPPED_LORAS)
    names = service.catalog.names("loras")
    return LoraList(data=[LoraObject(id=name, sampling=wanted if name in shipped else None) for name in names])


@router.get("/schema")
def schema(service: Shared, owner: Owner) -> Schema:
    """What a request may say, with a sentence for every field, and names and sizes to choose from."""
    del owner
    choices = {kind: list(service.catalog.names(kind)) for kind in ("models", "loras", *_PARTS)}
    return Schema(**request_schema(), choices=choices)
