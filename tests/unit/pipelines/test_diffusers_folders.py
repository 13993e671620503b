"""Folders that pipelines of diffusers saved: what they are is decided by their parts."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from muybridge.checkpoints.base_export import image_unet
from muybridge.checkpoints.motion_export import write_motion
from muybridge.errors import CheckpointError, ConfigError
from muybridge.motion import MotionAdapter, TemporalConfig
from muybridge.pipelines import AnimateDiffPipeline, load_pipeline
from muybridge.pipelines.animatediff.skeleton import part_makers
from muybridge.pipelines.planning import plan_video
from muybridge.pipelines.skeleton import skeleton_parts
from muybridge.runtime.plan import CHOICES
from muybridge.service.inspection import inspect_path
from muybridge.types import VideoShape

PipelineMaker = Callable[..., AnimateDiffPipeline]
SIDES: dict[str, Any] = {
    "block_out_channels": (32, 64),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "cross_attention_dim": 16,
    "attention_head_dim": 4,
    "sample_size": 8,
}


@pytest.fixture(scope="module")
def stills(make_pipeline: PipelineMaker) -> dict[str, Any]:
    """The parts of Stable Diffusion, as diffusers takes them."""
    pipeline = make_pipeline()
    pipeline.remove_motion_adapter()
    parts = {name: getattr(pipeline, name) for name in ("vae", "text_encoder", "tokenizer", "scheduler")}
    return {**parts, "unet": image_unet(pipeline.unet)}


@pytest.fixture(scope="module")
def their_adapter() -> diffusers.MotionAdapter:
    torch.manual_seed(0)
    adapter = diffusers.MotionAdapter(
        block_out_channels=(32, 64), motion_layers_per_block=1, motion_num_attention_heads=4, motion_max_seq_length=24
    )
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return adapter


def save(made: Any, folder: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.save_pretrained(folder)
    return folder


def made_as(name: str, **parts: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(diffusers, name)(**parts)


@pytest.fixture(scope="module")
def theirs(
    stills: dict[str, Any], their_adapter: diffusers.MotionAdapter, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Path]:
    pipeline = made_as("AnimateDiffPipeline", **stills, motion_adapter=their_adapter)
    return pipeline, save(pipeline, tmp_path_factory.mktemp("theirs") / "model")


def make(pipeline: Any, **options: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline("a red circle", num_frames=2, num_inference_steps=1, seed=0, **options)


def test_a_video_model_gives_the_numbers_that_it_gives_there(theirs: tuple[Any, Path]) -> None:
    pipeline, folder = theirs
    loaded = load_pipeline(folder)
    assert isinstance(loaded, AnimateDiffPipeline)
    assert loaded.motion_adapter.numerics == "diffusers"
    assert (len(loaded.motion_adapter.sites), loaded.motion_adapter.trained_frames) == (7, 24)
    assert dict(loaded.scheduler.config)["beta_schedule"] == pipeline.scheduler.config["beta_schedule"]

    generator = torch.Generator().manual_seed(0)
    sample, text = torch.randn(1, 4, 3, 8, 8, generator=generator), torch.randn(1, 5, 16, generator=generator)
    with torch.no_grad():
        ours = loaded.unet(sample, 500, text).sample
        expected = pipeline.unet(sample, 500, text.repeat_interleave(3, dim=0)).sample
    assert float((ours - expected).abs().max() / expected.abs().max()) < 1e-5
    assert make(loaded).request["made"]["unrecorded"] == []


def test_what_else_is_said_of_such_a_folder(theirs: tuple[Any, Path]) -> None:
    folder = theirs[1]
    found = inspect_path(folder)
    assert (found["kind"], found["variant"], found["notes"]) == ("pipeline", "animatediff", [])
    assert "motion_adapter" not in skeleton_parts(folder, part_makers(folder), torch.float32)
    planned = plan_video(folder, VideoShape(2, 16, 16), choices=CHOICES[:1])
    assert planned.family == "AnimateDiffPipeline"


@pytest.mark.parametrize("name", ["AnimateDiffPipeline", "StableDiffusionPipeline"])
def test_an_adapter_of_diffusers_beside_a_plain_unet_is_loaded_planned_and_shown(
    stills: dict[str, Any], their_adapter: diffusers.MotionAdapter, tmp_path: Path, name: str
) -> None:
    """Written by hand or by older versions, as diffusers today puts both into one network."""
    folder = save(
        made_as("StableDiffusionPipeline", **stills, safety_checker=None, feature_extractor=None), tmp_path / "model"
    )
    their_adapter.save_pretrained(folder / "motion_adapter")
    change_index(folder, _class_name=name, motion_adapter=["diffusers", "MotionAdapter"])

    loaded = load_pipeline(folder)
    skeleton = skeleton_parts(folder, part_makers(folder), torch.float32)["motion_adapter"]
    assert isinstance(skeleton, MotionAdapter)
    assert skeleton.sites == loaded.motion_adapter.sites
    shapes = {key: value.shape for key, value in skeleton.state_dict().items()}
    assert shapes == {key: value.shape for key, value in loaded.motion_adapter.state_dict().items()}
    planned = plan_video(folder, VideoShape(2, 16, 16), choices=CHOICES[:1])
    assert planned.family == "AnimateDiffPipeline"
    loaded.save_pretrained(tmp_path / "ours")
    assert planned.runs == plan_video(tmp_path / "ours", planned.shape, choices=CHOICES[:1]).runs
    assert inspect_path(folder)["variant"] == "animatediff"


def test_a_still_model_is_not_planned(stills: dict[str, Any], tmp_path: Path) -> None:
    own = {"safety_checker": None, "feature_extractor": None}
    folder = save(made_as("StableDiffusionPipeline", **stills, **own), tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"is a StableDiffusionPipeline; supported: AnimateDiffPipeline, and"):
        plan_video(folder, VideoShape(2, 16, 16))


def test_a_video_model_of_another_build_is_refused(theirs: tuple[Any, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(theirs[1], tmp_path / "model"))
    shutil.rmtree(folder / "unet")
    settings: dict[str, Any] = {
        "block_out_channels": (32, 64),
        "down_block_types": ("CrossAttnDownBlockMotion", "DownBlockMotion"),
        "up_block_types": ("UpBlockMotion", "CrossAttnUpBlockMotion"),
        "layers_per_block": 1,
        "cross_attention_dim": 16,
        "motion_num_attention_heads": 4,
        "temporal_transformer_layers_per_block": 2,
    }
    save(diffusers.UNetMotionModel(**settings), folder / "unet")
    with pytest.raises(CheckpointError, match=r"unet is built in another way .*as motion_adapter"):
        load_pipeline(folder)


def test_another_motion_adapter_takes_the_place_of_its_modules(theirs: tuple[Any, Path], tmp_path: Path) -> None:
    adapter = load_pipeline(theirs[1]).motion_adapter
    fresh = MotionAdapter.for_sites(adapter.sites.values(), config=TemporalConfig(num_heads=4))
    loaded = load_pipeline(theirs[1], motion_adapter=write_motion(fresh, tmp_path / "fresh_v2", "muybridge"))
    assert loaded.unet.motion_adapter is loaded.motion_adapter
    assert torch.count_nonzero(loaded.unet.get_parameter("down_blocks.0.motion_modules.0.proj_out.weight")) == 0


def test_a_motion_adapter_beside_an_image_network(
    stills: dict[str, Any], theirs: tuple[Any, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(theirs[1], tmp_path / "model"))
    shutil.rmtree(folder / "unet")
    save(stills["unet"], folder / "unet")
    ours, whole = load_pipeline(folder), load_pipeline(theirs[1])
    assert torch.equal(make(ours, output_type="latent"), make(whole, output_type="latent"))


@pytest.mark.parametrize("name", ["AnimateDiffVideoToVideoPipeline", "AnimateDiffPAGPipeline"])
def test_video_models_of_other_tasks(
    stills: dict[str, Any], their_adapter: Any, theirs: tuple[Any, Path], tmp_path: Path, name: str
) -> None:
    loaded = load_pipeline(save(made_as(name, **stills, motion_adapter=their_adapter), tmp_path / "model"))
    assert torch.equal(make(loaded, output_type="latent"), make(load_pipeline(theirs[1]), output_type="latent"))


def test_a_sparse_control_in_one_is_taken_along(stills: dict[str, Any], their_adapter: Any, tmp_path: Path) -> None:
    for simplified, name in ((True, "keyframe_control"), (False, "sketch_control")):
        control = diffusers.SparseControlNetModel(
            conditioning_channels=4 if simplified else 3,
            block_out_channels=(32, 64),
            down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
            layers_per_block=1,
            cross_attention_dim=16,
            use_simplified_condition_embedding=simplified,
            motion_num_attention_heads=4,
        )
        parts = {**stills, "motion_adapter": their_adapter, "controlnet": control}
        folder = save(made_as("AnimateDiffSparseControlNetPipeline", **parts), tmp_path / name)
        loaded = load_pipeline(folder)
        assert [part for part in ("keyframe_control", "sketch_control") if getattr(loaded, part) is not None] == [name]


def test_a_video_model_of_sdxl(sdxl_folder: Path, tmp_path: Path) -> None:
    still = diffusers.StableDiffusionXLPipeline.from_pretrained(sdxl_folder / "base", add_watermarker=False)
    adapter = diffusers.MotionAdapter.from_pretrained(sdxl_folder / "motion")
    parts = {
        name: part for name, part in still.components.items() if name not in ("feature_extractor", "image_encoder")
    }
    loaded = load_pipeline(
        save(made_as("AnimateDiffSDXLPipeline", **parts, motion_adapter=adapter), tmp_path / "model")
    )
    assert isinstance(loaded, AnimateDiffPipeline)
    assert loaded.is_sdxl
    assert loaded.motion_adapter.numerics == "diffusers"


def control_net() -> diffusers.ControlNetModel:
    settings = {name: value for name, value in SIDES.items() if name not in ("up_block_types", "sample_size")}
    return diffusers.ControlNetModel(**settings)


def test_a_controlnet_in_one_is_named_with_its_place(
    stills: dict[str, Any], their_adapter: Any, tmp_path: Path
) -> None:
    parts = {**stills, "motion_adapter": their_adapter, "controlnet": control_net()}
    folder = save(made_as("AnimateDiffControlNetPipeline", **parts), tmp_path / "model")
    with pytest.warns(
        UserWarning, match=r"The ControlNet in .*controlnet is no part of the pipeline.*--control FOLDER"
    ):
        loaded = load_pipeline(folder)
    assert loaded.motion_adapter is not None


@pytest.fixture(scope="module")
def motion(make_pipeline: PipelineMaker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    adapter = make_pipeline().motion_adapter
    return write_motion(adapter, tmp_path_factory.mktemp("motion") / "mm_sd_v15_v2.ckpt", "original")


def load_still(folder: Path, motion: Path) -> Any:
    return load_pipeline(folder, motion_adapter=motion, motion_variant="animatediff-v2")


@pytest.mark.parametrize(
    "name",
    [
        "StableDiffusionImg2ImgPipeline",
        "StableDiffusionControlNetPipeline",
        "LatentConsistencyModelPipeline",
        "StableDiffusionInpaintPipeline",
        "SomebodysOwnPipeline",
    ],
)
@pytest.mark.filterwarnings("ignore:The ControlNet in:UserWarning")
def test_image_models_of_other_tasks(stills: dict[str, Any], motion: Path, tmp_path: Path, name: str) -> None:
    """A U-Net of four channels is an image model, whatever it was used for."""
    own = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    extra = {"controlnet": control_net()} if "ControlNet" in name else {}
    known = name if hasattr(diffusers, name) and "Latent" not in name else "StableDiffusionPipeline"
    folder = save(made_as(known, **stills, **own, **extra), tmp_path / "model")
    change_index(folder, _class_name=name)
    assert make(load_still(folder, motion)).frames.shape == (2, 16, 16, 3)
    with pytest.raises(CheckpointError, match=rf"is a {name}; supported:.*together with a motion adapter"):
        load_pipeline(folder)
    assert inspect_path(folder)["variant"] == "base-sd15"


def change_index(folder: Path, **changes: Any) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"in_channels": 9}, "takes 9 channels: an inpainting model"),
        ({"in_channels": 8}, r"a model that edits pictures \(InstructPix2Pix\)"),
        ({"in_channels": 5}, "a depth model"),
        ({"in_channels": 7}, "an upscaler"),
        ({"in_channels": 16}, "a model with another VAE"),
        ({"time_cond_proj_dim": 8}, r"told the strength of guidance \(time_cond_proj_dim\)"),
    ],
)
def test_a_network_that_takes_more_than_noise_is_refused_by_what_it_is(
    saved_pipeline: Path, motion: Path, tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    folder = with_unet(saved_pipeline, tmp_path, **settings)
    with pytest.raises(CheckpointError, match=said):
        load_still(folder, motion)
    assert any(
        said.split(" (", maxsplit=1)[0].split("\\", maxsplit=1)[0][-8:] in note
        for note in inspect_path(folder)["notes"]
    )


def with_unet(saved_pipeline: Path, tmp_path: Path, **settings: Any) -> Path:
    """An image model's folder whose U-Net has these settings."""
    folder = Path(shutil.copytree(saved_pipeline, tmp_path / "model"))
    for part in ("unet", "motion_adapter"):
        shutil.rmtree(folder / part)
    save(UNet2DConditionModel(**{**SIDES, **settings}), folder / "unet")
    index = json.loads((folder / "model_index.json").read_text())
    del index["motion_adapter"]
    unet = ["diffusers", "UNet2DConditionModel"]
    (folder / "model_index.json").write_text(
        json.dumps(index | {"unet": unet, "_class_name": "StableDiffusionPipeline"})
    )
    return folder


def test_motion_modules_for_another_family_are_refused(saved_pipeline: Path, motion: Path, tmp_path: Path) -> None:
    folder = with_unet(saved_pipeline, tmp_path / "a", use_linear_projection=True)
    said = (
        r"mm_sd_v15_v2\.ckpt \(animatediff-v2\) is for Stable Diffusion 1\.5.*model is Stable Diffusion 2, with levels"
    )
    with pytest.raises(ConfigError, match=said):
        load_still(folder, motion)
    own = load_still(saved_pipeline, motion).motion_adapter
    ours = write_motion(own, tmp_path / "trained_v2", "muybridge")  # which may have been trained on it
    assert load_still(folder, ours).motion_adapter is not None
    wide = with_unet(saved_pipeline, tmp_path / "b", block_out_channels=(64, 64))
    with pytest.raises(ConfigError, match=r"levels of \[32, 64\] channels, and .* with levels of \[64, 64\]"):
        load_still(wide, motion)


def test_half_a_vae_and_missing_shards_are_refused(saved_pipeline: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved_pipeline, tmp_path / "model"))
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    save_file({k: v for k, v in load_file(weights).items() if not k.startswith("encoder.")}, weights, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"vae has no weights for encoder\."):
        load_pipeline(folder)
    shutil.copy(saved_pipeline / "vae" / weights.name, weights)
    part = folder / "unet"
    (part / weights.name).rename(part / "diffusion_pytorch_model-00001-of-00002.safetensors")
    shards = {"a": "diffusion_pytorch_model-00001-of-00002.safetensors", "b": "x-00002-of-00002.safetensors"}
    index = part / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    with pytest.raises(CheckpointError, match=r"x-00002-of-00002\.safetensors is missing or empty"):
        load_pipeline(folder)


@pytest.mark.parametrize("name", ["FluxPipeline", "StableVideoDiffusionPipeline"])
def test_other_families_list_what_is_possible(saved_pipeline: Path, motion: Path, tmp_path: Path, name: str) -> None:
    folder = with_unet(saved_pipeline, tmp_path)
    if name == "FluxPipeline":
        shutil.rmtree(folder / "unet")
        index = json.loads((folder / "model_index.json").read_text())
        del index["unet"]
        (folder / "model_index.json").write_text(json.dumps(index))
    else:
        config = folder / "unet" / "config.json"
        config.write_text(json.dumps({"_class_name": "UNetSpatioTemporalConditionModel"}))
    change_index(folder, _class_name=name)
    with pytest.raises(
        CheckpointError, match=rf"is a {name}; supported: AnimateDiffPipeline, and.*EasyAnimatePipeline"
    ):
        load_still(folder, motion)
