"""What somebody may try who means no good."""

from __future__ import annotations

import asyncio
import stat
import threading

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from muybridge.api import content
from muybridge.api.access import COOKIE
from muybridge.api.settings import ApiSettings, Limits, is_local, read_tokens
from muybridge.errors import ConfigError
from muybridge.jobs.record import New
from muybridge.video import Video

FIRST, SECOND = "first-token-of-tests-1", "second-token-of-tests-2"
OUTSIDE = (
    "/etc/passwd",
    "../../etc/passwd",
    "..\\..\\windows\\win.ini",
    "C:\\secret.png",
    "file:///etc/passwd",
    "http://127.0.0.1:9/a.png",
    "https://169.254.169.254/latest/meta-data",
    "hf://somebody/model",
    "concat:/etc/passwd",
    "somebody/a-model-of-the-hub",
    "data:image/png;base64,AAAA",
    "upload_" + "0" * 32,
    "upload_" + "0" * 32 + "/../../jobs.db",
    "UPLOAD_" + "0" * 32,
    "",
    "\x00",
)


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def everywhere(value):
    """Bodies with a value in every place of a request that names a file or a network."""
    conditions = [
        {"kind": "keyframes", "pictures": {"0": value}},
        {"kind": "sketches", "pictures": {"0": value}},
        {"kind": "source", "video": value},
        {"kind": "control", "model": "edges", "frames": value},
        {"kind": "control", "model": "edges", "frames": [value]},
        {"kind": "control", "model": value, "frames": "upload_" + "1" * 32},
        {"kind": "image-prompt", "pictures": [value]},
    ]
    models = [
        {"model": value},
        {"motion_adapter": value},
        {"parts_from": value},
        {"vae": value},
        {"loras": {value: 1.0}},
        {"embeddings": {value: "word"}},
        {"networks": {"image_prompt": value}, "model": "demo/animatediff"},
    ]
    for condition in conditions:
        yield {"request": {"prompt": "a", "conditions": [condition]}}
    for model in models:
        yield {"request": {"prompt": "a", "model": model}}
    flat = ("model", "init_video", "mask", "motion_adapter", "parts_from", "vae", "image_prompt", "keyframe_control")
    for name in (
        *flat,
        "sketch_control",
        "image_prompt_adapter",
        "image_encoder",
        "input_reference",
        "image_reference",
    ):
        yield {"prompt": "a", name: value}
    yield {"prompt": "a", "lora": {value: 1}}
    yield {"prompt": "a", "keyframes": {"0": value}}
    yield {"prompt": "a", "controls": [{"model": "edges", "frames": value}]}
    yield {"prompt": "a", "init_video": value, "mask": value}


def refuse(service, bodies):
    for body in bodies:
        answer = service.client.post("/v1/videos", json=body)
        assert answer.status_code == 400, (body, answer.text)
        assert str(service.folder) not in answer.text
        assert "root:" not in answer.text
    assert service.store.counts().by_status["queued"] == 0
    assert service.files.uploads() == []


def test_no_path_and_no_address_is_taken(service):
    for index, value in enumerate(OUTSIDE):
        refuse(service, list(everywhere(value))[index % 4 :: 4])


@pytest.mark.slow
def test_no_path_and_no_address_is_taken_anywhere(service):
    for value in OUTSIDE:
        refuse(service, everywhere(value))


def test_the_name_of_an_upload_is_ignored(service, picture):
    names = ("../../etc/passwd", "..\\a", "/etc/cron.d/a", "a" * 3000, "a\x00b.png", "x.html", "CON")
    for name in names:
        answer = service.client.post("/v1/uploads", files={"file": (name, picture, "text/html; charset=evil")})
        assert answer.status_code == 200, answer.text
        shown = service.client.get(f"/v1/uploads/{answer.json()['id']}")
        assert shown.headers["content-type"] == "image/png"
        assert shown.headers["x-content-type-options"] == "nosniff"
    uploads = service.folder / "files" / "uploads"
    found = [path for path in service.folder.rglob("*") if path.is_file() and path.parent != uploads]
    assert {path.name.partition("-")[0] for path in found} == {"jobs.db"}
    for path in uploads.iterdir():
        assert path.name.startswith("upload_")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "content", [b"<svg onload='alert(1)'/>", b"<html></html>", b"#EXTM3U\nfile:///etc/passwd", b"PK\x03\x04"]
)
def test_what_is_no_picture_is_not_kept(service, content):
    answer = service.client.post("/v1/uploads", files={"file": ("a.png", content, "image/png")})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "input_unreadable")
    files = {"input_reference": ("a.png", content, "image/png")}
    assert service.client.post("/v1/videos", data={"prompt": "a"}, files=files).status_code == 400
    assert service.files.uploads() == []


def test_files_of_a_call_that_fails_are_not_kept(service, picture):
    files = {"input_reference": ("a", picture)}
    for data in ({}, {"prompt": "a", "nothing": "1"}, {"prompt": "a", "model": "nothing"}):
        assert service.client.post("/v1/videos", data=data, files=files).status_code == 400
    assert service.files.uploads() == []


def test_forms_have_limits(make_service, picture):
    service = make_service(limits=Limits(fields=5, files=2, text_bytes=1000, upload_bytes=20_000))
    post = service.client.post
    assert post("/v1/videos", data={f"a{index}": "1" for index in range(9)}, files={"x": picture}).status_code == 400
    many = [("keyframes[0]", ("a", picture)), ("keyframes[1]", ("a", picture)), ("keyframes[2]", ("a", picture))]
    assert post("/v1/videos", data={"prompt": "a"}, files=many).status_code == 400
    assert post("/v1/videos", data={"prompt": "a" * 2000}, files={"x": picture}).status_code in (400, 413)
    answer = post("/v1/uploads", files={"file": b"x" * 30_000})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert service.files.uploads() == []


def test_broken_bodies(service):
    post = service.client.post
    for kind in ("application/json", "multipart/form-data", "multipart/form-data; boundary=x", "text/plain", ""):
        for body in (b"", b"{", b"[]", b"null", b"--x\r\n\r\n", b"\xff" * 50, b'{"prompt": ' + b"[" * 5000):
            answer = post("/v1/videos", content=body, headers={"content-type": kind})
            assert answer.status_code in (400, 415), (kind, body, answer.text)
            assert answer.json()["error"]["message"]


def test_characters_that_are_none(service):
    for escaped in (r"\ud800", r"a\u0000b"):
        body = f'{{"prompt": "{escaped}"}}'
        answer = service.client.post("/v1/videos", content=body, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_value")
    assert service.client.post("/v1/videos", data={"prompt": "a\0b"}).json()["error"]["param"] == "prompt"
    assert service.client.post("/v1/videos", json={"prompt": "\U0001f600"}).status_code == 200


def test_numbers_beyond_reason(service):
    for name in ("num_frames", "width", "seed", "num_inference_steps", "fps", "seconds"):
        for value in ("-1", str(10**30), "1e999", '"inf"', '"nan"', "[1]", '{"a": 1}', '"' + "9" * 5000 + '"'):
            body = f'{{"prompt": "a", "{name}": {value}}}'
            answer = service.client.post("/v1/videos", content=body, headers={"content-type": "application/json"})
            assert answer.status_code == 400, (name, value, answer.text)
    large = {"prompt": "a", "width": 8192, "height": 8192, "num_frames": 20_000}
    assert service.client.post("/v1/videos", json=large).json()["error"]["param"] == "shape"


def test_no_path_of_the_server_is_in_what_it_says(service, picture):
    upload = service.client.post("/v1/uploads", files={"file": ("a", picture)}).json()["id"]
    video = service.client.post("/v1/videos", json={"prompt": "a", "keyframes": {"0": upload}}).json()["id"]
    service.finish()
    texts = [
        service.client.get(path).text
        for path in (f"/v1/videos/{video}", "/v1/videos", "/v1/models", "/v1/schema", "/v1/queue", "/metrics", "/ready")
    ]
    for text in texts:
        assert str(service.folder) not in text
        assert "/root/" not in text
        assert "site-packages" not in text


def test_an_upload_that_is_gone_is_said_without_its_path(service, picture):
    upload = service.client.post("/v1/uploads", files={"file": ("a", picture)}).json()["id"]
    service.files.local_upload(upload).unlink()
    answer = service.client.post("/v1/videos", json={"prompt": "a", "keyframes": {"0": upload}})
    assert answer.status_code == 400
    assert str(service.folder) not in answer.text
    assert service.client.get(f"/v1/uploads/{upload}").status_code in (400, 404)


def test_everything_asks_for_the_token_but_what_must_not(make_service):
    service = make_service(tokens=(FIRST,))
    document = service.client.get("/openapi.json").json()
    is_open = {"/health", "/ready", "/v1/session"}
    for path, methods in document["paths"].items():
        if path in is_open:
            continue
        for method in methods:
            address = path.replace("{video_id}", "video_" + "0" * 32).replace("{upload_id}", "upload_" + "0" * 32)
            for headers in (
                {},
                bearer("wrong-token-of-tests"),
                {"Authorization": FIRST},
                {"Cookie": f"{COOKIE}=1.2.3"},
            ):
                answer = service.client.request(method, address.replace("{name}", "a"), headers=headers)
                is_of_page = "Cookie" in headers and method != "get"
                assert answer.status_code == (403 if is_of_page else 401), (method, path, answer.text)
                assert answer.json()["error"]["code"] == ("invalid_origin" if is_of_page else "invalid_api_key")
    assert service.client.get("/v1/videos", headers=bearer(FIRST)).status_code == 200


def test_a_token_sees_its_own_only(make_service, picture):
    service = make_service(tokens=(FIRST, SECOND))
    get, post = service.client.get, service.client.post
    upload = post("/v1/uploads", files={"file": picture}, headers=bearer(FIRST)).json()["id"]
    body = {"prompt": "secret", "keyframes": {"0": upload}}
    video = post("/v1/videos", json=body, headers=bearer(FIRST)).json()["id"]
    own, other = bearer(FIRST), bearer(SECOND)
    assert get(f"/v1/uploads/{upload}", headers=own).status_code == 200
    for method, path in (
        ("GET", f"/v1/uploads/{upload}"),
        ("GET", f"/v1/videos/{video}"),
        ("GET", f"/v1/videos/{video}/content"),
        ("GET", f"/v1/videos/{video}/events"),
        ("DELETE", f"/v1/videos/{video}"),
        ("POST", f"/v1/videos/{video}/cancel"),
    ):
        answer = service.client.request(method, path, headers=other)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found"), path
    assert service.client.patch(f"/v1/videos/{video}", json={"priority": 1}, headers=other).status_code == 404
    assert get("/v1/videos", headers=other).json()["data"] == []
    assert post("/v1/videos", json=body, headers=other).status_code == 400
    assert post("/v1/videos", json={"prompt": "a", "priority": 1}, headers=other).status_code == 403
    assert get("/v1/videos", params={"after": video}, headers=other).status_code == 400
    job = service.begin()
    service.live()
    assert get("/v1/queue", headers=other).json()["workers"][0]["job"] is None
    assert job.id == video


def test_a_page_gets_a_cookie_that_only_it_can_use(make_service):
    service = make_service(tokens=(FIRST,))
    client = service.client
    assert client.get("/v1/session").json() == {"token_needed": True, "signed_in": False}
    assert client.post("/v1/session", json={"token": "wrong-token-of-tests"}).status_code == 401
    answer = client.post("/v1/session", json={"token": FIRST})
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert FIRST not in cookie
    assert client.get("/v1/videos").status_code == 200
    own = {"Origin": "http://localhost:7860"}
    assert client.post("/v1/videos", json={"prompt": "a"}, headers=own).status_code == 200
    for headers in ({}, {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://localhost:7861"}):
        answer = client.post("/v1/videos", json={"prompt": "a"}, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "invalid_origin")
    assert client.get("/v1/videos", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert client.delete("/v1/session", headers=own).json() == {"token_needed": True, "signed_in": False}
    assert client.get("/v1/videos").status_code == 401


def test_a_session_ends_with_its_time_and_with_its_token(make_service):
    service = make_service(tokens=(FIRST,))
    session = service.client.app.state.service.access.session(FIRST)
    until, nonce, signature = session.split(".")
    for forged in (
        f"{int(until) + 1}.{nonce}.{signature}",
        f"1.{nonce}.{signature}",
        "..",
        "é.é.é",
        f"{until}.{nonce}.",
    ):
        service.client.cookies.set(COOKIE, forged.encode("ascii", "replace").decode())
        assert service.client.get("/v1/videos").status_code == 401
        service.client.cookies.clear()
    other = make_service(tokens=(SECOND,))
    other.client.cookies.set(COOKIE, session)
    assert other.client.get("/v1/videos").status_code == 401


def test_pages_of_others_cannot_use_an_open_service(service):
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        for method, path in (("POST", "/v1/videos"), ("GET", "/v1/videos"), ("POST", "/v1/uploads")):
            answer = service.client.request(method, path, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "invalid_origin")
    answer = service.client.options(
        "/v1/videos", headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    )
    assert "access-control-allow-origin" not in answer.headers
    assert (
        service.client.post("/v1/session", json={"token": "x"}, headers={"Origin": "http://evil.example"}).status_code
        == 403
    )


def test_a_service_is_not_reached_by_strange_names(service):
    for host in ("evil.example", "localhost.evil.example"):
        assert service.client.get("/v1/videos", headers={"Host": host}).status_code == 421
        assert service.client.get("/", headers={"Host": host}).status_code == 421


def test_the_page_may_load_nothing_from_elsewhere(make_service, tmp_path):
    folder = tmp_path / "page"
    folder.mkdir()
    (folder / "index.html").write_text("<!doctype html><title>page</title>")
    (tmp_path / "secret").write_text("secret")
    service = make_service(page=folder)
    answer = service.client.get("/")
    assert "page" in answer.text
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    for path in ("/../secret", "/%2e%2e/secret", "/..%2fsecret", "/.%2e/secret", "/%5c..%5csecret", "//etc/passwd"):
        answer = service.client.get(path)
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "not_found"


def test_ids_that_are_none(service):
    for name in ("..", "%2e%2e%2f", "video_" + "0" * 32, "video_x", "a" * 500, "video_" + "0" * 31 + "/"):
        for path in (f"/v1/videos/{name}", f"/v1/videos/{name}/content", f"/v1/uploads/{name}"):
            assert service.client.get(path).status_code in (400, 404, 405), path


# The framework leaves the file of a part that does not end to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_client_that_vanishes_leaves_nothing(service, picture):
    begun = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + picture
    messages = [{"type": "http.request", "body": begun, "more_body": True}, {"type": "http.disconnect"}]
    headers = [(b"host", b"localhost"), (b"content-type", b"multipart/form-data; boundary=x")]
    scope = {"type": "http", "method": "POST", "path": "/v1/uploads", "query_string": b"", "headers": headers}

    async def receive():
        return messages.pop(0)

    async def send(message):
        del message

    asyncio.run(service.client.app(scope, receive, send))
    cut = {"content-type": "multipart/form-data; boundary=x"}
    assert service.client.post("/v1/uploads", content=begun, headers=cut).status_code == 400
    assert service.files.uploads() == []


def test_a_video_with_more_frames_than_are_taken(make_service):
    service = make_service(limits=Limits(video_pixels=16 * 16 * 5))
    frames = np.random.default_rng(0).integers(0, 255, (10, 16, 16, 3), np.uint8)
    path = Video(frames).save(service.folder / "long.mp4")
    answer = service.client.post("/v1/uploads", files={"file": path.read_bytes()})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


def test_what_is_made_of_a_file_is_made_once(service):
    video = service.client.post("/v1/videos", json={"prompt": "a"}).json()["id"]
    service.finish()
    path = f"/v1/videos/{video}/content?variant=gif"
    answers: list[bytes] = []
    threads = [threading.Thread(target=lambda: answers.append(service.client.get(path).content)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(answers)) == 1
    assert len(list((service.folder / "files" / "results" / video).rglob("*.gif"))) == 1


def test_nothing_is_made_of_a_huge_video(service, monkeypatch):
    video = service.client.post("/v1/videos", json={"prompt": "a"}).json()["id"]
    service.finish()
    assert "gif" in service.client.get(f"/v1/videos/{video}").json()["variants"]
    monkeypatch.setattr(content, "MOST_PIXELS", 48 * 32 * 4 - 1)
    answer = service.client.get(f"/v1/videos/{video}/content?variant=gif")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "variant")
    assert not {"gif", "webp"} & set(service.client.get(f"/v1/videos/{video}").json()["variants"])


def test_weak_tokens_are_refused(tmp_path):
    for token in ("short", "with a blank in the middle", "é" * 20, "x" * 15):
        with pytest.raises(ConfigError):
            ApiSettings(tokens=(token,))
    file = tmp_path / "tokens"
    file.write_text(f"# of tests\n{FIRST}  # the first\n\n")
    file.chmod(0o600)
    assert read_tokens(file, f"{SECOND} {FIRST}") == (SECOND, FIRST)
    file.chmod(0o644)
    with pytest.warns(UserWarning, match="chmod 600"):
        read_tokens(file, None)
    file.write_text("# none\n")
    file.chmod(0o600)
    for wrong in (file, tmp_path / "missing", tmp_path):
        with pytest.raises(ConfigError):
            read_tokens(wrong, None)


@pytest.mark.parametrize(
    ("host", "local"), [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False)]
)
def test_which_hosts_are_this_machine(host, local):
    assert is_local(host) == local


def test_a_pixel_bomb_in_a_data_url(service):
    import base64
    import io

    buffer = io.BytesIO()
    Image.new("1", (9000, 9000)).save(buffer, "PNG")
    url = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    answer = service.client.post("/v1/videos", json={"prompt": "a", "image_reference": {"image_url": url}})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


def test_a_store_that_is_away_is_said_without_its_place(make_service):
    service = make_service()
    service.store.insert(New("local", {"prompt": "a"}, "demo/animatediff"))
    service.store.close()
    for path in service.folder.glob("jobs.db*"):
        path.unlink()
    (service.folder / "jobs.db").mkdir()
    answer = TestClient(service.client.app, base_url="http://localhost:7860").get("/v1/videos")
    assert answer.status_code == 503
    assert str(service.folder) not in answer.text
    assert answer.headers["retry-after"]
