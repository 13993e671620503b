"""The service as a whole: a server, a worker with a shipped model, OpenAI's client and others."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from muybridge.api.app import create_app
from muybridge.api.server import Server, address_of, listening
from muybridge.api.settings import ApiSettings
from muybridge.cli.main import app as program
from muybridge.jobs.catalog import Catalog
from muybridge.jobs.files import FileStore
from muybridge.jobs.store import JobStore
from muybridge.jobs.worker import Worker, WorkerSettings
from muybridge.service.engine import Engine
from muybridge.video import read_video
from muybridge.video.reading import read_request

openai = pytest.importorskip("openai")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The Sora API is scheduled to permanently shut down:DeprecationWarning"),
]
SMALL = {"num_inference_steps": 2, "num_frames": 8, "width": 64, "height": 64, "seed": 3}


@dataclass
class Running:
    """A service that runs, and its folder."""

    url: str
    folder: Path


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("service")
    store, files = JobStore.open(str(folder / "jobs.db")), FileStore.open(str(folder / "files"))
    catalog = Catalog.scan(None)
    worker = Worker(store, files, catalog, Engine("cpu"), WorkerSettings("cpu", "worker-1"))
    opened, ready = listening("127.0.0.1", 0), threading.Event()
    server = Server(create_app(ApiSettings(also=("easyanimate",)), store, files, catalog), ready.set)
    threads = [threading.Thread(target=worker.run), threading.Thread(target=server.run, args=([opened],))]
    for thread in threads:
        thread.start()
    assert ready.wait(60)
    yield Running(address_of(opened), folder)
    worker.stop()
    server.handle_exit(15, None)
    for thread in threads:
        thread.join(60)
    store.close()


@pytest.fixture(scope="module")
def client(running: Running) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="of no importance", max_retries=0) as client:
        yield client


def test_openais_client_makes_a_video(client: Any, tmp_path: Path) -> None:
    video = client.videos.create_and_poll(
        prompt="a red circle moving left", model="demo/animatediff", extra_body=SMALL, poll_interval_ms=200
    )
    assert video.status == "completed", video.error
    assert (video.progress, video.size, video.seconds) == (100, "64x64", "1")
    assert video.created_at <= video.completed_at
    for variant, first in (("video", b"ftyp"), ("thumbnail", b"RIFF"), ("spritesheet", b"\xff\xd8")):
        content = client.videos.download_content(video.id, variant=variant).read()
        assert first in content[:8]
    client.videos.download_content(video.id).write_to_file(tmp_path / "a.mp4")
    assert len(read_video(tmp_path / "a.mp4")) == 8
    record = read_request(tmp_path / "a.mp4")
    assert record is not None
    assert record["model"]["model"] == "demo/animatediff"
    assert client.videos.delete(video.id).deleted is True
    with pytest.raises(openai.NotFoundError) as caught:
        client.videos.retrieve(video.id)
    assert caught.value.code == "not_found"
    assert "There is no video" in str(caught.value)


def test_a_picture_from_openais_client(client: Any, running: Running, tmp_path: Path) -> None:
    picture = tmp_path / "start.png"
    Image.new("RGB", (64, 64), (200, 30, 30)).save(picture)
    video = client.videos.create_and_poll(
        prompt="a red circle", model="demo/easyanimate", input_reference=picture.read_bytes(), extra_body=SMALL
    )
    assert video.status == "completed", video.error
    path = tmp_path / "a.mp4"
    client.videos.download_content(video.id).write_to_file(path)
    text = json.dumps(read_request(path))
    assert "upload_" in text
    assert str(running.folder) not in text
    assert str(running.folder).encode() not in path.read_bytes()


def test_what_openais_client_is_told_of_mistakes(client: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.videos.create(prompt="a", extra_body={"num_inference_steps": 0})
    assert caught.value.param == "sampling.num_inference_steps"
    assert caught.value.code == "invalid_value"
    with pytest.raises(openai.BadRequestError, match="flow_shift"):
        client.videos.create(prompt="a", extra_body={"flow_shift": 3})
    with pytest.raises(openai.BadRequestError):
        client.videos.create(prompt="a", input_reference=b"no picture")


def test_openais_client_remixes_lists_and_cancels(client: Any) -> None:
    first = client.videos.create(prompt="a red circle", extra_body=SMALL)
    other = client.videos.remix(first.id, prompt="a blue square")
    assert other.remixed_from_video_id == first.id
    listed = [video.id for video in client.videos.list(limit=1)]  # page after page
    assert {first.id, other.id} <= set(listed)
    assert len(listed) == len(set(listed))
    cancelled = client.post(f"/videos/{other.id}/cancel", cast_to=object)
    assert cancelled["status"] in ("failed", "in_progress", "completed")
    assert client.videos.poll(first.id, poll_interval_ms=100).status == "completed"


def test_events_of_a_video(running: Running) -> None:
    with httpx2.Client(base_url=running.url, timeout=60) as http:
        body = {"prompt": "a", **SMALL, "num_inference_steps": 6}
        video = http.post("/v1/videos", json=body).json()["id"]
        seen, last = [], {}
        with http.stream("GET", f"/v1/videos/{video}/events") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            for line in stream.iter_lines():
                if line.startswith("event: "):
                    seen.append(line.removeprefix("event: "))
                if line.startswith("data: "):
                    last = json.loads(line.removeprefix("data: "))
        assert seen[0] == "snapshot"
        assert seen[-1] == "done"
        assert (last["id"], last["status"]) == (video, "completed")
        assert set(seen) <= {"snapshot", "job", "progress", "preview", "done"}
        again = http.get(f"/v1/videos/{video}/events").text
        assert again.count("event: ") == 2


def test_the_stream_of_all_begins_with_how_it_is(running: Running) -> None:
    with httpx2.Client(base_url=running.url, timeout=60) as http, http.stream("GET", "/v1/events") as stream:
        lines = stream.iter_lines()
        assert next(lines) == "event: snapshot"
        assert "videos" in json.loads(next(lines).removeprefix("data: "))
        video = http.post("/v1/videos", json={"prompt": "a", **SMALL}).json()["id"]
        until = time.monotonic() + 60
        kinds = []
        for line in lines:
            if line.startswith("event: "):
                kinds.append(line.removeprefix("event: "))
            if line.startswith("data: ") and kinds and kinds[-1] == "done":
                assert json.loads(line.removeprefix("data: "))["id"] == video
                break
            assert time.monotonic() < until
        assert "job" in kinds


def test_who_comes_back_to_the_stream_hears_what_was_removed(running: Running) -> None:
    with httpx2.Client(base_url=running.url, timeout=60) as http:

        def begin(path: str, **headers: str) -> list[tuple[str, str, dict]]:
            """The events up to the first that says how everything is."""
            found, told = [], {}
            with http.stream("GET", path, headers=headers) as stream:
                for line in stream.iter_lines():
                    name, _, value = line.partition(": ")
                    told[name] = value
                    if not line and "event" in told:
                        found.append((told["event"], told["id"], json.loads(told["data"])))
                        if told["event"] == "snapshot":
                            return found
                        told = {}
            return found

        video = http.post("/v1/videos", json={"prompt": "a", **SMALL}).json()["id"]
        ((_, revision, _),) = begin("/v1/events")
        http.delete(f"/v1/videos/{video}")
        for path, headers in (("/v1/events", {"Last-Event-ID": revision}), (f"/v1/events?after={revision}", {})):
            first, last = begin(path, **headers)
            assert (first[0], first[2]) == ("removed", {"id": video})
            assert video not in {each["id"] for each in last[2]["videos"]}
        for nothing in ("nonsense", "9" * 18):
            assert [each[0] for each in begin(f"/v1/events?after={nothing}")] == ["snapshot"]


def test_the_command_line_and_the_service_make_the_same_frames(running: Running, tmp_path: Path) -> None:
    with httpx2.Client(base_url=running.url, timeout=120) as http:
        answer = http.post("/v1/videos/sync", data={"prompt": "a red circle moving left", **SMALL})
        assert answer.status_code == 200, answer.text
        (tmp_path / "http.mp4").write_bytes(answer.content)
        document = {
            "prompt": "a red circle moving left",
            "shape": {"num_frames": 8, "width": 64, "height": 64},
            "sampling": {"seed": 3, "num_inference_steps": 2},
        }
        answer = http.post("/v1/videos/sync", json={"request": document})
        (tmp_path / "page.mp4").write_bytes(answer.content)
    command = [
        "generate",
        "a red circle moving left",
        "--steps",
        "2",
        "--frames",
        "8",
        "--size",
        "64x64",
        "--seed",
        "3",
    ]
    result = CliRunner().invoke(program, [*command, "--output", str(tmp_path / "cli.mp4")], catch_exceptions=False)
    assert result.exit_code == 0
    frames = [read_video(tmp_path / f"{name}.mp4").frames for name in ("http", "page", "cli")]
    assert np.array_equal(frames[0], frames[2])
    assert np.array_equal(frames[1], frames[2])


@pytest.mark.filterwarnings("ignore:This model's vocabulary lacks:UserWarning")
def test_easyanimates_own_calls(running: Running) -> None:
    with httpx2.Client(base_url=running.url, timeout=120) as http:

        def call(name: str, values: dict[str, Any]) -> dict[str, Any]:
            answer = http.post(f"/easyanimate/{name}", content=json.dumps(values))  # its client names no type
            assert answer.status_code == 200
            return answer.json()

        assert call("update_edition", {"edition": "v3"}) == {"message": "Success"}
        assert call("update_edition", {"edition": "v9"})["message"].startswith("Error. error information is")
        chosen = {"diffusion_transformer_path": "models/Diffusion_Transformer/demo/easyanimate"}
        assert call("update_diffusion_transformer", chosen)["message"].startswith("Error")
        assert call("update_diffusion_transformer", {"diffusion_transformer_path": "demo/easyanimate"}) == {
            "message": "Success"
        }
        small = {"sample_step_slider": 2, "width_slider": 64, "height_slider": 64, "length_slider": 8}
        made = call("infer_forward", {"prompt_textbox": "a red circle", **small})
        assert made["message"] == "Success", made
        assert http.get(made["save_sample_path"]).content == base64.b64decode(made["base64_encoding"])
        picture = call("infer_forward", {"prompt_textbox": "a red circle", "is_image": True, **small})
        assert base64.b64decode(picture["base64_encoding"]).startswith(b"\x89PNG")
        for wrong in (
            {"base_model_path": "/etc/passwd"},
            {"start_image": "no base64"},
            {"control_video": "AAAA"},
            {"sampler_dropdown": "none"},
            {"sample_step_slider": 0},
        ):
            refused = call("infer_forward", {"prompt_textbox": "a", **small, **wrong})
            assert refused["message"].startswith("Error. error information is"), wrong
            assert set(refused) == {"message"}
