"""The rules of the code that a machine can check."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCE = REPOSITORY / "src"
MODULES = sorted((SOURCE / "muybridge").rglob("*.py"))
LARGEST_FILE = 500
PUBLIC = {
    "AnimateDiffPipeline",
    "Condition",
    "Control",
    "EasyAnimatePipeline",
    "FreeInit",
    "ImagePrompt",
    "Keyframes",
    "KnownLatents",
    "Mask",
    "ModelChoice",
    "PipelineSegments",
    "Request",
    "Sketches",
    "Source",
    "continue_video",
    "read_video",
    "register_condition",
    "MotionAdapter",
    "MotionModule",
    "MotionModuleConfig",
    "SparseControlModel",
    "Transformer3DModel",
    "UNet3DConditionModel",
    "Video",
    "WindowSettings",
    "__version__",
    "integrate_motion",
    "load_pipeline",
    "optimize",
    "plan_video",
    "register_motion_module",
}
NAMES_THAT_SAY_NOTHING = {"common", "helper", "helpers", "misc", "util", "utils"}

SHOW_HELP = """
import sys
from muybridge.cli.main import main
sys.argv = ["muybridge"]
try:
    main(["--help"])
except SystemExit as end:
    assert not end.code, end.code
"""

READ_RUN_FILES = """
from pathlib import Path
from muybridge.training.run_file import load_run
for path in Path("runs").iterdir():
    load_run(path)
"""

LOOK_AT_RUNS = """
import muybridge.cli.training_looks
import muybridge.training.monitoring.report
"""

PREPARE_CLIPS = """
import muybridge.cli.data
import muybridge.data.preparation.prepare
import muybridge.data.preparation.report.report
from muybridge.data.preparation.stage import stage_kinds
stage_kinds()
"""


PLAN = """
from muybridge.pipelines.planning import plan_video
from muybridge.types import VideoShape
plan_video("demo/easyanimate", VideoShape(8, 32, 32))
"""
NOT_FOR_PLANS = (
    "av",
    "torchao",
    "peft",
    "diffusers.pipelines",
    "diffusers.models.autoencoders",
    "diffusers.models.unets",
)


def dotted_name(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "code",
    ["import muybridge", SHOW_HELP, READ_RUN_FILES, LOOK_AT_RUNS, PREPARE_CLIPS],
    ids=["import", "help", "run files", "looks at runs", "preparation of clips"],
)
def test_does_not_import_torch(code):
    result = run_python(code + "\nimport sys; sys.exit(3 if 'torch' in sys.modules else 0)")

    assert result.returncode != 3, "torch was imported"
    assert result.returncode == 0, result.stderr


def test_a_plan_imports_no_more_than_the_networks_that_it_counts():
    result = run_python(PLAN + f"\nimport sys; print(*({set(NOT_FOR_PLANS)} & set(sys.modules)))")

    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []


def test_imports_go_one_way():
    result = run_python(
        "from importlinter.cli import lint_imports; import sys; sys.exit(lint_imports(no_cache=True, no_logo=True))"
    )

    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("name", [dotted_name(path) for path in MODULES if path.name == "__init__.py"])
def test_listed_names_exist(name):
    package = importlib.import_module(name)

    listed = getattr(package, "__all__", [])

    assert [item for item in listed if not hasattr(package, item)] == []
    assert len(set(listed)) == len(listed)


def test_the_public_names_are_these():
    """A name that goes, or comes, is a decision: it is written here, in the documentation and in the changelog."""
    package = importlib.import_module("muybridge")

    assert set(package.__all__) == PUBLIC
    assert set(dir(package)) == PUBLIC


def test_files_are_short():
    lines = {dotted_name(path): len(path.read_text().splitlines()) for path in MODULES}

    assert {name: count for name, count in lines.items() if count > LARGEST_FILE} == {}


def test_names_say_what_is_inside():
    named = [dotted_name(path) for path in MODULES if NAMES_THAT_SAY_NOTHING & set(dotted_name(path).split("."))]

    assert named == []
