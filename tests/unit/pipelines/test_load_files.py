"""Motion files of every family on a still-image model: which noise levels, steps and guidance follow."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, LCMScheduler

from muybridge.checkpoints.motion_export import write_motion
from muybridge.checkpoints.motion_files import read_motion
from muybridge.errors import CheckpointError, ConfigError
from muybridge.motion import MotionAdapter, TemporalConfig
from muybridge.pipelines import AnimateDiffPipeline, load_pipeline
from muybridge.sampling import make_scheduler


@pytest.fixture
def stills(saved_pipeline: Path, tmp_path: Path) -> Path:
    """The folder of a model without motion modules."""
    folder = Path(shutil.copytree(saved_pipeline, tmp_path / "model"))
    shutil.rmtree(folder / "motion_adapter")
    index = json.loads((folder / "model_index.json").read_text())
    del index["motion_adapter"]
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "StableDiffusionPipeline"}))
    return folder


@pytest.fixture
def motion_file(make_pipeline: Callable[..., AnimateDiffPipeline], tmp_path: Path) -> Callable[..., Path]:
    """A maker: name of the file, with a module in the middle or not, with position tables or not -> file."""

    def make(name: str, mid: bool, tables: bool = True, frames: int = 32) -> Path:
        sites = [
            site
            for site in make_pipeline().unet.motion_sites().values()
            if mid or not site.name.startswith("mid_block")
        ]
        adapter = MotionAdapter.for_sites(sites, config=TemporalConfig(trained_frames=frames))
        path = write_motion(adapter, tmp_path / "all.ckpt", "original")
        state = torch.load(path, weights_only=True)
        path.unlink()
        torch.save({k: v for k, v in state.items() if tables or not k.endswith(".pe")}, tmp_path / name)
        return tmp_path / name

    return make


def test_the_published_versions_run_with_the_originals_ddim(stills: Path, motion_file: Callable[..., Path]) -> None:
    pipeline = load_pipeline(stills, motion_adapter=motion_file("mm_sd_v15.ckpt", False, frames=24))
    assert isinstance(pipeline, AnimateDiffPipeline)
    assert isinstance(pipeline.scheduler, DDIMScheduler)
    expected = make_scheduler("ddim")
    pipeline.scheduler.set_timesteps(25)
    expected.set_timesteps(25)
    assert torch.equal(pipeline.scheduler.timesteps, expected.timesteps)
    assert torch.equal(pipeline.scheduler.alphas_cumprod, expected.alphas_cumprod)  # type: ignore[attr-defined]
    assert (pipeline.config["default_steps"], pipeline.config["default_guidance"]) == (25, 7.5)
    assert pipeline.motion_adapter.numerics == "official-v1"


def test_distilled_modules_bring_their_own_settings(stills: Path, motion_file: Callable[..., Path]) -> None:
    lightning = load_pipeline(stills, motion_adapter=motion_file("animatediff_lightning_8step.ckpt", True))
    assert isinstance(lightning.scheduler, EulerDiscreteScheduler)
    assert lightning.scheduler.config["timestep_spacing"] == "trailing"
    assert lightning.scheduler.config["beta_schedule"] == "linear"
    assert (lightning.config["default_steps"], lightning.config["default_guidance"]) == (8, 1.0)
    lcm = load_pipeline(stills, motion_adapter=motion_file("AnimateLCM.ckpt", True, tables=False))
    assert isinstance(lcm.scheduler, LCMScheduler)
    assert (lcm.config["default_steps"], lcm.config["default_guidance"]) == (6, 2.0)


def test_a_video_model_keeps_its_noise_levels(saved_pipeline: Path, motion_file: Callable[..., Path]) -> None:
    own = load_pipeline(saved_pipeline)
    kept = load_pipeline(saved_pipeline, motion_adapter=motion_file("mm_sd_v15_v2.ckpt", True))
    assert dict(kept.scheduler.config) == dict(own.scheduler.config)
    assert kept.config["default_steps"] == own.config["default_steps"]
    distilled = load_pipeline(saved_pipeline, motion_adapter=motion_file("lightning_2step.ckpt", True))
    assert (type(distilled.scheduler), distilled.config["default_steps"]) == (EulerDiscreteScheduler, 2)


def test_what_the_image_model_predicts_is_kept(stills: Path, motion_file: Callable[..., Path]) -> None:
    path = stills / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prediction_type": "v_prediction"}))
    loaded = load_pipeline(stills, motion_adapter=motion_file("x.ckpt", False))
    assert loaded.scheduler.config["prediction_type"] == "v_prediction"


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_loaded_pipeline_makes_a_video(stills: Path, motion_file: Callable[..., Path]) -> None:
    path = motion_file("animatediff_lightning_2step.ckpt", True)
    pipeline = load_pipeline(stills, motion_adapter=path)
    pipeline.set_progress_bar_config(disable=True)
    video = pipeline("a red circle", num_frames=2, seed=0)
    assert (video.request["sampling"]["num_inference_steps"], video.request["sampling"]["guidance_scale"]) == (2, 1.0)
    assert read_motion(path).variant.steps == 2


def test_single_files_need_motion_and_are_the_only_ones_with_parts(
    stills: Path, motion_file: Callable[..., Path]
) -> None:
    motion = motion_file("x.ckpt", False)
    with pytest.raises(ConfigError, match="parts_from goes with a single file"):
        load_pipeline(stills, motion_adapter=motion, parts_from=stills)
    image = motion.with_name("image.ckpt")
    torch.save({"model.diffusion_model.out.2.bias": torch.zeros(4)}, image)
    with pytest.raises(CheckpointError, match="makes still pictures; give a motion adapter"):
        load_pipeline(image)
    with pytest.raises(CheckpointError, match=r"animatediff-v3 \(motion-module\), not an image model.*motion_adapter"):
        load_pipeline(motion, motion_adapter=motion)


def test_a_single_file_that_is_missing_is_no_repository() -> None:
    for place in (None, "demo/animatediff"):
        with pytest.raises(CheckpointError, match=r"no weight file nobody/dreamshaper\.safetensors"):
            load_pipeline("nobody/dreamshaper.safetensors", motion_adapter="mm.ckpt", parts_from=place)
