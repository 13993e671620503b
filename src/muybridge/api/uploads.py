"""Files that requests name: kept once, used as often as wanted."""

from __future__ import annotations

import tempfile
from pathlib import Path as FilePath
from typing import IO, Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from starlette.concurrency import run_in_threadpool

from muybridge.api.bodies import FILE_BODY, keep_upload, single_file
from muybridge.api.errors import not_found
from muybridge.api.service import Owner, Service, Shared
from muybridge.api.shown import FAILS, UploadObject
from muybridge.jobs.files import Upload

router = APIRouter(prefix="/v1/uploads", tags=["uploads"], responses=FAILS)

_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}
_PICTURES: dict[int | str, dict[str, Any]] = {
    200: {"content": {kind: {} for kind in _TYPES.values()}, "description": "The picture"}
}


@router.post("", openapi_extra=FILE_BODY)
async def upload(request: Request, service: Shared, owner: Owner) -> UploadObject:
    """Keep a picture or a video; its `id` stands for it in requests."""
    async with single_file(request, service) as file:
        return _shown(await service.decode(_kept, service, owner, file.file))


def _shown(found: Upload) -> UploadObject:
    return UploadObject(
        id=found.id,
        kind=found.kind,
        width=found.width or 0,
        height=found.height or 0,
        num_frames=found.num_frames or 1,
    )


def _kept(service: Service, owner: str, source: IO[bytes]) -> Upload:
    return keep_upload(service, owner, source, "file")


@router.get("/{upload_id}/about")
def about(service: Shared, owner: Owner, upload_id: Annotated[str, Path(max_length=80)]) -> UploadObject:
    """What an upload of yours is."""
    return _shown(_found(service, owner, upload_id))


def _found(service: Service, owner: str, upload_id: str) -> Upload:
    found = service.files.upload(upload_id, owner)
    if found is None:
        raise not_found("upload", upload_id)
    return found


@router.get("/{upload_id}", response_class=Response, responses=_PICTURES)
async def picture(service: Shared, owner: Owner, upload_id: Annotated[str, Path(max_length=80)]) -> Response:
    """A picture of yours, or the first frame of a video."""
    found = await run_in_threadpool(_found, service, owner, upload_id)
    kind = _TYPES.get(found.suffix) if found.kind == "picture" else None
    if kind is not None:
        data = await run_in_threadpool(lambda: service.files.local_upload(upload_id).read_bytes())
    else:
        data = await service.decode(_first_frame, service, upload_id)
    headers = {"cache-control": "private, max-age=86400, immutable"}
    return Response(data, media_type=kind or "image/png", headers=headers)


def _first_frame(service: Service, upload_id: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="muybridge-") as folder:
        frame = FilePath(folder, "frame.png")
        service.decoder.first_frame(service.files.local_upload(upload_id), frame)
        return frame.read_bytes()
