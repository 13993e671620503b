"""What stands before every call."""

from __future__ import annotations

from collections import Counter

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from muybridge.api.errors import ApiError, handle_errors
from muybridge.api.guard import Guard
from muybridge.api.settings import Limits
from muybridge.errors import ConfigError, InputFileError, OutputError

LIMITS = Limits(upload_bytes=2000, body_bytes=100)


class Body(BaseModel):
    number: int


def raising(error):
    def handler() -> None:
        raise error

    return handler


@pytest.fixture(scope="module")
def answered():
    return Counter()


@pytest.fixture(scope="module")
def client(answered):
    app = FastAPI(docs_url=None, redoc_url=None)
    handle_errors(app)
    app.add_middleware(Guard, hosts=("testserver", "named.example"), limits=LIMITS, answered=answered)

    @app.post("/numbers")
    def numbers(body: Body) -> int:
        return body.number

    @app.post("/v1/uploads")
    @app.post("/v1/videos/{video_id}/remix")
    async def uploads(request: Request) -> int:
        return len(await request.body())

    for name, error in {
        "config": ConfigError("sampling.eta: must be at most 1 (given 2)"),
        "input": InputFileError("It is broken."),
        "path": ConfigError("/srv/secret/models/a.safetensors cannot be read"),
        "output": OutputError("/secret/disk could not be written: No space left on device."),
        "api": ApiError(429, "The queue is full.", headers={"Retry-After": "10"}),
        "unavailable": HTTPException(503),
        "unprocessable": HTTPException(422, "no"),
        "defect": RuntimeError("/secret"),
    }.items():
        app.get(f"/{name}")(raising(error))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "kind"),
    [
        ("GET", "/config", 400, "invalid_value", "invalid_request_error"),
        ("GET", "/input", 400, "input_unreadable", "invalid_request_error"),
        ("GET", "/output", 507, "internal", "server_error"),
        ("GET", "/api", 429, "queue_full", "rate_limit_error"),
        ("GET", "/unavailable", 503, "internal", "server_error"),
        ("GET", "/unprocessable", 400, "invalid_value", "invalid_request_error"),
        ("GET", "/defect", 500, "internal", "server_error"),
        ("GET", "/nowhere", 404, "not_found", "not_found_error"),
        ("GET", "/numbers", 405, "invalid_value", "invalid_request_error"),
    ],
)
def test_every_error_has_one_shape(client, method, path, status, code, kind):
    answer = client.request(method, path)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["type"]) == (code, kind)
    assert error["message"]
    assert "secret" not in answer.text


def test_an_error_names_its_field(client):
    assert client.get("/config").json()["error"]["param"] == "sampling.eta"
    answer = client.post("/numbers", json={"number": "x"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "number")
    assert client.post("/numbers", content=b"{", headers={"content-type": "application/json"}).status_code == 400
    assert client.get("/api").headers["retry-after"] == "10"


def test_no_error_names_a_path(client):
    assert client.get("/path").json()["error"]["message"] == "a file of the service cannot be read"


def test_bodies_are_refused_by_their_length_and_while_they_come(client):
    answer = client.post("/numbers", content=b"x" * 101)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert client.post("/v1/uploads", content=b"x" * 2000).json() == 2000
    assert client.post("/v1/videos/video_1/remix", content=b"x" * 2000).json() == 2000

    def endless():
        for _ in range(100):
            yield b"x" * 100

    answer = client.post("/v1/uploads", content=endless())
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert client.post("/numbers", content=b"x", headers={"content-length": "many"}).status_code in (400, 413)


@pytest.mark.parametrize("host", ["testserver", "NAMED.example:7860", "127.0.0.1:80", "[::1]:80", "192.168.0.7"])
def test_names_that_it_is_called_by(client, host):
    assert client.get("/config", headers={"host": host}).status_code == 400


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "localhost", "testserver.evil.example"])
def test_other_names_are_refused(client, host):
    answer = client.get("/config", headers={"host": host})
    assert (answer.status_code, answer.json()["error"]["code"]) == (421, "bad_host")


def test_every_answer_has_safe_headers(client):
    for path in ("/config", "/nowhere"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'self'" in headers["content-security-policy"]
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in headers
        assert headers["x-request-id"]


def test_calls_are_counted_by_template(client, answered):
    client.get("/nowhere/<script>")
    client.get("/config")
    assert answered["other", 404] >= 1
    assert answered["/config", 400] >= 1
    assert not any("script" in route for route, _ in answered)
