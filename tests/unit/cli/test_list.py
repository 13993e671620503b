"""`muybridge list samplers`."""

from __future__ import annotations

import json

import pytest

from muybridge.cli.list import listing
from muybridge.sampling import scheduler_names


def test_table_names_every_sampler(capsys: pytest.CaptureFixture[str]) -> None:
    listing(["samplers"], standalone_mode=False)

    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines if line[:1].strip()} == {"name", *scheduler_names()}


def test_json_has_their_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    listing(["samplers", "--json"], standalone_mode=False)

    found = {each["name"]: each for each in json.loads(capsys.readouterr().out)["samplers"]}
    assert found.keys() == set(scheduler_names())
    assert (found["euler-trailing"]["steps"], found["euler-trailing"]["guidance_scale"]) == (4, 1.0)
    assert all(each["description"].endswith(".") for each in found.values())
