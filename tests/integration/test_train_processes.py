"""Two processes train what one would: the same losses, the same weights, and each goes on with what the other began."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training_processes import WEIGHTS_FILE, train

REPOSITORY = Path(__file__).resolve().parents[2]
ADAMW = {"name": "adamw"}
SMALL = {"steps": 2, "learning_rate": 1e-3}
CASES: dict[str, dict[str, Any]] = {
    "ddp": {"kind": "plain"},
    "ddp adamw": {"kind": "plain", "optimizer": ADAMW},
    "fsdp2": {"kind": "plain", "sharding": "fsdp2"},
    "fsdp2 adamw": {"kind": "plain", "sharding": "fsdp2", "optimizer": ADAMW, "ema_device": "cpu"},
    "fsdp2 bf16": {"kind": "plain", "sharding": "fsdp2", "mixed_precision": "bf16"},
    "paused": {"kind": "plain", "sharding": "fsdp2", "until": 4},
    "transformer": {"kind": "transformer", "sharding": "fsdp2", **SMALL, "gradient_checkpointing": "blocks"},
    "lora": {"kind": "lora", "sharding": "fsdp2", **SMALL},
    "unet": {"kind": "unet", "sharding": "fsdp2", **SMALL},
}
ZERO = {"sharding": "deepspeed", "optimizer": ADAMW}
ZERO_CASES: dict[str, dict[str, Any]] = {
    "zero": {"kind": "plain", **ZERO, "accumulate": 2},
    "zero rates": {"kind": "plain with rates", **ZERO},
    "zero bf16": {"kind": "plain", **ZERO, "mixed_precision": "bf16"},
    "zero paused": {"kind": "plain", **ZERO, "until": 4},
    "zero lora": {"kind": "lora", **ZERO, **SMALL},
    "zero unet": {"kind": "unet", **ZERO, **SMALL, "gradient_checkpointing": "blocks"},
}
FROM_ONE = {"folder": "from one", "kind": "plain", "sharding": "fsdp2"}


def together(cases: list[dict[str, Any]], folder: Path, quiet: bool = False) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"]
    cases = [{**case, "folder": str(folder / case["folder"])} for case in cases]
    paths = os.pathsep.join((str(REPOSITORY / "src"), str(REPOSITORY)))
    subprocess.run(
        [*command, "tests.training_processes", json.dumps(cases)],
        check=True,
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        timeout=400,
        capture_output=quiet,
        text=True,
    )


def alone(folder: Path, case: dict[str, Any]) -> None:
    train(folder, **{**case, "accumulate": 2 * case.get("accumulate", 1)})


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / WEIGHTS_FILE, weights_only=True)


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def difference(a: Path, b: Path) -> float:
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes have trained all cases, with what one process did beside it."""
    output = tmp_path_factory.mktemp("processes")
    alone(output / "from one", {**CASES["fsdp2"], "until": 4})
    together([*({**case, "folder": name} for name, case in CASES.items()), FROM_ONE], output)
    return output


@pytest.fixture(scope="module")
def zero_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with DeepSpeed."""
    pytest.importorskip("deepspeed")
    output = tmp_path_factory.mktemp("zero")
    alone(output / "zero from one", {**ZERO_CASES["zero"], "accumulate": 1, "until": 4})
    from_one = {**ZERO_CASES["zero"], "accumulate": 1, "folder": "zero from one"}
    together([*({**case, "folder": name} for name, case in ZERO_CASES.items()), from_one], output)
    return output


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if name != "paused"])
def test_two_processes_do_what_one_does(folder: Path, tmp_path: Path, name: str) -> None:
    compare(tmp_path, folder / name, CASES[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ZERO_CASES if name != "zero paused"])
def test_two_processes_with_deepspeed_do_what_one_does(zero_folder: Path, tmp_path: Path, name: str) -> None:
    compare(tmp_path, zero_folder / name, ZERO_CASES[name])


def compare(one_alone: Path, together: Path, case: dict[str, Any]) -> None:
    alone(one_alone, case)

    half = case.get("mixed_precision") == "bf16"
    # What optimizers make of a gradient that is nothing but rounding is as large as any other update.
    allowed = 2e-2 if half else 1e-6 if case["kind"].startswith("plain") else SMALL["learning_rate"]
    assert difference(one_alone, together) < allowed
    for one, two in zip(log(one_alone), log(together), strict=True):
        assert one.keys() == two.keys()
        for value in one.keys() - {"seconds"}:
            # A gap is the difference of two losses that are nearly alike, and 0 in a network that is new.
            same = pytest.approx(one[value], rel=5e-2 if half else 2e-5, abs=1e-5 if "gap/" in value else None)
            assert two[value] == same, (value, one["step"])


@pytest.mark.slow
def test_another_number_of_processes_goes_on(folder: Path, tmp_path: Path) -> None:
    """A state in parts is read by one process, and one that is whole by two."""
    alone(tmp_path, CASES["fsdp2"])
    parts = list((folder / "paused" / "checkpoints" / "step-4" / "parts").glob("*.distcp"))
    alone(folder / "paused", {**CASES["fsdp2"], "sharding": "none"})

    assert len(parts) == 2
    assert difference(tmp_path, folder / "from one") < 1e-6
    assert difference(tmp_path, folder / "paused") < 1e-6


@pytest.mark.slow
def test_a_state_goes_on_with_deepspeed_and_without(zero_folder: Path, tmp_path: Path) -> None:
    alone(tmp_path, {**ZERO_CASES["zero"], "accumulate": 1})
    alone(zero_folder / "zero paused", {**ZERO_CASES["zero"], "accumulate": 1, "sharding": "none"})

    assert difference(tmp_path, zero_folder / "zero from one") < 1e-6
    assert difference(tmp_path, zero_folder / "zero paused") < 1e-6


@pytest.mark.slow
def test_nothing_changes_where_deepspeed_finds_no_gradient(tmp_path: Path) -> None:
    pytest.importorskip("deepspeed")
    with pytest.raises(subprocess.CalledProcessError) as failed:
        together([{"kind": "breaking", **ZERO, "folder": "breaking"}], tmp_path, quiet=True)
    assert re.search(r"TrainingError: Step 0: loss [\d.]+, gradient norm inf, in batch 0", failed.value.stderr)
    assert not (tmp_path / "breaking" / "checkpoints").exists()
