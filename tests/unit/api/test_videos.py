"""Videos over HTTP, with a real store and no worker."""

from __future__ import annotations


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
    assert client.get("/v1/loras").json() == {"object": "list", "data": []}
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
    answer = client.get(f"/v1/uploads/{found['id']}")
    assert (answer.content, answer.headers["content-type"]) == (picture, "image/png")
    video = client.post("/v1/videos", json={"prompt": "a", "keyframes": {"0": found["id"], "-1": found["id"]}})
    assert video.status_code == 200, video.text
    conditions = video.json()["request"]["conditions"]
    assert conditions == [{"kind": "keyframes", "pictures": {"0": found["id"], "-1": found["id"]}}]
