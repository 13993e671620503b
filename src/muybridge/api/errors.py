"""What goes wrong, as OpenAI's clients read it: from every handler, those of the framework included."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect

from muybridge.errors import InputFileError, MuybridgeError, NotFoundError, OutputError, QueueFullError, StoreError
from muybridge.jobs.resolving import public_message

logger = logging.getLogger(__name__)

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_CODES = {401: "invalid_api_key", 404: "not_found", 413: "too_large", 429: "queue_full"}
_SAID = {
    404: "There is nothing at this address.",
    405: "This address takes no such method.",
    413: "The body is larger than this address takes.",
}
_FIELD = re.compile(r"(?P<path>[a-z_]{1,40}(?:\.[\w/-]{1,80}){0,4}): ")


class ApiError(MuybridgeError):
    """A call that is answered with an error.

    Attributes:
        status: of HTTP.
        code: what is wrong in a word that programs can go by.
        param: the field that is wrong, where it is one.
        headers: of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """See the attributes; the message is for people."""
        super().__init__(message)
        self.status = status
        self.code = code or _CODES.get(status, "internal" if status >= 500 else "invalid_value")
        self.param = param
        self.headers = dict(headers or {})


def not_found(what: str, name: str) -> ApiError:
    """There is none of that name, or it is another's, which is not said."""
    return ApiError(404, f"There is no {what} {name[:80]!r}.", "not_found")


def error_body(status: int, message: str, code: str, param: str | None = None) -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error_response(error: ApiError) -> JSONResponse:
    """The answer to a call that fails."""
    return JSONResponse(
        error_body(error.status, str(error), error.code, error.param), error.status, headers=error.headers
    )


def of_muybridge(error: MuybridgeError) -> ApiError:
    """An error of the rest of the program as the answer to who caused it."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, OutputError):
        logger.error("a call could not be answered: %s", error)
        return ApiError(507, "The service could not keep a file: its disk is full or takes no files. Try again later.")
    if isinstance(error, StoreError):
        logger.error("the store of jobs failed: %s", error)
        return ApiError(503, "The service cannot reach its jobs for now.", headers={"Retry-After": "5"})
    message = public_message(str(error), {})
    if isinstance(error, QueueFullError):
        return ApiError(429, message, "queue_full", headers={"Retry-After": str(error.retry_after)})
    codes = {InputFileError: "input_unreadable", NotFoundError: "not_found"}
    code = next((code for kind, code in codes.items() if isinstance(error, kind)), "invalid_value")
    found = _FIELD.match(message)
    return ApiError(400, message, code, None if found is None else found["path"])


def handle_errors(app: FastAPI) -> None:
    """Answer every error of `app` in the one shape."""
    app.add_exception_handler(MuybridgeError, _of_ours)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(HTTPException, _of_framework)
    app.add_exception_handler(MultiPartException, _of_form)
    app.add_exception_handler(ClientDisconnect, _of_vanished)
    app.add_exception_handler(Exception, _of_defect)


async def _of_ours(request: Request, error: Exception) -> JSONResponse:
    del request
    return error_response(of_muybridge(error if isinstance(error, MuybridgeError) else MuybridgeError(str(error))))


async def _of_validation(request: Request, error: Exception) -> JSONResponse:
    del request
    faults = error.errors() if isinstance(error, RequestValidationError) else []
    first = faults[0] if faults else {"loc": (), "msg": "is not possible"}
    param = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path", "header")) or None
    said = "; ".join(f"{'.'.join(map(str, fault['loc'][1:])) or 'the body'}: {fault['msg']}" for fault in faults[:5])
    return error_response(ApiError(400, said or "The call cannot be read.", "invalid_value", param))


async def _of_framework(request: Request, error: Exception) -> JSONResponse:
    del request
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = str(error.detail) if isinstance(error, HTTPException) else ""
    said = _SAID.get(status, detail or HTTPStatus(status).phrase)
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    return error_response(ApiError(400 if status == 422 else status, said, headers=headers))


async def _of_form(request: Request, error: Exception) -> JSONResponse:
    del request
    return error_response(ApiError(400, f"The form cannot be read: {getattr(error, 'message', error)}"))


async def _of_vanished(request: Request, error: Exception) -> JSONResponse:
    del request, error
    return error_response(ApiError(400, "The call ended before its body did."))  # nobody reads it


async def _of_defect(request: Request, error: Exception) -> JSONResponse:
    # The server logs the error itself once this has been answered.
    del error
    name = getattr(request.state, "request_id", None)
    hint = f" Its log says why, for request {name}." if name else ""
    return JSONResponse(error_body(500, f"The service failed.{hint}", "internal"), 500)
