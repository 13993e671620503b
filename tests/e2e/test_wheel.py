"""The package as it is installed: built into a wheel, unpacked elsewhere, used through its command line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from muybridge import __version__
from muybridge.video import read_request, read_video

REPOSITORY = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


def output_of(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, cwd=folder, env=os.environ | (environment or {}), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel holds, made from what git would hand to somebody else."""
    source, built, site = (tmp_path_factory.mktemp(name) for name in ("source", "built", "site"))
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"]
    for name in output_of(listing, REPOSITORY).split("\0"):
        if name and (REPOSITORY / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPOSITORY / name, source / name)
    output_of([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(built)], source)
    (wheel,) = built.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def test_the_wheel_holds_the_package_and_its_model(site):
    package = site / "muybridge"
    model = package / "demo" / "animatediff"

    assert (package / "py.typed").is_file()
    assert (model / "model_index.json").is_file()
    assert {folder.name for folder in model.iterdir() if folder.is_dir()} == {
        "keyframe_control",
        "motion_adapter",
        "scheduler",
        "text_encoder",
        "tokenizer",
        "unet",
        "vae",
    }
    assert {path.name for path in site.iterdir()} == {"muybridge", f"muybridge-{__version__}.dist-info"}
    entry_points = (site / f"muybridge-{__version__}.dist-info" / "entry_points.txt").read_text()
    assert "muybridge = muybridge.cli.main:main" in entry_points


def test_the_wheel_holds_the_page(site):
    def files(package: Path) -> set[str]:
        page = package / "ui" / "page"
        return {str(path.relative_to(page)) for path in page.rglob("*") if path.is_file()}

    assert files(site / "muybridge") == files(REPOSITORY / "src" / "muybridge")


def test_the_installed_program_makes_a_video(site, tmp_path):
    program = [sys.executable, "-c", "from muybridge.cli.main import main; main()"]
    prompt = "a red circle moving left"
    environment = {"PYTHONPATH": str(site)}

    where = output_of([sys.executable, "-c", "import muybridge; print(muybridge.__file__)"], tmp_path, environment)
    shown = output_of([*program, "generate", prompt, "--steps", "2", "-o", "out.mp4"], tmp_path, environment)

    assert Path(where.strip()).is_relative_to(site)
    assert shown.startswith("out.mp4\n")
    assert read_video(tmp_path / "out.mp4").frames.shape == (16, 64, 64, 3)
    request = read_request(tmp_path / "out.mp4")
    assert request is not None
    assert (request["model"]["model"], request["prompt"]) == ("demo/animatediff", prompt)
