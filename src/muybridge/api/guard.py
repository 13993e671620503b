"""What stands before every call: names it may be called by, sizes of bodies, headers of every answer, and a count."""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections import Counter

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from muybridge.api.errors import ApiError, error_response
from muybridge.api.settings import Limits

CONTENT_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; connect-src 'self'; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
UPLOADING = frozenset({"/v1/videos", "/v1/videos/sync", "/v1/uploads", "/v1/settings", "/easyanimate/infer_forward"})
"""Addresses whose bodies carry files."""
_REMIXING = re.compile(r"/v1/videos/[^/]{1,80}/remix")
"""Likewise, of one video."""
_HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
SAFE_HEADERS = dict(_HEADERS)
"""Headers of every answer."""


class Guard:
    """Goes round an application.

    Attributes:
        answered: how many calls were answered, by (route, status); the route is a template, never what was asked for.
    """

    def __init__(
        self, app: ASGIApp, hosts: tuple[str, ...], limits: Limits, answered: Counter[tuple[str, int]]
    ) -> None:
        """See `ApiSettings` for `hosts` and `limits`."""
        self.app = app
        self.answered = answered
        self._hosts = frozenset(host.lower() for host in hosts)
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a call."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 500
        request_id = secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_headers(message, request_id)
            await send(message)

        try:
            if refusal := self._refusal(scope):
                await error_response(refusal)(scope, receive, sending)
                return
            await self.app(scope, self._limited(scope, receive), sending)
        finally:
            self.answered[_route(scope), status] += 1

    def _refusal(self, scope: Scope) -> ApiError | None:
        headers = Headers(scope=scope)
        host = _without_port(headers.get("host", ""))
        if "*" not in self._hosts and host not in self._hosts and not _is_address(host):
            # A name that somebody made point here is how pages of strangers would reach a local service.
            return ApiError(
                421,
                "This service is not called by that name. Start it with --allow-host NAME to let it be.",
                "bad_host",
            )
        length = headers.get("content-length", "0")
        limit = self._limit(scope)
        if not length.isdigit() or int(length) > limit:
            return _too_large(limit)
        return None

    def _limit(self, scope: Scope) -> int:
        path = scope["path"].rstrip("/")
        takes_files = path in UPLOADING or _REMIXING.fullmatch(path) is not None
        return self._limits.upload_bytes if takes_files else self._limits.body_bytes

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        limit, taken = self._limit(scope), 0

        async def receiving() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > limit:
                raise _too_large(limit)
            return message

        return receiving


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"The body is larger than this address takes, which is {limit} bytes.", "too_large")


def _add_headers(message: Message, request_id: str) -> None:
    headers = MutableHeaders(scope=message)
    for name, value in _HEADERS.items():
        headers.setdefault(name, value)
    headers["x-request-id"] = headers.get("x-request-id", request_id)


def _without_port(host: str) -> str:
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0] if host.count(":") == 1 else host


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _route(scope: Scope) -> str:
    route = scope.get("route")
    return getattr(route, "path", None) or "other"
