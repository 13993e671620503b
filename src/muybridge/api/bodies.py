"""Bodies of calls that make a video: forms and JSON, of which files are kept as uploads."""

from __future__ import annotations

import base64
import binascii
import contextlib
import io
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from muybridge.api.documents import UPLOAD, Usual
from muybridge.api.errors import ApiError
from muybridge.api.fields import parse_json, tree
from muybridge.api.service import Service
from muybridge.jobs.files import About, Upload
from muybridge.request.model_choice import DEFAULT_MODEL
from muybridge.types import SettingsDict

_KINDS = ("multipart/form-data", "application/json")
_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 1}
_SCHEMA: SettingsDict = {
    "type": "object",
    "additionalProperties": True,
    "description": (
        "OpenAI's and vLLM-Omni's fields, any other setting of a video by its flat name, or the whole `request`; see "
        "GET /v1/schema. In a form, `name[key]` is an entry, `name[]` one more of a list, and JSON in a field is read. "
        "Files are parts of a form, or ids of uploads."
    ),
    "properties": {
        "prompt": _TEXT,
        "model": _TEXT,
        "seconds": {"oneOf": [_TEXT, {"type": "number", "exclusiveMinimum": 0}]},
        "size": {"type": "string", "pattern": "^[1-9][0-9]{0,4}x[1-9][0-9]{0,4}$"},
        "input_reference": _TEXT,
        "negative_prompt": _TEXT,
        "width": _COUNT,
        "height": _COUNT,
        "num_frames": _COUNT,
        "fps": {"type": "number", "exclusiveMinimum": 0},
        "seed": {"type": "integer", "minimum": 0},
        "num_inference_steps": _COUNT,
        "guidance_scale": {"type": "number", "minimum": 0},
        "scheduler": _TEXT,
        "lora": {"type": "object", "additionalProperties": {"type": "number"}},
        "keyframes": {"type": "object", "additionalProperties": _TEXT},
        "init_video": _TEXT,
        "strength": {"type": "number"},
        "mask": _TEXT,
        "priority": {"type": "integer", "minimum": -100, "maximum": 100},
        "extra_params": {"type": "object"},
        "request": {"type": "object"},
    },
}
FILE_BODY: SettingsDict = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}
"""How a body with one file is described."""
_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")


@dataclass
class Kept:
    """Files of one call: kept as uploads, or thrown away if the call fails.

    Attributes:
        service: that keeps them.
        owner: whose they are.
        ids: of those that came with this call.
    """

    service: Service
    owner: str
    ids: list[str] = field(default_factory=list)

    def file(self, source: IO[bytes], name: str) -> str:
        """Keep a file that is something that can be used; gives its id.

        Raises:
            ApiError: it cannot be used.
        """
        upload = keep_upload(self.service, self.owner, source, name)
        self.ids.append(upload.id)
        return upload.id

    def reference(self, value: str, name: str) -> tuple[str, str]:
        """The id and kind of what a `data:` URL holds, or of an upload that is there already."""
        if not value.startswith("data:"):
            found = self.service.files.upload(value, self.owner)
            if found is None:
                raise ApiError(400, f"{name}: there is no file {value}; upload it again", "not_found", name)
            return value, found.kind
        upload = keep_upload(self.service, self.owner, io.BytesIO(_of_data_url(value, name)), name)
        self.ids.append(upload.id)
        return upload.id, upload.kind

    def drop(self, but: Iterable[str] = ()) -> None:
        """Throw away the files of this call, but for some."""
        for upload in set(self.ids) - set(but):
            self.service.files.remove_upload(upload)


def keep_upload(service: Service, owner: str, source: IO[bytes], name: str) -> Upload:
    """Look at a file and keep it.

    Raises:
        ApiError: it is none that can be used.
    """
    with tempfile.TemporaryDirectory(prefix="muybridge-") as folder:
        path = Path(folder, "upload")  # the client's own name for it is never used
        copy(source, path)
        media = service.decoder.examine(path, name, service.settings.limits)
        about = About(media.kind, media.suffix, owner, media.width, media.height, media.num_frames)
        with path.open("rb") as file:
            return service.files.put_upload(file, about, time.time())


def copy(source: IO[bytes], path: Path) -> None:
    """Write what can be read to a new file that only this program reads."""
    path.touch(0o600)
    with path.open("wb") as target:
        while piece := source.read(1 << 20):
            target.write(piece)


async def fields_of(request: Request, kept: Kept) -> SettingsDict:
    """The fields of a call, in which files are uploads.

    Raises:
        ApiError: the body cannot be read, or is of another kind.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in _FORMS:
        async with _form(request, kept.service) as form:
            if any(isinstance(value, UploadFile) for _, value in form.multi_items()):
                return await kept.service.decode(_of_form, form, kept)
            return await run_in_threadpool(_of_form, form, kept)
    if kind == "application/json":
        found = parse_json(await request.body(), "the body")
        if not isinstance(found, dict):
            raise ApiError(400, "The body must be a JSON object.")
        return found
    raise ApiError(415, "The body must be multipart/form-data or application/json.", "invalid_value")


@contextlib.asynccontextmanager
async def _form(request: Request, service: Service) -> AsyncIterator[FormData]:
    """A form within limits; its files live on the disk, for as long as the block lasts."""
    limits = service.settings.limits
    form = await request.form(max_files=limits.files, max_fields=limits.fields, max_part_size=limits.text_bytes)
    try:
        yield form
    finally:
        await form.close()


@contextlib.asynccontextmanager
async def single_file(request: Request, service: Service) -> AsyncIterator[UploadFile]:
    """The one file of a form, in its field `file`.

    Raises:
        ApiError: there is none, or something else.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise ApiError(415, "The body must be multipart/form-data with a field file.", "invalid_value", "file")
    async with _form(request, service) as form:
        found = form.getlist("file")
        if len(form) != 1 or len(found) != 1 or not isinstance(found[0], UploadFile):
            raise ApiError(400, "The form must have one field, file, with one file in it.", param="file")
        yield found[0]


def _of_form(form: FormData, kept: Kept) -> SettingsDict:
    pairs = []
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            if value.size == 0:  # a file field that a browser left empty
                continue
            pairs.append((name, kept.file(value.file, name[:80])))
        else:
            pairs.append((name, value))
    return tree(pairs)


def usual_of(service: Service, model: str | None) -> Usual:
    """What a model makes where nobody says, as a worker has told."""
    return Usual.of(service.store.models().get(model or DEFAULT_MODEL))


def _of_data_url(url: str, name: str) -> bytes:
    head, comma, body = url.partition(",")
    if not comma or not head.endswith(";base64"):
        raise ApiError(400, f"{name}: a data: URL must hold base64, as in data:image/png;base64,...", param=name)
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ApiError(400, f"{name}: its base64 cannot be read", param=name) from error


def brings_files(value: object) -> bool:
    """Whether plain values hold any `data:` URL."""
    if isinstance(value, str):
        return value.startswith("data:")
    if isinstance(value, dict):
        return any(map(brings_files, value.values()))
    return isinstance(value, (list, tuple)) and any(map(brings_files, value))


def uploads_in(value: object) -> list[str]:
    """Ids of all uploads that plain values name."""
    if isinstance(value, str):
        return [value] if UPLOAD.fullmatch(value) else []
    if isinstance(value, dict):
        return [found for each in value.values() for found in uploads_in(each)]
    return [found for each in value for found in uploads_in(each)] if isinstance(value, (list, tuple)) else []


def request_body() -> SettingsDict:
    """How a body that asks for a video is described: as a form or as JSON."""
    return {"requestBody": {"required": True, "content": {kind: {"schema": _SCHEMA} for kind in _KINDS}}}
