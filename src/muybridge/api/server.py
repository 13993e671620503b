"""The server of an application: listens where it is told, says where that is, and ends streams when it is to stop."""

from __future__ import annotations

import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from muybridge.errors import ConfigError

_GRACE_S = 5


class Server(uvicorn.Server):
    """A server of one application."""

    def __init__(self, app: FastAPI, when_ready: Callable[[], None] = lambda: None) -> None:
        """`when_ready` is called once calls are answered."""
        super().__init__(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_GRACE_S,
                lifespan="on",
            )
        )
        self._app = app
        self._when_ready = when_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        if self.started:
            self._when_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End; streams would otherwise keep their connections open."""
        self._app.state.service.feed.close()
        super().handle_exit(sig, frame)


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one.

    Raises:
        ConfigError: it cannot be had.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        opened = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"There is no host {host!r} here ({error.strerror or error}). Try 127.0.0.1.") from error
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(2048)
    except OSError as error:
        opened.close()
        raise ConfigError(
            f"Port {port} of {host} cannot be used ({error.strerror}). Take another one with --port, or 0 for any."
        ) from error
    return opened


def address_of(opened: socket.socket) -> str:
    """The URL of a socket, as a browser on this machine takes it."""
    host, port = opened.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"
