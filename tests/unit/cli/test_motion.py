"""`muybridge motion list`."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from muybridge import __version__
from muybridge.cli.motion import app

BUILT_IN = {"compose", "hybrid", "low_rank", "mix", "temporal", "timestep_film"}


def test_kinds_for_machines() -> None:
    result = CliRunner().invoke(app, ["list", "--json"])
    assert result.exit_code == 0, result.output
    kinds = {each["kind"]: each for each in json.loads(result.stdout)["kinds"]}
    assert kinds.keys() >= BUILT_IN
    assert kinds["low_rank"] == {
        "kind": "low_rank",
        "package": "muybridge",
        "version": __version__,
        "class": "LowRankMotionModule",
        "num_parameters": {"unet": 6_263_360, "dit": 8_820_224},
        "error": None,
    }


def test_kinds_for_people() -> None:
    lines = CliRunner().invoke(app, ["list"]).stdout.splitlines()
    assert lines[0].split() == ["kind", "from", "SD", "1.5", "U-Net", "EasyAnimate", "V3"]
    row = next(line for line in lines if line.startswith("temporal"))
    assert row.split() == ["temporal", "muybridge", __version__, "453.2", "M", "818.2", "M"]
