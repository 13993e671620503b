"""The commands `inspect` and `convert`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner, Result

from muybridge.checkpoints.motion_export import write_motion
from muybridge.checkpoints.motion_files import read_motion
from muybridge.cli.convert import convert
from muybridge.cli.inspect import inspect
from muybridge.errors import OutputError
from muybridge.motion import MotionAdapter, MotionSite, TemporalConfig

app = typer.Typer()
app.command()(inspect)
app.command()(convert)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def motion(tmp_path: Path) -> Path:
    sites = [MotionSite(f"{side}_blocks.{i}.motion_modules.0", 32) for side in ("down", "up") for i in range(4)]
    sites += [MotionSite(f"up_blocks.{i}.motion_modules.1", 32) for i in range(4)]
    adapter = MotionAdapter.for_sites(
        [*sites, MotionSite("mid_block.motion_modules.0", 32)], config=TemporalConfig(num_heads=4)
    )
    return write_motion(adapter, tmp_path / "mm_sd_v15_v2.ckpt", "original")


def test_a_round_trip(motion: Path, tmp_path: Path) -> None:
    to_folder = run("convert", motion, tmp_path / "folder_v2", "--to", "diffusers", "--heads", 4, "--json")
    assert json.loads(to_folder.stdout) == {
        "path": str(tmp_path / "folder_v2"),
        "layout": "diffusers",
        "variant": "animatediff-v2",
        "numerics": "official-v2",
        "num_tensors": 13 * 26,
    }
    back = run("convert", tmp_path / "folder_v2", tmp_path / "back.ckpt", "--to", "original")
    assert back.stdout.splitlines()[0] == str(tmp_path / "back.ckpt")
    before, after = torch.load(motion, weights_only=True), torch.load(tmp_path / "back.ckpt", weights_only=True)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert (
        read_motion(tmp_path / "folder_v2").adapter.config["modules_by_site"]["mid_block.motion_modules.0"]["config"][
            "num_heads"
        ]
        == 4
    )


def test_what_the_source_is_can_be_said(motion: Path, tmp_path: Path) -> None:
    unnamed = motion.rename(tmp_path / "x.ckpt")
    arguments = (unnamed, tmp_path / "ours", "--to", "muybridge", "--heads", 4, "--json")
    said = run("convert", *arguments, "--motion-variant", "animatelcm")
    assert json.loads(said.stdout)["variant"] == "animatelcm"


def test_a_target_that_exists_is_kept(motion: Path) -> None:
    before = motion.read_bytes()
    refused = run("convert", motion, motion, "--to", "original")
    assert isinstance(refused.exception, OutputError)
    assert motion.read_bytes() == before
    assert list(motion.parent.iterdir()) == [motion]


def test_inspect_shows_what_the_name_decided(motion: Path) -> None:
    shown = run("inspect", motion).stdout
    assert f"{motion}: animatediff-v2 (motion-module)" in shown
    assert "by its file name; keys and shapes would also fit animatelcm, lightning" in shown
    assert "run with numerics official-v2, scheduler ddim" in shown
    assert json.loads(run("inspect", motion, "--json").stdout)["decided_by"] == "file name"
    unnamed = motion.rename(motion.with_name("x.ckpt"))
    assert "the likeliest; keys and shapes would also fit" in run("inspect", unnamed).stdout


def test_inspect_shows_damage(motion: Path) -> None:
    state = torch.load(motion, weights_only=True)
    state[next(iter(state))][0] = torch.nan
    torch.save(state, motion)
    assert "DAMAGED: 1 tensors hold NaN or infinite values" in run("inspect", motion).stdout
