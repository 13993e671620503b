"""What published models need at full size, planned without their weights."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from muybridge.pipelines.family import Wishes
from muybridge.pipelines.placing import fit
from muybridge.pipelines.planning import plan_video
from muybridge.pipelines.wishes import wishes_of
from muybridge.request import ModelChoice
from muybridge.runtime.plan import PlanSettings
from muybridge.types import VideoShape

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def layouts() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield import_module("published_layouts")


@pytest.fixture
def easyanimate(layouts: Any, tmp_path: Path) -> Path:
    layouts.write_easyanimate(tmp_path / layouts.EASYANIMATE, layouts.EASYANIMATE_V3, weights=False)
    return tmp_path / layouts.EASYANIMATE


@pytest.mark.parametrize("profile", ["reference", "clean"])
@pytest.mark.parametrize(("shape", "limit"), [((144, 960, 960), "6"), ((144, 384, 672), "4")])
def test_easyanimate_fits(easyanimate: Path, shape: tuple[int, int, int], limit: str, profile: str) -> None:
    placed = fit(wishes_of(easyanimate, profile=profile), int(limit) * 10**9, ("bfloat16",), VideoShape(*shape))
    assert placed.offload == "group"
    assert 0 < (placed.peak_bytes or 0) <= int(limit) * 10**9


@pytest.mark.filterwarnings("ignore:36 frames at once:UserWarning")
@pytest.mark.parametrize("profile", ["reference", "clean"])
@pytest.mark.parametrize("model", ["published", "demo/easyanimate"])
def test_denoising_decides_how_much_a_large_video_takes(easyanimate: Path, model: str, profile: str) -> None:
    folder = easyanimate if model == "published" else model
    planned = plan_video(folder, VideoShape(144, 960, 960), profile=profile)
    for run in planned.runs:
        assert run.peak <= 1.2 * run.peaks["denoise"], run


def test_a_plan_is_of_the_profile_of_the_model(easyanimate: Path) -> None:
    shape, choices = VideoShape(144, 384, 672), (PlanSettings("bfloat16", "sequential"),)
    usual, reference, clean = (
        plan_video(easyanimate, shape, choices=choices, profile=profile).runs
        for profile in (None, "reference", "clean")
    )
    assert usual == reference
    assert reference[0].peaks["decode"] > clean[0].peaks["decode"]


def test_a_folder_says_what_it_makes_by_default(easyanimate: Path) -> None:
    planned = plan_video(easyanimate, choices=(PlanSettings("bfloat16", "sequential"),))
    assert planned.shape == VideoShape(144, 576, 1008)


def test_stable_diffusion_with_motion_fits_and_is_the_same_as_folder_and_file(layouts: Any, tmp_path: Path) -> None:
    settings = layouts.ANIMATEDIFF_V2
    folder, file, adapter = tmp_path / "model", tmp_path / "model.safetensors", tmp_path / "adapter"
    layouts.write_stable_diffusion(folder, settings, weights=False)
    layouts.write_single_file(file, settings, weights=False)
    layouts.write_adapter_settings(adapter, settings)
    shape, budget = VideoShape(16, 512, 512), 2_500_000_000

    def with_motion(model: Path) -> Wishes:
        return wishes_of(ModelChoice(model=str(model), motion_adapter=str(adapter)))

    placed = fit(with_motion(folder), budget, ("bfloat16",), shape)

    assert 0 < (placed.peak_bytes or 0) <= budget
    assert fit(with_motion(file), budget, ("bfloat16",), None) == placed

    vae = tmp_path / "vae.safetensors"
    layouts.write_single_file(vae, settings, weights=False, only="first_stage_model.")
    lacking = tmp_path / "unet.safetensors"
    layouts.write_single_file(lacking, settings, weights=False, only="model.diffusion_model.")
    assert fit(with_motion(lacking), budget, ("bfloat16",), None) == placed
    for model in (lacking, folder):
        choice = ModelChoice(model=str(model), motion_adapter=str(adapter), vae=str(vae))
        assert fit(wishes_of(choice), budget, ("bfloat16",), shape) == placed
