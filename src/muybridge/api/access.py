"""Who calls: tokens in a header, and cookies that a page gets for one."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from urllib.parse import urlsplit

from starlette.requests import Request

from muybridge.api.errors import ApiError

COOKIE = "muybridge_session"
SESSION_SECONDS = 30 * 24 * 3600
EVERYBODY = "local"
"""Whose jobs all are where there are no tokens."""
_CHANGING = ("POST", "PUT", "PATCH", "DELETE")


class Access:
    """Knows callers by tokens.

    A session is a signature made with a token, so that every process with the same tokens knows it, and none has to
    remember it.
    """

    def __init__(self, tokens: tuple[str, ...]) -> None:
        """Everybody may call where there are no tokens."""
        self._tokens = tokens

    @property
    def is_open(self) -> bool:
        """Whether nobody is asked."""
        return not self._tokens

    def owner_of(self, request: Request) -> str:
        """In whose name a call is made.

        Raises:
            ApiError: no token or a wrong one (401); a page of another origin that uses somebody's cookie (403).
        """
        if not self._tokens:
            _require_own_page(request, must_say=False)
            return EVERYBODY
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and token:
            return _owner(self._known(token.strip()))
        if cookie := request.cookies.get(COOKIE):
            _require_own_page(request, must_say=request.method in _CHANGING)
            return _owner(self._of_session(cookie))
        raise _unknown("This service asks for a token. Send it as: Authorization: Bearer TOKEN.")

    def allowed(self, priority: int) -> int:
        """A priority that a caller may give: where there are several, nobody goes before others."""
        if priority > 0 and len(self._tokens) > 1:
            raise ApiError(
                403, "priority: above 0 is taken where one token is known only; others wait too", "invalid_value"
            )
        return priority

    def session(self, token: str) -> str:
        """What a cookie holds in place of a token.

        Raises:
            ApiError: a wrong one.
        """
        known = self._known(token)
        ends = f"{int(time.time()) + SESSION_SECONDS}.{secrets.token_hex(8)}"
        return f"{ends}.{_signature(known, ends)}"

    def _known(self, token: str) -> str:
        found = None
        for each in self._tokens:  # all of them, so that time tells nothing
            if secrets.compare_digest(each.encode(), token.encode()):
                found = each
        if found is None:
            raise _unknown("The token is not one of this service.")
        return found

    def _of_session(self, cookie: str) -> str:
        ends, _, signature = cookie.rpartition(".")
        until = ends.partition(".")[0]
        found = None
        for each in self._tokens:
            if secrets.compare_digest(_signature(each, ends).encode(), signature.encode()):
                found = each
        if found is None or not until.isdigit() or int(until) < time.time():
            raise _unknown("The session has ended. Give the token again.")
        return found


def check_origin(request: Request) -> None:
    """That no page of another origin calls.

    Raises:
        ApiError: one does.
    """
    _require_own_page(request, must_say=False)


def _require_own_page(request: Request, must_say: bool) -> None:
    """Browsers say of which page a call is; programs do not, and send no cookies either."""
    origin = request.headers.get("origin")
    if origin is not None:
        is_own = urlsplit(origin).netloc.lower() == request.headers.get("host", "").lower() != ""
    else:
        site = request.headers.get("sec-fetch-site", "none")
        is_own = site in ("none", "same-origin") and not must_say
    if not is_own:
        raise ApiError(403, "A page of another origin may not call this service.", "invalid_origin")


def _signature(token: str, ends: str) -> str:
    return hmac.new(token.encode(), f"muybridge-session:{ends}".encode(), hashlib.sha256).hexdigest()


def _owner(token: str) -> str:
    return "token-" + hashlib.sha256(token.encode()).hexdigest()[:24]


def _unknown(message: str) -> ApiError:
    return ApiError(401, message, headers={"WWW-Authenticate": "Bearer"})
