"""Files of a video, parts of them, and what is made of them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from fastapi import FastAPI, Request, Response
from fastapi.testclient import TestClient

from muybridge.api.content import MADE, ranged
from muybridge.api.decoding import DecoderHere
from muybridge.api.errors import handle_errors
from muybridge.video import Video, read_video
from muybridge.video.reading import read_request

BODY = bytes(range(256)) + bytes(range(255, -1, -1)) + b"end of the file"


@pytest.fixture(scope="module")
def client():
    app = FastAPI()
    handle_errors(app)

    @app.api_route("/file", methods=["GET", "HEAD"])
    def file(request: Request) -> Response:
        return ranged(request, lambda: io.BytesIO(BODY), len(BODY), "video", "video_1")

    with TestClient(app) as client:
        yield client


def test_all_of_it(client):
    answer = client.get("/file")
    assert (answer.status_code, answer.content) == (200, BODY)
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-length"] == str(len(BODY))
    head = client.head("/file")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(BODY)))


@pytest.mark.parametrize(
    ("asked", "part"),
    [("bytes=0-9", BODY[:10]), ("bytes=500-", BODY[500:]), ("bytes=-10", BODY[-10:]), ("bytes=5-99999", BODY[5:])],
)
def test_a_part_of_it(client, asked, part):
    answer = client.get("/file", headers={"range": asked})
    assert (answer.status_code, answer.content) == (206, part)
    start = BODY.index(part)
    assert answer.headers["content-range"] == f"bytes {start}-{start + len(part) - 1}/{len(BODY)}"


@pytest.mark.parametrize("asked", ["bytes=5000-", "bytes=9-3", "bytes=-0"])
def test_a_part_that_there_is_not(client, asked):
    answer = client.get("/file", headers={"range": asked})
    assert answer.status_code == 416
    assert answer.json()["error"]["code"] == "invalid_value"
    assert answer.headers["content-range"] == f"bytes */{len(BODY)}"


@pytest.mark.parametrize("asked", ["bytes=0-1,3-4", "bytes=-", "lines=1-2", "bytes=a-b", "bytes=0-" + "9" * 40])
def test_what_is_no_single_part_gives_all(client, asked):
    assert client.get("/file", headers={"range": asked}).content == BODY


def test_a_file_that_the_client_has(client):
    tag = client.get("/file").headers["etag"]
    assert client.get("/file", headers={"if-none-match": tag}).status_code == 304
    assert client.get("/file", headers={"range": "bytes=0-9", "if-range": '"other"'}).content == BODY


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    frames = np.random.default_rng(0).integers(0, 255, (6, 32, 48, 3), np.uint8)
    path = tmp_path_factory.mktemp("made") / "a.mp4"
    return Video(frames, 8.0, {"prompt": "a"}).save(path)


@pytest.mark.parametrize("variant", MADE)
def test_animations_keep_frames_rate_and_request(made, tmp_path, variant):
    path = tmp_path / f"a.{variant}"
    DecoderHere().animate(made, path)
    video = read_video(path)
    assert video.frames.shape == (6, 32, 48, 3)
    assert video.fps == pytest.approx(8.0, rel=0.05)
    assert read_request(path) == {"prompt": "a"}
    if variant == "webp":
        assert np.array_equal(video.frames, read_video(made).frames)
