"""Nothing is built here; what the files of Docker say is read, and every command in them is one."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from muybridge.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = {"python", "/opt/muybridge/bin/pip", "useradd", "install", "pg_isready", "muybridge"}
"""Of Debian, of Python's image, of PostgreSQL's, and ours."""


def instructions() -> list[tuple[str, str]]:
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "compose.yaml").read_text())


def check_ours(arguments: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    rest = list(arguments)
    while hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    command.make_context(command.name, rest)


def programs() -> list[list[str]]:
    found = []
    for name, value in instructions():
        if name == "RUN":
            found.append(shlex.split(value))
        elif name == "HEALTHCHECK":
            found.append(json.loads(value[value.index("[") :]))
    services = compose()["services"].values()
    return [*found, *(each["healthcheck"]["test"][1:] for each in services if "healthcheck" in each)]


def test_every_program_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUYBRIDGE_STORE", "jobs.db")
    for words in programs():
        assert words[0] in PROGRAMS, words
        if words[:2] == ["python", "-c"]:
            compile(words[2], "health check", "exec")
        if words[0] == "muybridge":
            check_ours(words[1:])


def test_what_containers_run_is_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    (entry,) = [json.loads(value) for name, value in instructions() if name == "ENTRYPOINT"]
    (usual,) = [json.loads(value) for name, value in instructions() if name == "CMD"]
    assert entry == ["muybridge"]
    check_ours(usual)
    for service in compose()["services"].values():
        for name, value in (service.get("environment") or {}).items():
            monkeypatch.setenv(name, value)
        if "command" in service:
            check_ours(service["command"])


def test_what_is_copied_and_installed_is_there() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for name, value in instructions():
        if name == "COPY" and not value.startswith("--from"):
            for source in value.split()[:-1]:
                assert (ROOT / source).exists()
                assert source in kept
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (wanted,) = re.findall(r'"\.\[([\w,]+)\]"', (ROOT / "Dockerfile").read_text())
    assert set(wanted.split(",")) <= extras.keys()


def test_containers_are_not_root_and_keep_what_matters() -> None:
    found = dict(instructions())
    assert found["USER"] == "1000"
    assert found["STOPSIGNAL"] == "SIGTERM"
    services = compose()["services"]
    assert {profile for each in services.values() for profile in each["profiles"]} == {"single", "cluster"}
    for name, each in services.items():
        for volume in each["volumes"]:
            source = volume.rsplit(":", 2 if volume.endswith(":ro") else 1)[0]
            assert source.startswith("${MODELS") or source in compose()["volumes"], (name, volume)
        for port in each.get("ports", []):
            assert port.startswith("127.0.0.1:")
