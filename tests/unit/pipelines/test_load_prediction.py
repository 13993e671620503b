"""What an image model predicts, from its file or folder into the solver that a video is made with."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from muybridge.checkpoints.convert import convert_weights
from muybridge.checkpoints.motion_export import write_motion
from muybridge.errors import ConfigError
from muybridge.pipelines import AnimateDiffPipeline, load_pipeline
from muybridge.request.generate_request import repeated
from muybridge.sampling import make_scheduler, scheduler_names
from muybridge.service.inspection import inspect_path

MARK = torch.tensor([])
ZERO_SNR = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}


@pytest.fixture(scope="module")
def motion(make_pipeline: Callable[..., AnimateDiffPipeline], tmp_path_factory: pytest.TempPathFactory) -> Path:
    adapter = make_pipeline().motion_adapter
    return write_motion(adapter, tmp_path_factory.mktemp("motion") / "mm_sd_v15_v2.ckpt", "original")


@pytest.fixture
def single_file(make_pipeline: Callable[..., AnimateDiffPipeline], tmp_path: Path) -> Callable[..., Path]:
    """A maker: marks and header -> a file with the U-Net of the pipeline."""

    def make(marks: tuple[str, ...] = (), **metadata: str) -> Path:
        pipeline = make_pipeline()
        pipeline.remove_motion_adapter()
        state = pipeline.unet.state_dict() | dict.fromkeys(marks, MARK)
        save_file(state, tmp_path / "model.safetensors", {"format": "pt", **metadata})
        return tmp_path / "model.safetensors"

    return make


@pytest.fixture
def folder(saved_pipeline: Path, tmp_path: Path) -> Callable[..., Path]:
    """A maker: settings of the scheduler, with motion modules or not -> folder."""

    def make(has_motion: bool = False, **settings: Any) -> Path:
        made = Path(shutil.copytree(saved_pipeline, tmp_path / "folder"))
        scheduler = made / "scheduler" / "scheduler_config.json"
        scheduler.write_text(json.dumps(json.loads(scheduler.read_text()) | settings))
        index = json.loads((made / "model_index.json").read_text())
        if not has_motion:
            shutil.rmtree(made / "motion_adapter")
            del index["motion_adapter"]
            index["_class_name"] = "StableDiffusionPipeline"
        (made / "model_index.json").write_text(json.dumps(index))
        return made

    return make


def settings_of(pipeline: Any) -> tuple[Any, ...]:
    config = pipeline.scheduler.config
    return tuple(config[name] for name in ("prediction_type", "rescale_betas_zero_snr", "timestep_spacing"))


@pytest.mark.parametrize(
    ("marks", "metadata", "expected"),
    [
        ((), {}, ("epsilon", False, "leading")),
        (("v_pred",), {}, ("v_prediction", False, "leading")),
        (("v_pred", "ztsnr"), {}, ("v_prediction", True, "trailing")),
        ((), {"modelspec.prediction_type": "v"}, ("v_prediction", False, "leading")),
    ],
)
def test_a_single_file_is_run_as_it_says(
    single_file: Callable[..., Path],
    motion: Path,
    saved_pipeline: Path,
    marks: tuple[str, ...],
    metadata: dict[str, str],
    expected: tuple[Any, ...],
) -> None:
    path = single_file(marks, **metadata)
    pipeline = load_pipeline(path, motion_adapter=motion, motion_variant="animatediff-v2", parts_from=saved_pipeline)
    assert settings_of(pipeline) == expected
    assert pipeline.scheduler.config["beta_schedule"] == "linear"  # of the motion modules, as ever

    shown = inspect_path(path)["prediction"]
    assert (shown["type"], shown["zero_snr"]) == expected[:2]


def test_a_folder_keeps_what_is_about_its_model(folder: Callable[..., Path], motion: Path) -> None:
    """Prediction and pure noise are the image model's; noise levels and steps are the motion modules'."""
    made = folder(**ZERO_SNR, beta_schedule="scaled_linear", beta_end=0.5, trained_betas=None)
    pipeline = load_pipeline(made, motion_adapter=motion)
    assert settings_of(pipeline) == ("v_prediction", True, "trailing")
    assert (pipeline.scheduler.config["beta_schedule"], pipeline.scheduler.config["beta_end"]) == ("linear", 0.012)
    part = inspect_path(made)["parts"]["scheduler"]["settings"]
    assert (part["prediction_type"], part["rescale_betas_zero_snr"], part["beta_end"]) == ("v_prediction", True, 0.5)


def test_a_video_model_keeps_every_entry_and_gives_them_to_other_solvers(folder: Callable[..., Path]) -> None:
    betas = np.linspace(0.001, 0.01, 1000).tolist()
    pipeline = load_pipeline(folder(True, trained_betas=betas, prediction_type="v_prediction"))
    other = pipeline.make_solver("euler")
    assert other.config["prediction_type"] == "v_prediction"
    assert torch.equal(other.alphas_cumprod, pipeline.scheduler.alphas_cumprod)  # type: ignore[attr-defined]


@pytest.mark.parametrize("has_motion", [True, False])
def test_a_word_overrides_what_is_said_and_is_recorded(
    folder: Callable[..., Path], motion: Path, has_motion: bool
) -> None:
    made = folder(has_motion, prediction_type="epsilon")
    options: dict[str, Any] = {} if has_motion else {"motion_adapter": motion}
    with pytest.warns(UserWarning, match=r"predicts epsilon \(its scheduler's config\), and is run as.*v_pred"):
        pipeline = load_pipeline(made, prediction="v", **options)
    assert pipeline.scheduler.config["prediction_type"] == "v_prediction"
    pipeline.set_progress_bar_config(disable=True)
    request = pipeline("a red circle", num_frames=2, num_inference_steps=1, seed=0).request
    assert request["model"]["prediction"] == "v_prediction"
    assert request["made"]["unrecorded"] == []
    assert repeated(request).model.prediction == "v_prediction"
    assert repeated(request, {"model": "other"}).model.prediction is None
    with pytest.raises(ConfigError, match=r"Unknown prediction 'velocty'\. Known: epsilon"):
        load_pipeline(made, prediction="velocty", **options)


def test_pure_noise_goes_with_what_is_no_noise(folder: Callable[..., Path]) -> None:
    made = folder(True, **ZERO_SNR)
    with pytest.warns(UserWarning, match="run as predicting epsilon"):
        assert settings_of(load_pipeline(made, prediction="epsilon"))[:2] == ("epsilon", False)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("name", [name for name in scheduler_names() if name != "pndm"])
def test_every_able_solver_starts_from_pure_noise(make_pipeline: Callable[..., Any], name: str) -> None:
    trained: Any = make_scheduler("ddim")
    pipeline = make_pipeline(scheduler=type(trained).from_config(trained.config, **ZERO_SNR))
    latents = pipeline(
        "a red circle", num_frames=2, num_inference_steps=4, scheduler=name, seed=0, output_type="latent"
    )
    assert latents.isfinite().all()
    solver = pipeline.make_solver(name)
    solver.set_timesteps(4)
    assert int(solver.timesteps[0]) == 999


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("name", scheduler_names())
def test_a_solver_that_cannot_run_a_prediction_says_so(make_pipeline: Callable[..., Any], name: str) -> None:
    trained: Any = make_scheduler("ddim")
    pipeline = make_pipeline(scheduler=type(trained).from_config(trained.config, prediction_type="sample"))
    options = {"num_frames": 1, "num_inference_steps": 4, "scheduler": name, "seed": 0, "output_type": "latent"}
    if name not in ("pndm", "euler-a"):
        assert pipeline("a red circle", **options).isfinite().all()
        return
    with pytest.raises(ConfigError, match=f"'{name}' cannot run a model that predicts sample. Use one of ddim"):
        pipeline("a red circle", **options)


def test_a_converted_folder_says_it_too(single_file: Callable[..., Path], saved_pipeline: Path, tmp_path: Path) -> None:
    for marks, expected in (
        ((), ("PNDMScheduler", "epsilon", "leading")),
        (("v_pred",), ("PNDMScheduler", "v_prediction", "leading")),
        (("v_pred", "ztsnr"), ("DDIMScheduler", "v_prediction", "trailing")),
    ):
        target = tmp_path / f"converted{len(marks)}"
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
            convert_weights(single_file(marks), target, "diffusers", parts_from=saved_pipeline)
        config = json.loads((target / "scheduler" / "scheduler_config.json").read_text())
        assert (config["_class_name"], config["prediction_type"], config["timestep_spacing"]) == expected
        assert config.get("rescale_betas_zero_snr", False) is ("ztsnr" in marks)


def test_a_schedule_that_is_said_to_be_left_out_is_left_out(folder: Callable[..., Path]) -> None:
    made = folder(True, prediction_type="epsilon", rescale_betas_zero_snr=True, timestep_spacing="trailing")
    with pytest.warns(UserWarning, match="usual noise levels"):
        pipeline = load_pipeline(made)
    assert pipeline.scheduler.config["rescale_betas_zero_snr"] is False
