"""Cookies for pages, which cannot send a token with every call."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from muybridge.api.access import COOKIE, SESSION_SECONDS, check_origin
from muybridge.api.errors import ApiError
from muybridge.api.service import Shared

router = APIRouter(prefix="/v1/session", tags=["session"])


class Token(BaseModel):
    """What a session is for."""

    token: str = Field(min_length=1, max_length=500)


class Session(BaseModel):
    """Whether a page has to ask for a token."""

    token_needed: bool
    signed_in: bool


@router.get("")
async def state(request: Request, service: Shared) -> Session:
    """Whether a token is needed, and whether the caller has shown one."""
    try:
        service.access.owner_of(request)
    except ApiError:
        return Session(token_needed=not service.access.is_open, signed_in=False)
    return Session(token_needed=not service.access.is_open, signed_in=True)


@router.post("")
async def begin(token: Token, request: Request, response: Response, service: Shared) -> Session:
    """Exchange a token for a cookie that scripts cannot read and other sites cannot send."""
    check_origin(request)
    if not service.access.is_open:
        response.set_cookie(
            COOKIE,
            service.access.session(token.token),
            max_age=SESSION_SECONDS,
            path="/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
    return Session(token_needed=not service.access.is_open, signed_in=True)


@router.delete("")
async def end(request: Request, response: Response, service: Shared) -> Session:
    """Forget the cookie."""
    check_origin(request)
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return Session(token_needed=not service.access.is_open, signed_in=service.access.is_open)
