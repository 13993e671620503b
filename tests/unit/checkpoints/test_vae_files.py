"""VAEs by themselves: in every layout in which they are shared, and in the pipeline that they are given to."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import save_file
from tests.unit.checkpoints.test_base_models import ldm_vae_key
from torch import Tensor

from muybridge.checkpoints import locate
from muybridge.checkpoints.vae_files import read_vae
from muybridge.errors import CheckpointError, ConfigError
from muybridge.pipelines import AnimateDiffPipeline, load_pipeline
from muybridge.request.generate_request import repeated

LEVELS = 2
OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
WIDE = re.compile(r"mid\.attn_1\.(q|k|v|proj_out)\.weight$")


def make_vae(seed: int = 7, **settings: Any) -> AutoencoderKL:
    torch.manual_seed(seed)
    usual: dict[str, Any] = {
        "block_out_channels": (32, 32),
        "down_block_types": ("DownEncoderBlock2D",) * LEVELS,
        "up_block_types": ("UpDecoderBlock2D",) * LEVELS,
    }
    return AutoencoderKL(**{**usual, **settings}).eval()


def original(vae: AutoencoderKL) -> dict[str, Tensor]:
    named = {ldm_vae_key(key, LEVELS): value for key, value in vae.state_dict().items()}
    return {key: value[:, :, None, None] if WIDE.search(key) else value for key, value in named.items()}


def old_names(vae: AutoencoderKL) -> dict[str, Tensor]:
    def rename(key: str) -> str:
        for new, old in OLD_NAMES.items():
            key = key.replace(f".attentions.0.{new}.", f".attentions.0.{old}.")
        return key

    return {rename(key): value for key, value in vae.state_dict().items()}


def saved(state: Mapping[str, Tensor], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file({key: value.contiguous() for key, value in state.items()}, path)
    else:
        torch.save({"state_dict": dict(state), "epoch": 1}, path)
    return path


LAYOUTS: dict[str, Callable[[AutoencoderKL], dict[str, Tensor]]] = {
    "original": original,
    "of a whole model": lambda vae: {f"first_stage_model.{key}": value for key, value in original(vae).items()},
    "with its loss": lambda vae: {**original(vae), "loss.logvar": torch.zeros(1), "model_ema.decay": torch.zeros(1)},
    "diffusers": lambda vae: dict(vae.state_dict()),
    "old diffusers": old_names,
}


@pytest.fixture(scope="module")
def vae() -> AutoencoderKL:
    return make_vae()


def same(found: AutoencoderKL, expected: AutoencoderKL) -> bool:
    states = found.state_dict(), expected.state_dict()
    return states[0].keys() == states[1].keys() and all(torch.equal(v, states[1][k]) for k, v in states[0].items())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["vae.safetensors", "vae.pt"])
def test_a_file_is_read_bit_by_bit(vae: AutoencoderKL, tmp_path: Path, layout: str, name: str) -> None:
    found = read_vae(saved(LAYOUTS[layout](vae), tmp_path / name), torch.float32)
    assert same(found, vae)
    assert found.config["scaling_factor"] == 0.18215
    assert not found.training


def test_folders_and_the_place_of_a_vae_in_one(
    vae: AutoencoderKL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae.save_pretrained(tmp_path / "model" / "vae")
    for place in (tmp_path / "model" / "vae", tmp_path / "model"):
        assert same(read_vae(place, torch.float32), vae)
    assert read_vae(tmp_path / "model", torch.bfloat16).dtype == torch.bfloat16

    def fetch(_repository: str, patterns: list[str]) -> Path:  # a repository that has a VAE in a folder alone
        if not any(pattern.startswith("vae/") for pattern in patterns):
            raise CheckpointError("nothing there")
        return tmp_path / "model"

    monkeypatch.setattr(locate, "_fetch_folder", fetch)
    assert same(read_vae("organisation/model", torch.float32), vae)


def test_what_a_file_cannot_say_comes_from_the_model(vae: AutoencoderKL, tmp_path: Path) -> None:
    path = saved(original(vae), tmp_path / "vae.pt")
    found = read_vae(path, torch.float16, is_sdxl=True)
    assert (found.config["scaling_factor"], found.config["force_upcast"], found.dtype) == (0.13025, True, torch.float16)
    assert read_vae(path, None, own={"scaling_factor": 0.5}).config["scaling_factor"] == 0.5


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (
            lambda vae: {k: v for k, v in original(vae).items() if "encoder" not in k},
            "half a VAE: it has the decoder and",
        ),
        (lambda vae: {k: v for k, v in original(vae).items() if "decoder" not in k}, "has the encoder and no decoder"),
        (lambda _: {"first_stage_model.decoder.conv_in.weight": torch.zeros(1)}, "half a VAE"),
        (lambda _: AutoencoderTiny().decoder.state_dict(), "is TAESD, which gives previews"),
        (lambda _: AutoencoderTiny().state_dict(), "is TAESD, which gives previews"),
        (lambda _: {"lora_unet_x.lora_up.weight": torch.zeros(4, 4)}, "is a LoRA; its place is"),
        (lambda _: {"a.weight": torch.zeros(4)}, r"no VAE that is known here \(its keys: a.weight\)"),
        (lambda vae: {**original(vae), "encoder.conv_in.weight": torch.zeros(32, 3, 3, 3, 3)}, "is a VAE for videos"),
        (lambda vae: vae.state_dict() | {"extra": torch.zeros(1)}, "keys that the model does not have: extra"),
    ],
)
def test_what_is_no_whole_image_vae_is_named(
    vae: AutoencoderKL, tmp_path: Path, state: Callable[[AutoencoderKL], dict[str, Tensor]], said: str
) -> None:
    with pytest.raises(CheckpointError, match=said):
        read_vae(saved(state(vae), tmp_path / "vae.safetensors"), torch.float32)


def test_folders_of_other_vaes_are_named(tmp_path: Path) -> None:
    AutoencoderTiny().save_pretrained(tmp_path / "tiny")
    with pytest.raises(CheckpointError, match=r"holds TAESD, which gives previews.*needed is an AutoencoderKL"):
        read_vae(tmp_path / "tiny", torch.float32)
    with pytest.raises(CheckpointError, match=r"There is no VAE .*nowhere"):
        read_vae(tmp_path / "nowhere", torch.float32)
    with pytest.raises(CheckpointError, match="There is no nobody/nothing here, nor in the cache"):
        read_vae("nobody/nothing", torch.float32)


def test_latents_that_are_not_the_models_are_refused(saved_pipeline: Path, tmp_path: Path) -> None:
    make_vae(scaling_factor=0.13025).save_pretrained(tmp_path / "sdxl")
    with pytest.raises(
        ConfigError, match=r"with 0\.13025, and this model's are multiplied with 0\.18215.*another family"
    ):
        load_pipeline(saved_pipeline, vae=tmp_path / "sdxl")
    three: dict[str, Any] = {
        "block_out_channels": (32,) * 3,
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
    }
    make_vae(**three).save_pretrained(tmp_path / "three")
    with pytest.raises(ConfigError, match="one latent for 4x4 pixels, and this model's own VAE one for 2x2"):
        load_pipeline(saved_pipeline, vae=tmp_path / "three")
    sixteen = make_vae(latent_channels=16, use_quant_conv=False, use_post_quant_conv=False).state_dict()
    path = saved(sixteen, tmp_path / "flux.safetensors")
    with pytest.raises(ConfigError, match="latents of 16 channels, and this U-Net takes 4 and gives 4"):
        load_pipeline(saved_pipeline, vae=path)


def test_a_video_is_decoded_by_the_vae_given_and_says_so(
    vae: AutoencoderKL, saved_pipeline: Path, tmp_path: Path
) -> None:
    path = saved(original(vae), tmp_path / "vae.safetensors")

    def make(**options: Any) -> Any:
        pipeline = load_pipeline(saved_pipeline, **options)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline("a red circle", num_frames=2, num_inference_steps=1, seed=0)

    plain, video = make(), make(vae=path)
    assert not np.array_equal(plain.frames, video.frames)
    assert (video.request["model"]["vae"], video.request["made"]["unrecorded"]) == (str(path), [])
    again = repeated(video.request)
    assert (again.model.vae, repeated(video.request, {"model": "x"}).model.vae) == (str(path), None)
    assert np.array_equal(make(vae=again.model.vae).frames, video.frames)


def test_a_single_file_without_a_vae_needs_none_elsewhere(
    vae: AutoencoderKL, make_pipeline: Callable[..., AnimateDiffPipeline], saved_pipeline: Path, tmp_path: Path
) -> None:
    pipeline = make_pipeline()
    adapter = pipeline.remove_motion_adapter()
    assert adapter is not None
    adapter.save_pretrained(tmp_path / "motion_v2")
    model = saved(pipeline.unet.state_dict(), tmp_path / "noVAE.safetensors")
    path = saved(original(vae), tmp_path / "vae.safetensors")
    place = Path(shutil.copytree(saved_pipeline, tmp_path / "parts"))
    shutil.rmtree(place / "vae")
    options: dict[str, Any] = {"motion_adapter": tmp_path / "motion_v2", "motion_variant": "animatediff-v2"}

    assert same(load_pipeline(model, vae=path, parts_from=place, **options).vae, vae)
    with pytest.raises(CheckpointError, match=r"it has no vae, which .*noVAE\.safetensors lacks"):
        load_pipeline(model, parts_from=place, **options)
    with pytest.raises(CheckpointError, match=r"is image-vae \(vae\), not a folder with the parts.*or --vae\."):
        load_pipeline(model, parts_from=path, **options)


def test_settings_that_are_no_json_are_said(saved_pipeline: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved_pipeline / "vae", tmp_path / "vae"))
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read: it is not JSON"):
        read_vae(folder, torch.float32)
    (folder / "config.json").write_text(json.dumps({"_class_name": "Other"}))
    with pytest.raises(CheckpointError, match="holds a Other, not a AutoencoderKL"):
        read_vae(folder, torch.float32)
