"""A model behind an OpenAI-compatible address: vLLM, SGLang, Ollama, LM Studio, and what is sold by the token."""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, NoReturn
from urllib.parse import urlsplit

from PIL import Image

from muybridge.data.preparation.captioning.conversation import Answer, Turn, plain
from muybridge.data.record import shown
from muybridge.errors import ConfigError, NoAnswerError
from muybridge.files.utf8 import is_utf8

_PATH = "/chat/completions"
_MOST_BYTES = 4 * 2**20
_BLOCK = 2**16
_AGAIN = frozenset((408, 409, 425, 429))
_HOPELESS = {
    HTTPStatus.UNAUTHORIZED: "does not accept the key",
    HTTPStatus.FORBIDDEN: "does not allow it",
    HTTPStatus.NOT_FOUND: "knows no such model or address",
    HTTPStatus.METHOD_NOT_ALLOWED: "is no address of chats",
}
_OF_ONE = frozenset((HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND))
"""Of these, what some servers answer to a single question that they do not like."""
_MOST_DENIED = 5
"""How many of these one after the other are about more than single questions."""
_GREETING = "Answer with the word OK."
_MOST_WAIT_S = 60.0
_SAID, _STARTS = 200, 60  # letters of what a server says, in messages
_QUALITY = 90


@dataclass(frozen=True)
class EndpointAddress:
    """Where a model answers, and how patient to be with it.

    Attributes:
        url: up to and without `/chat/completions`, as in `http://localhost:8000/v1`.
        model: its name there.
        key_env: the variable of the environment that holds the key; None where none is needed.
        most_tokens: of an answer.
        timeout_s: of a try.
        tries: until a question is given up.
    """

    url: str
    model: str
    key_env: str | None = None
    most_tokens: int = 256
    timeout_s: float = 120.0
    tries: int = 5

    def patient(self, timeout_s: float, tries: int) -> EndpointAddress:
        """The same with another patience."""
        return replace(self, timeout_s=timeout_s, tries=tries)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Whoever is sent elsewhere would take the key along."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class Endpoint:
    """A `Writer` behind an address."""

    def __init__(
        self,
        address: EndpointAddress,
        slot: Callable[[], AbstractContextManager[object]] = nullcontext,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Of an address.

        Args:
            address: of it.
            slot: held while a question is asked; limits how many there are at once.
            sleep: waits so many seconds between tries.

        Raises:
            ConfigError: no address of the web, or a key that is missing or none.
        """
        self._url = checked_url(address.url) + _PATH
        self._address = address
        self._key = checked_key(address.key_env)
        self._slot = slot
        self._sleep = sleep
        self._opener = urllib.request.build_opener(_NoRedirect)
        self._has_answered = False
        self._denied = 0

    def greet(self) -> None:
        """Ask something, once: whether it lets us in. That it gives no answer may pass, and is not said.

        Raises:
            ConfigError: it refuses everything, as without the right key.
        """
        with suppress(_TryAgainError, NoAnswerError):
            self._ask(self._body([Turn("user", _GREETING)]))

    def answer(self, turns: Sequence[Turn]) -> Answer:
        """Ask, and again after errors that may pass, waiting longer each time or as long as the server says.

        Raises:
            NoAnswerError: no answer after all tries, or the question itself is refused.
            ConfigError: it refuses everything, as without the right key; or, since it answered last, five in a row.
        """
        body = self._body(turns)
        wait_s = 1.0
        for left in range(self._address.tries - 1, -1, -1):
            try:
                with self._slot():
                    return self._ask(body)
            except _TryAgainError as error:
                if not left:
                    tries = f"{self._address.tries} tries" if self._address.tries > 1 else "1 try"
                    raise NoAnswerError(f"{self._url} gave no answer in {tries}; at last: {error}.") from error
                self._sleep(min(wait_s if error.wait_s is None else error.wait_s, _MOST_WAIT_S))
                wait_s *= 2
        raise ConfigError(f"An endpoint needs one try at least; given {self._address.tries}.")

    def _body(self, turns: Sequence[Turn]) -> bytes:
        question = {
            "model": self._address.model,
            "messages": [_message(turn) for turn in turns],
            "max_tokens": self._address.most_tokens,
            "temperature": 0,
            "seed": 0,
        }
        return json.dumps(question).encode()

    def _ask(self, body: bytes) -> Answer:
        request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"}, method="POST")
        if self._key:
            request.add_unredirected_header("Authorization", f"Bearer {self._key}")
        until = time.monotonic() + self._address.timeout_s
        try:
            with self._opener.open(request, timeout=self._address.timeout_s) as response:
                content = _read(response, until)
        except urllib.error.HTTPError as error:
            with error:
                self._refused(error, until)
        except (OSError, http.client.HTTPException) as error:  # a URLError is an OSError
            raise _TryAgainError(
                self._safe(str(getattr(error, "reason", "") or error) or type(error).__name__)
            ) from error
        try:
            answer = _answer_of(content)
        except _GarbageError as error:
            raise _TryAgainError(f"{error} ({self._start(content)})") from error
        self._has_answered, self._denied = True, 0
        return answer

    def _start(self, content: bytes) -> str:
        return shown(self._safe(content.decode("utf-8", "replace"))[:_STARTS]) or "empty"

    def _refused(self, error: urllib.error.HTTPError, until: float) -> NoReturn:
        try:
            said = shown(self._safe(_said(_read(error, until))))[:_SAID].rstrip(".")
        except (OSError, http.client.HTTPException, _TryAgainError):
            said = ""
        words = self._safe(f"{error.code} {error.reason}" + (f": {said}" if said else ""))
        if error.code in _AGAIN or error.code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise _TryAgainError(words, _retry_after(error.headers.get("Retry-After")))
        if error.code in _OF_ONE and self._has_answered:
            self._denied += 1
            if self._denied < _MOST_DENIED:
                raise NoAnswerError(f"{self._url} refuses the question: {words}.")
            words += f", {_MOST_DENIED} times in a row"
        if error.code in _HOPELESS:
            advice = f"Check {self._key_name} and the name of the model."
            raise ConfigError(f"{self._url} {_HOPELESS[HTTPStatus(error.code)]} ({words}). {advice}")
        if error.code < HTTPStatus.BAD_REQUEST:
            raise ConfigError(f"{self._url} sends on to another address ({words}). Give that one, if you trust it.")
        raise NoAnswerError(f"{self._url} refuses the question: {words}.")

    @property
    def _key_name(self) -> str:
        return f"the key in {self._address.key_env}" if self._address.key_env else "whether it needs a key (key_env)"

    def _safe(self, text: str) -> str:
        return text.replace(self._key, "(key)") if self._key else text


class _TryAgainError(Exception):
    """What may pass by itself."""

    def __init__(self, message: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class _GarbageError(Exception):
    """What is answered cannot be read."""


def checked_url(url: str) -> str:
    """An address without what stands after its path.

    Raises:
        ConfigError: it is none, or holds a password or a query, which would be shown in reports.
    """
    parts = urlsplit("")
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_good = False
    if not is_good or not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigError(
            f"An endpoint is an address as http://localhost:8000/v1; given {shown(url.rpartition('@')[2])!r}."
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            "The address of an endpoint may have no password, query or fragment: it is shown in reports. Put the key "
            "into a variable of the environment, and name that as key_env."
        )
    return url.rstrip("/").removesuffix(_PATH)


def checked_key(name: str | None) -> str:
    """The key that is in a variable of the environment; empty where none is named.

    Raises:
        ConfigError: there is none in it, or what is none.
    """
    if name is None:
        return ""
    key = os.environ.get(name, "").strip()
    if not key:
        raise ConfigError(f"The key of the endpoint is to be in the variable {shown(name)} of the environment: set it.")
    if not key.isascii() or not key.isprintable() or " " in key:
        # What http says of such a header would show it.
        raise ConfigError(f"What is in the variable {shown(name)} of the environment is no key: it has odd letters.")
    return key


def _message(turn: Turn) -> dict[str, Any]:
    if not turn.pictures:
        return {"role": turn.role, "content": turn.text}
    shown_first = [{"type": "image_url", "image_url": {"url": _data_url(picture)}} for picture in turn.pictures]
    return {"role": turn.role, "content": [*shown_first, {"type": "text", "text": turn.text}]}


def _data_url(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.convert("RGB").save(file, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _read(response: Any, until: float) -> bytes:
    """All of it, within the time: a server may send a byte a minute."""
    content = b""
    while block := response.read1(_BLOCK):
        content += block
        if len(content) > _MOST_BYTES:
            raise _TryAgainError(f"it answers with over {_MOST_BYTES} bytes")
        if time.monotonic() > until:
            raise _TryAgainError("timed out")
    return content


def _answer_of(content: bytes) -> Answer:
    try:
        choice = json.loads(content)["choices"][0]
        text, ended = choice["message"]["content"], choice.get("finish_reason")
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise _GarbageError("what it answers is no chat completion") from error
    if isinstance(text, list):
        text = "".join(str(part.get("text", "")) for part in text if isinstance(part, dict))
    if not isinstance(text, str) or not (text := plain(text)):
        raise _TryAgainError("it answers nothing")
    if not is_utf8(text):
        raise _TryAgainError("it answers with halves of letters, which are no text")
    return Answer(text, is_cut=ended == "length")


def _said(content: bytes) -> str:
    """The message of an error, as these servers send it; else the beginning of whatever they sent."""
    try:
        values = json.loads(content)
        error = values.get("error", values)
        found = error.get("message") if isinstance(error, dict) else error
    except (ValueError, RecursionError, AttributeError):
        found = None
    text = found if isinstance(found, str) else content.decode("utf-8", "replace")
    return " ".join(text.split())


def _retry_after(value: str | None) -> float | None:
    """Seconds that a server asks to wait, which says a number or a date."""
    if not value:
        return None
    try:
        return max(0.0, float(value)) if value.strip().isdecimal() else _until_date(value)
    except (ValueError, TypeError, OverflowError):
        return None


def _until_date(value: str) -> float:
    date = parsedate_to_datetime(value)
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
