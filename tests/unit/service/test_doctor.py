"""What the examination of a machine finds here, and what it says of machines that lack something."""

from __future__ import annotations

import json
import re
import socket
import threading
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from muybridge.cli.main import main
from muybridge.processor import multiplies
from muybridge.service import doctor


@pytest.fixture(scope="module")
def found() -> doctor.Examination:
    return doctor.examine()


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(["doctor", *arguments])
    assert end.value.code == 0
    return capsys.readouterr().out


def test_the_processor_is_described(found: doctor.Examination) -> None:
    processor = found.facts["processor"]
    assert processor["name"]
    assert processor["cores"] >= 1
    assert 0 < processor["free_memory_bytes"] < processor["memory_bytes"]
    assert ("bfloat16" in processor["multiplies"]) is multiplies(torch.bfloat16)
    assert found.facts["torch"]["version"] == torch.__version__
    assert len(found.facts["cards"]) == torch.cuda.device_count()


def test_every_package_is_compared_with_the_tested_one(found: doctor.Examination) -> None:
    versions = found.facts["versions"]
    assert {"torch", "diffusers", "transformers", "av", "pydantic"} <= versions.keys()
    assert all(each["tested"] and each["installed"] for each in versions.values())
    assert "pytest" not in versions  # only developers need it


def test_the_hub_is_not_asked_offline(found: doctor.Examination) -> None:
    assert found.facts["hub"]["state"] == "offline"
    assert not [problem for problem in found.problems if "hub" in problem]


def test_a_hub_that_does_not_answer_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # a port where nothing listens

    assert doctor.examine(ask_hub=False).facts["hub"]["state"] == "not asked"
    found = doctor.examine()

    assert found.facts["hub"] == {
        "address": "http://127.0.0.1:9",
        "state": "not reachable",
        "reason": "the connection is refused",
    }
    assert any("hub does not answer" in problem for problem in found.problems)


@pytest.mark.parametrize("address", ["file:///etc/passwd", "http://localhost:abc", "http://[::1", "http://"])
def test_what_is_no_address_of_the_hub(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", address)

    hub = doctor.examine().facts["hub"]

    assert (hub["state"], hub["reason"]) == ("not reachable", "HF_ENDPOINT is no address of the web")


def test_what_answers_may_be_no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"220 mail\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        hub = doctor.examine().facts["hub"]
        thread.join(5)

    assert (hub["state"], hub["reason"]) == ("not reachable", "its answer is not one of the web")


@pytest.mark.parametrize(
    ("subject", "change", "message"),
    [
        ("space", {"free_bytes": 3 * 10**9}, "Only 3.0 GB are free"),
        ("video", {"writes": ["gif"]}, "no H.264 encoder"),
        ("torch", {"build": "CUDA 13.0"}, "finds none: check the driver"),
        ("versions", {"torch": {"installed": "2.8.0+cu128", "tested": "2.13.0"}}, "torch 2.8.0[+]cu128 is older than"),
        ("versions", {"av": {"installed": None, "tested": "18.1.0"}}, "av is missing"),
    ],
)
def test_what_is_lacking_is_said(found: doctor.Examination, subject: str, change: dict[str, Any], message: str) -> None:
    facts = {**found.facts, "cards": [], subject: {**found.facts[subject], **change}}

    (problem,) = [each for each in doctor._problems(facts) if each not in found.problems]

    assert re.search(message, problem)


def test_a_newer_version_than_tested_is_no_problem(found: doctor.Examination) -> None:
    versions = {"torch": {"installed": "2.99.1+cu130", "tested": "2.13.0"}}
    assert doctor._problems({**found.facts, "versions": versions}) == [
        each for each in found.problems if "tested" not in each
    ]


def test_one_screen_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    lines = run(capsys).splitlines()

    assert 8 <= len(lines) <= 24
    assert lines[0].startswith("muybridge")
    assert [line for line in lines if line.startswith("use ")]
    assert max(map(len, lines)) <= 160


def test_one_object_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    values = json.loads(run(capsys, "--json"))

    assert values.keys() == {
        "system", "processor", "torch", "cards", "video", "space", "hub", "versions", "advice", "problems",
    }  # fmt: skip
    assert values["advice"]["device"]
