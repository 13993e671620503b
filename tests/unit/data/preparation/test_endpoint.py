from __future__ import annotations

import json
import logging
import threading
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import pytest
from PIL import Image
from tests.unit.data.preparation.model_server import Reply, completion, serving

from muybridge.data.preparation.captioning.answers import Answers, Slots
from muybridge.data.preparation.captioning.conversation import Answer, Turn
from muybridge.data.preparation.captioning.endpoint import Endpoint, EndpointAddress
from muybridge.errors import ConfigError, NoAnswerError

KEY = "sk-a-secret-0123456789"
QUESTION = [Turn("user", "What is it?")]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "*")


def endpoint(url: str, waits: list[float] | None = None, tries: int = 3, timeout_s: float = 5.0) -> Endpoint:
    address = EndpointAddress(url, "a-model", "A_KEY", 50, timeout_s, tries)
    return Endpoint(address, sleep=(waits if waits is not None else []).append)


def test_asks_as_these_servers_want_to_be_asked() -> None:
    picture = Image.new("RGB", (8, 6), "red")
    with serving(completion("  A red square. ")) as server:
        answer = endpoint(server.url).answer([Turn("user", "What is it?", (picture, picture))])
    assert answer == Answer("A red square.")
    (asked,) = server.asked
    assert asked.path == "/v1/chat/completions"
    assert asked.headers["Authorization"] == f"Bearer {KEY}"
    assert {name: asked.body[name] for name in ("model", "max_tokens", "temperature", "seed")} == {
        "model": "a-model",
        "max_tokens": 50,
        "temperature": 0,
        "seed": 0,
    }
    parts = asked.body["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["image_url", "image_url", "text"]
    assert parts[0]["image_url"]["url"].startswith("data:image/jpeg;base64,")


def test_thoughts_are_no_answer_and_a_cut_is_seen() -> None:
    with serving(completion("<think>Hm.\n</think>\n A cat", "length")) as server:
        assert endpoint(server.url).answer(QUESTION) == Answer("A cat", is_cut=True)


BAD = [
    Reply(500, b"oops"),
    Reply(503),
    Reply(429, b'{"error": {"message": "slow down"}}'),
    Reply(200, b"<html>garbage"),
    Reply(200, b'{"choices": []}'),
    Reply(200, b"[" * 100_000),
    Reply(200, b""),
    Reply(drop=True),
    completion(None),
    completion("<think>for ever"),
    completion("A cat \ud800 jumps."),
]


@pytest.mark.parametrize("bad", BAD)
def test_what_may_pass_is_tried_again(bad: Reply) -> None:
    waits: list[float] = []
    with serving(bad, bad, completion("A cat.")) as server:
        assert endpoint(server.url, waits).answer(QUESTION).text == "A cat."
    assert waits == [1, 2]


@pytest.mark.parametrize("bad", BAD)
def test_what_does_not_pass_is_given_up(bad: Reply) -> None:
    with serving(bad) as server, pytest.raises(NoAnswerError, match="gave no answer in 3 tries; at last: "):
        endpoint(server.url).answer(QUESTION)
    assert len(server.asked) == 3


def test_nobody_there_is_given_up() -> None:
    with serving(completion("A cat.")) as server:
        pass
    with pytest.raises(NoAnswerError, match="Connection refused"):
        endpoint(server.url).answer(QUESTION)


def test_a_server_that_is_silent_is_given_up() -> None:
    with serving(Reply(delay_s=0.3)) as server, pytest.raises(NoAnswerError, match="timed out"):
        endpoint(server.url, tries=1, timeout_s=0.05).answer(QUESTION)


@pytest.mark.parametrize(
    ("said", "waited"),
    [
        ("7", 7),
        ("0", 0),
        ("9999", 60),
        ("soon", 1),
        ("-3", 1),
        (format_datetime(datetime(2001, 1, 1, tzinfo=UTC)), 0),
        (format_datetime(datetime(9999, 1, 1, tzinfo=UTC)), 60),
    ],
)
def test_waits_as_long_as_the_server_says(said: str, waited: float) -> None:
    waits: list[float] = []
    with serving(Reply(429, headers={"Retry-After": said}), completion("A cat.")) as server:
        endpoint(server.url, waits).answer(QUESTION)
    assert waits == [waited]


@pytest.mark.parametrize("status", [401, 403, 404, 405, 307, 302])
def test_what_will_never_pass_stops_at_once(status: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    said = json.dumps({"error": {"message": f"wrong key {KEY}"}}).encode()
    with serving(completion("of another server")) as other:
        refusal = Reply(status, said, {"Location": other.url})
        with serving(refusal) as server, pytest.raises(ConfigError) as error:
            endpoint(server.url).answer(QUESTION)
    assert len(server.asked) == 1
    assert not other.asked  # nobody takes the key elsewhere
    assert server.url in str(error.value)
    assert KEY not in str(error.value) + caplog.text


@pytest.mark.parametrize("status", [403, 404])
def test_one_question_may_be_denied_by_who_answers_others(status: int) -> None:
    denied = [Reply(status)] * 4
    with serving(completion("A cat."), *denied, completion("A cat."), *denied, Reply(status)) as server:
        asking = endpoint(server.url)
        asking.greet()
        for _ in range(2):
            for _ in denied:
                with pytest.raises(NoAnswerError, match="refuses the question"):
                    asking.answer(QUESTION)
            if len(server.asked) == 5:
                asking.answer(QUESTION)
        with pytest.raises(ConfigError, match="5 times in a row"):
            asking.answer(QUESTION)


def test_a_key_that_is_no_longer_good_stops_at_once() -> None:
    with serving(completion("A cat."), Reply(401)) as server:
        asking = endpoint(server.url)
        asking.answer(QUESTION)
        with pytest.raises(ConfigError, match="does not accept the key"):
            asking.answer(QUESTION)


def test_a_greeting_without_an_answer_may_pass() -> None:
    with serving(Reply(503)) as server:
        endpoint(server.url).greet()
        assert len(server.asked) == 1
    with serving(Reply(403)) as server, pytest.raises(ConfigError, match="does not allow it"):
        endpoint(server.url).greet()


def test_a_question_that_is_refused_is_not_repeated() -> None:
    with serving(Reply(400, b'{"error": {"message": "too many pictures"}}')) as server:
        with pytest.raises(NoAnswerError, match="refuses the question: 400 Bad Request: too many pictures"):
            endpoint(server.url).answer(QUESTION)
        assert len(server.asked) == 1


def test_the_key_is_nowhere_but_in_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("", "  ", "two words", "a\nline", "ключ"):
        monkeypatch.setenv("A_KEY", wrong)
        with pytest.raises(ConfigError, match="A_KEY") as error:
            endpoint("http://localhost/v1")
        assert not wrong.strip() or wrong not in str(error.value)
    monkeypatch.delenv("A_KEY")
    with pytest.raises(ConfigError, match="set it"):
        endpoint("http://localhost/v1")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8000",
        "ftp://host/v1",
        "http://",
        "http://host:x/v1",
        "http://[",
        "file:///etc/passwd",
        "http://a b/",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="An endpoint is an address"):
        endpoint(url)


@pytest.mark.parametrize("url", ["http://me:secret@host/v1", "http://host/v1?key=secret", "http://host/v1#secret"])
def test_an_address_may_hold_no_secret(url: str) -> None:
    with pytest.raises(ConfigError, match="key_env") as error:
        endpoint(url)
    assert "secret" not in str(error.value)


def test_no_more_at_once_than_allowed(tmp_path: Path) -> None:
    slots = Slots(tmp_path / "slots", 2)
    with serving(Reply(body=completion("A cat.").body, delay_s=0.05)) as server:
        asking = Endpoint(EndpointAddress(server.url, "a-model"), slots)
        threads = [threading.Thread(target=asking.answer, args=(QUESTION,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(server.asked) == 6
    assert server.most_at_once == 2


def test_answers_are_kept_by_what_was_asked(tmp_path: Path) -> None:
    answers = Answers(tmp_path / "answers")
    assert answers.find("clip", "model") is None
    answers.keep({"text": "a\U0001f600"}, "clip", "model")
    assert answers.find("clip", "model") == {"text": "a\U0001f600"}
    answers.keep({"text": "half a letter \udcff"}, "clip", "half")
    assert answers.find("clip", "half") is None
    assert answers.find("clip", "other") is None
    for path in (tmp_path / "answers").rglob("*.json"):
        path.write_text('{"text": ')
    assert answers.find("clip", "model") is None


@pytest.mark.parametrize("status", [200, 400])
def test_a_key_that_is_sent_back_is_not_shown(status: int) -> None:
    for lead in (0, 50, 190):
        with serving(Reply(status, b"x" * lead + KEY.encode())) as server, pytest.raises(NoAnswerError) as caught:
            endpoint(server.url, tries=1).answer(QUESTION)
        assert KEY[:6] not in str(caught.value)
