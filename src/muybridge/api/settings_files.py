"""The settings that a finished file carries, for forms that are filled with them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from muybridge.api.bodies import FILE_BODY, copy, single_file, uploads_in
from muybridge.api.documents import public_request
from muybridge.api.errors import ApiError
from muybridge.api.service import Owner, Service, Shared
from muybridge.api.shown import FAILS
from muybridge.types import SettingsDict

router = APIRouter(prefix="/v1/settings", tags=["settings"], responses=FAILS)


class Settings(BaseModel):
    """What made a file."""

    request: dict[str, Any] = Field(description="as `request` takes it; files that are not here are left out")
    missing: list[str] = Field(default_factory=list, description="conditions whose files are not here")
    made: dict[str, Any] = Field(default_factory=dict, description="versions and what else the file says of its making")


@router.post("", openapi_extra=FILE_BODY)
async def settings_of(request: Request, service: Shared, owner: Owner) -> Settings:
    """The settings in an mp4, webp, gif or png that this program made."""
    async with single_file(request, service) as file:
        return await service.decode(_read, file.file, service, owner)


def _read(source: Any, service: Service, owner: str) -> Settings:
    with tempfile.TemporaryDirectory(prefix="muybridge-") as folder:
        path = Path(folder, "file")
        copy(source, path)
        found = service.decoder.settings_in(path)
    if found is None:
        raise ApiError(400, "file: carries no settings; it was made elsewhere, or without them.", param="file")
    document = public_request(found)
    kept, missing = _usable(document.get("conditions", []), service, owner)
    made = found.get("made")
    rest = {name: value for name, value in document.items() if name != "conditions"}
    return Settings(
        request={**rest, "conditions": kept} if kept else rest,
        missing=missing,
        made=made if isinstance(made, dict) else {},
    )


def _usable(conditions: object, service: Service, owner: str) -> tuple[list[SettingsDict], list[str]]:
    """Conditions all of whose files are uploads of the caller, and the kinds of the others."""
    kept, missing = [], []
    for each in conditions if isinstance(conditions, list) else []:
        if not isinstance(each, dict):
            continue
        named = uploads_in(each)
        is_whole = all(service.files.upload(upload, owner) for upload in named)
        if named and is_whole:
            kept.append(each)
        else:
            missing.append(str(each.get("kind")))
    return kept, missing
