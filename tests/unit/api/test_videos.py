"""Videos over HTTP, with a real store and no worker."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from muybridge.api.costs import Costs
from muybridge.jobs.record import Limits, New
from muybridge.video import Video


def test_asking_for_a_video(service):
    answer = service.client.post("/v1/videos", json={"prompt": "a red circle", "seconds": "2", "size": "64x48"})
    assert answer.status_code == 200, answer.text
    video = answer.json()
    assert video["object"] == "video"
    assert video["status"] == "queued"
    assert video["id"].startswith("video_")
    assert video["size"] == "64x48"
    assert video["seconds"] == "2"
    assert video["queue_position"] == 1
    assert answer.headers["openai-poll-after-ms"] == "1000"
    assert service.client.get(f"/v1/videos/{video['id']}").json() == video


def test_the_page_gets_what_it_reads(service):
    client = service.client
    models = client.get("/v1/models").json()
    assert {"demo/animatediff", "demo/easyanimate"} <= {model["id"] for model in models["data"]}
    assert models["motion_adapters"] == []
    schema = client.get("/v1/schema").json()
    assert "sampling" in schema["request"]["properties"]
    assert set(schema["conditions"]) >= {"keyframes", "source", "mask", "control"}
    assert "text-states" not in schema["conditions"]
    assert schema["request"]["$defs"]["Sampling"]["properties"]["seed"]["description"]
    assert {"ratio": "16:9", "base": 512, "width": 672, "height": 384} in schema["presets"]["sizes"]
    shipped = ["demo/animatediff-4-steps", "demo/easyanimate-4-steps"]
    sampling = {"num_inference_steps": 4, "guidance_scale": 1.0, "scheduler": "ddim"}
    loras = [{"id": name, "object": "lora", "sampling": sampling} for name in shipped]
    assert client.get("/v1/loras").json() == {"object": "list", "data": loras}
    assert client.get("/v1/queue").json()["counts"]["queued"] == 0
    assert client.get("/v1/session").json() == {"token_needed": False, "signed_in": True}


def test_files_of_a_finished_video(service):
    client = service.client
    video = client.post("/v1/videos", json={"prompt": "a"}).json()["id"]
    assert client.get(f"/v1/videos/{video}/content").status_code == 404
    service.finish()
    shown = client.get(f"/v1/videos/{video}").json()
    assert (shown["status"], shown["progress"], shown["size"], shown["seed"]) == ("completed", 100, "48x32", 7)
    assert shown["seconds"] == "0.5"
    for variant in shown["variants"]:
        answer = client.get(f"/v1/videos/{video}/content", params={"variant": variant})
        assert answer.status_code == 200, answer.text
        assert answer.content
        again = client.get(f"/v1/videos/{video}/content", params={"variant": variant})
        assert again.content == answer.content
    part = client.get(f"/v1/videos/{video}/content", headers={"range": "bytes=4-7"})
    assert (part.status_code, part.content) == (206, b"ftyp")
    assert client.get(f"/v1/videos/{video}/content", params={"variant": "nothing"}).status_code == 400
    assert client.delete(f"/v1/videos/{video}").json() == {"id": video, "object": "video.deleted", "deleted": True}
    assert client.get(f"/v1/videos/{video}").status_code == 404
    assert not service.files.jobs_with_files()


def test_uploads(service, picture):
    client = service.client
    found = client.post("/v1/uploads", files={"file": ("../../etc/passwd", picture, "text/html")}).json()
    assert (found["kind"], found["width"], found["height"], found["num_frames"]) == ("picture", 32, 32, 1)
    assert client.get(f"/v1/uploads/{found['id']}/about").json() == found
    assert client.get("/v1/uploads/upload_0/about").status_code == 404
    answer = client.get(f"/v1/uploads/{found['id']}")
    assert (answer.content, answer.headers["content-type"]) == (picture, "image/png")
    video = client.post("/v1/videos", json={"prompt": "a", "keyframes": {"0": found["id"], "-1": found["id"]}})
    assert video.status_code == 200, video.text
    conditions = video.json()["request"]["conditions"]
    assert conditions == [{"kind": "keyframes", "pictures": {"0": found["id"], "-1": found["id"]}}]


def test_forty_five_videos_in_pages(service):
    for number in range(45):
        request = {"prompt": f"number {number}", "model": {"model": "demo/animatediff"}}
        service.store.insert(New("local", request, "demo/animatediff", f"number {number}"))
    seen, after = [], None
    while True:
        query = {"limit": 20, **({"after": after} if after else {})}
        page = service.client.get("/v1/videos", params=query).json()
        seen += [video["prompt"] for video in page["data"]]
        assert page["last_id"] == page["data"][-1]["id"]
        if not page["has_more"]:
            break
        after = page["last_id"]
    assert seen == [f"number {number}" for number in reversed(range(45))]
    oldest = service.client.get("/v1/videos", params={"order": "asc", "limit": 1}).json()["data"][0]
    assert (oldest["prompt"], oldest["queue_position"]) == ("number 0", 1)
    found = service.client.get("/v1/videos", params={"q": "number 33"}).json()["data"]
    assert [video["prompt"] for video in found] == ["number 33"]
    assert service.client.get("/v1/videos", params={"model": "demo/easyanimate"}).json()["data"] == []
    assert service.client.get("/v1/videos", params={"status": "completed"}).json()["last_id"] is None
    assert service.client.get("/v1/videos", params={"after": "video_nothing"}).status_code == 400
    assert service.client.get("/v1/videos", params={"limit": 101}).json()["error"]["param"] == "limit"


def test_the_same_key_is_the_same_video(service):
    headers = {"Idempotency-Key": "once"}
    first = service.client.post("/v1/videos", data={"prompt": "a"}, headers=headers).json()
    again = service.client.post("/v1/videos", data={"prompt": "a"}, headers=headers).json()
    assert again["id"] == first["id"]
    other = service.client.post("/v1/videos", data={"prompt": "b"}, headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (400, "invalid_value")
    assert len(service.client.get("/v1/videos").json()["data"]) == 1


def test_a_call_with_files_that_is_sent_again(service, picture):
    def send():
        files = {"input_reference": ("a", picture), "keyframes[-1]": ("b", picture)}
        headers = {"Idempotency-Key": "with files"}
        return service.client.post("/v1/videos", data={"prompt": "a"}, files=files, headers=headers)

    first, again = send(), send()
    assert again.status_code == 200, again.text
    assert again.json()["id"] == first.json()["id"]
    assert len(service.files.uploads()) == 2


def test_a_form_with_pictures_by_frame(service, picture):
    files = [("keyframes[0]", ("a", picture)), ("keyframes[-1]", ("b", picture))]
    video = service.client.post("/v1/videos", data={"prompt": "a"}, files=files).json()
    (condition,) = video["request"]["conditions"]
    assert set(condition["pictures"]) == {"0", "-1"}
    assert all(service.files.upload(each) for each in condition["pictures"].values())


def test_cancelling(service):
    waiting, running = (service.client.post("/v1/videos", json={"prompt": each}).json()["id"] for each in "ab")
    cancelled = service.client.post(f"/v1/videos/{waiting}/cancel").json()
    assert (cancelled["status"], cancelled["error"]["code"]) == ("failed", "cancelled")
    job = service.begin()
    assert job.id == running
    assert service.client.post(f"/v1/videos/{running}/cancel").json()["status"] == "in_progress"
    assert service.store.watch(running, job.worker).cancel


def test_the_same_with_another_prompt(service):
    first = service.client.post("/v1/videos", json={"prompt": "a", "size": "64x48"}).json()["id"]
    service.finish()
    other = service.client.post(f"/v1/videos/{first}/remix", json={"prompt": "b"}).json()
    assert (other["prompt"], other["remixed_from_video_id"], other["seed"]) == ("b", first, 7)
    assert other["request"]["shape"] == {"width": 64, "height": 48}
    missing = service.client.post(f"/v1/videos/{first}/remix", json={})
    assert (missing.status_code, missing.json()["error"]["param"]) == (400, "prompt")


def test_another_place_in_the_queue(service):
    a, b, c = (service.client.post("/v1/videos", json={"prompt": each}).json()["id"] for each in "abc")

    def order():
        return [job.id for job in service.store.queue()]

    assert service.client.patch(f"/v1/videos/{c}", json={"before": a}).json()["queue_position"] == 1
    assert order() == [c, a, b]
    service.client.patch(f"/v1/videos/{c}", json={"before": None})
    assert order() == [a, b, c]
    service.client.patch(f"/v1/videos/{b}", json={"priority": 5})
    assert order() == [b, a, c]
    assert service.client.patch(f"/v1/videos/{b}", json={}).status_code == 400
    assert service.client.patch(f"/v1/videos/{b}", json={"befor": a}).status_code == 400
    assert service.client.patch(f"/v1/videos/{b}", json={"before": "video_nothing"}).status_code == 400


def test_segments_are_made_anew_of_what_has_some(service):
    video = service.client.post("/v1/videos", json={"prompt": "a", "num_frames": 64}).json()["id"]
    body = {"segments": [1], "following": True}
    assert service.client.post(f"/v1/videos/{video}/redo", json=body).status_code == 400
    service.finish()
    folder = service.folder / "segments"
    folder.mkdir()
    service.files.keep_segments(video, folder)
    answer = service.client.post(f"/v1/videos/{video}/redo", json=body)
    assert answer.status_code == 200, answer.text
    job = service.store.get(answer.json()["id"])
    assert (job.redo.job, job.redo.segments, job.redo.following) == (video, (1,), True)
    assert job.request["sampling"]["seed"] == 7
    assert service.client.post(f"/v1/videos/{video}/redo", json={"segments": []}).status_code == 400


def test_a_full_queue(make_service):
    service = make_service(queue=Limits(queued=2, queued_of_owner=2))
    for _ in range(2):
        assert service.client.post("/v1/videos", json={"prompt": "a"}).status_code == 200
    answer = service.client.post("/v1/videos", json={"prompt": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "queue_full")
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize("suffix", ["webp", "gif", "mp4"])
def test_of_a_video_the_first_frame_is_shown_as_what_it_is(service, tmp_path, suffix):
    path = Video(np.arange(2, dtype=np.uint8)[:, None, None, None] * np.full((2, 32, 32, 3), 90, np.uint8)).save(
        tmp_path / f"a.{suffix}"
    )
    found = service.client.post("/v1/uploads", files={"file": path.read_bytes()}).json()
    assert found["kind"] == "video"
    answer = service.client.get(f"/v1/uploads/{found['id']}")
    assert answer.headers["content-type"] == "image/png"
    assert answer.content.startswith(b"\x89PNG")


def test_the_queue_has_its_own_order(service):
    client = service.client
    ids = [client.post("/v1/videos", json={"prompt": str(number)}).json()["id"] for number in range(5)]
    service.finish()
    client.post(f"/v1/videos/{ids[1]}/cancel")
    client.patch(f"/v1/videos/{ids[4]}", json={"before": ids[2]})
    queue = client.get("/v1/queue").json()
    assert queue["waiting"] == 3
    assert [(each["id"], each["queue_position"]) for each in queue["videos"]] == [(ids[4], 1), (ids[2], 2), (ids[3], 3)]
    over = client.get("/v1/videos?status=over&order=asc").json()["data"]
    assert [(each["id"], each["status"]) for each in over] == [(ids[0], "completed"), (ids[1], "failed")]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": "nothing"}, "model.model"),
        ({"lora": {"nothing": 1.0}}, "model.loras"),
        ({"request": {"prompt": "a", "model": {"vae": "nothing"}}}, "model.vae"),
        ({"request": {"prompt": "a", "model": {"networks": {"keyframes": "nothing"}}}}, "model.networks"),
    ],
)
def test_names_that_there_are_not_are_said_at_their_field(service, body, param):
    answer = service.client.post("/v1/videos", json={"prompt": "a", **body} if "request" not in body else body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


class Planner:
    """Knows nothing until it is asked."""

    def known(self, document) -> dict[str, bool] | None:
        return None


def test_what_costs_too_much_is_refused(service):
    class Small(Planner):
        def cost(self, document):
            return {"fits": False, "least": "Ask for 16 frames of 256x256."}

    service.client.app.state.service = replace(service.client.app.state.service, costs=Costs(Small()))
    answer = service.client.post("/v1/videos", json={"prompt": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "out_of_memory")
    assert "256x256" in answer.json()["error"]["message"]


def test_a_planner_that_takes_long_holds_nobody_up(service):
    release = threading.Event()

    class Slow(Planner):
        def cost(self, document):
            release.wait(5)

    costs = Costs(Slow(), 0.05)
    service.client.app.state.service = replace(service.client.app.state.service, costs=costs)
    assert service.client.post("/v1/videos", json={"prompt": "a"}).status_code == 200
    release.set()
    costs.close()


def test_what_is_known_is_told_while_the_planner_is_at_something_else():
    release = threading.Event()

    class Busy(Planner):
        def known(self, document):
            return {"fits": True} if document["prompt"] == "small" else None

        def cost(self, document):
            release.wait(20)

    costs = Costs(Busy(), 0.05)
    assert costs.of({"prompt": "giant"}) is None
    began = time.monotonic()
    assert costs.of({"prompt": "another"}) is None  # a worker will tell
    assert costs.of({"prompt": "small"}) == {"fits": True}
    assert time.monotonic() - began < 2
    release.set()
    costs.close()


def test_a_planner_that_only_just_starts_is_not_waited_for():
    release = threading.Event()

    class Starting(Planner):
        def cost(self, document):
            release.wait(5)
            return {"fits": True}

    costs = Costs(Starting(), 5.0)
    costs.begin()
    began = time.monotonic()
    assert costs.of({"prompt": "a"}) is None
    assert time.monotonic() - began < 2
    release.set()
    until = time.monotonic() + 5
    while costs.of({"prompt": "a"}) is None and time.monotonic() < until:
        time.sleep(0.01)
    assert costs.of({"prompt": "a"}) == {"fits": True}
    costs.close()


def test_waiting_for_the_file(make_service):
    service = make_service(sync_seconds=0.3)
    answer = service.client.post("/v1/videos/sync", json={"prompt": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
    (video,) = service.client.get("/v1/videos").json()["data"]
    assert video["error"]["code"] == "cancelled"


def test_waiting_for_a_file_that_is_made(make_service):
    service = make_service(sync_seconds=20)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(service.client.post, "/v1/videos/sync", json={"prompt": "a"})
        until = time.monotonic() + 10
        while not service.store.has_queued() and time.monotonic() < until:
            time.sleep(0.02)
        job = service.finish()
        answer = waiting.result(20)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["x-request-id"] == job.id
    assert answer.headers["x-inference-time-s"] == "1.500"


def test_settings_come_out_of_a_file(service, picture, tmp_path):
    upload = service.client.post("/v1/uploads", files={"file": ("a", picture)}).json()["id"]
    record = {
        "model": {"model": "demo/animatediff", "device": "cuda"},
        "prompt": "a",
        "sampling": {"seed": 3},
        "conditions": [
            {"kind": "keyframes", "pictures": {"0": upload}},
            {"kind": "source", "video": "/home/somebody/a.mp4"},
        ],
        "made": {"muybridge": "1"},
    }
    frames = np.zeros((2, 16, 16, 3), np.uint8)
    for suffix in ("mp4", "gif", "webp"):
        path = Video(frames, 8.0, record).save(tmp_path / f"a.{suffix}")
        found = service.client.post("/v1/settings", files={"file": path.read_bytes()}).json()
        assert found["request"]["sampling"] == {"seed": 3}
        assert found["request"]["model"] == {"model": "demo/animatediff"}
        assert found["request"]["conditions"] == [{"kind": "keyframes", "pictures": {"0": upload}}]
        assert found["missing"] == ["source"]
        assert found["made"] == {"muybridge": "1"}
    assert service.client.post("/v1/videos", json={"request": found["request"]}).status_code == 200
    bare = Video(frames).save(tmp_path / "bare.mp4").read_bytes()
    assert service.client.post("/v1/settings", files={"file": bare}).json()["error"]["param"] == "file"
    assert service.client.post("/v1/settings", files={"file": b"nothing"}).status_code == 400


def test_whether_it_lives_and_can_work(service):
    assert service.client.get("/health").json()["status"] == "ok"
    answer = service.client.get("/ready")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    service.live()
    assert service.client.get("/ready").status_code == 200
    assert service.client.get("/v1/queue").json()["workers"][0]["state"] == "idle"


def test_figures(service):
    service.client.post("/v1/videos", json={"prompt": "a"})
    service.client.post("/v1/videos", json={"prompt": "b"})
    service.finish(num_frames=4)
    text = service.client.get("/metrics").text
    assert 'muybridge_jobs{status="queued"} 1.0' in text
    assert 'muybridge_jobs{status="completed"} 1.0' in text
    assert 'muybridge_job_seconds_count{model="demo/animatediff",outcome="completed"} 1.0' in text
    assert 'muybridge_phase_seconds_sum{phase="decode"} 0.5' in text
    assert "muybridge_frames_total 4.0" in text
    assert 'muybridge_http_requests_total{code="200",route="/v1/videos"} 2.0' in text
    service.client.delete(f"/v1/videos/{service.store.page()[0][-1].id}")
    assert "muybridge_frames_total 4.0" in service.client.get("/metrics").text


def test_the_description_of_the_api_needs_nobody_else(service):
    document = service.client.get("/openapi.json").json()
    assert "/v1/videos/{video_id}/content" in document["paths"]
    assert "multipart/form-data" in document["paths"]["/v1/videos"]["post"]["requestBody"]["content"]
    assert service.client.get("/docs").status_code == 404
    assert "cdn" not in service.client.get("/openapi.json").text
