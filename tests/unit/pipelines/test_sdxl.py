"""AnimateDiff on Stable Diffusion XL: what is told to the U-Net, files, tasks, precision of the VAE."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler
from safetensors.torch import save_file
from torch import Tensor, nn

from muybridge.pipelines import AnimateDiffPipeline, load_pipeline
from muybridge.pipelines.animatediff.skeleton import part_makers
from muybridge.pipelines.precision import in_float32
from muybridge.pipelines.prompts import read_texts
from muybridge.pipelines.skeleton import skeleton_parts
from muybridge.processor import multiplies
from muybridge.sampling import FreeInit, WindowSettings

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PROMPT, OTHER, NEGATIVE = "a red circle moving left", "a large blue heart", "green"


def latents_of(pipeline: Any, prompt: Any = PROMPT, **options: Any) -> Tensor:
    settings = {"num_frames": 2, "seed": 1, "num_inference_steps": 1, "guidance_scale": 5.0, "output_type": "latent"}
    return pipeline(prompt, **{**settings, **options})


def close(one: Tensor, other: Tensor) -> bool:
    # Where weights lie in memory changes the rounding.
    return torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def differ(one: Tensor, other: Tensor) -> bool:
    return float((one - other).abs().max()) > 1e-3 * float(one.abs().max())


@pytest.fixture(scope="module")
def sdxl(sdxl_folder: Path) -> AnimateDiffPipeline:
    pipeline = load_pipeline(sdxl_folder / "base", motion_adapter=sdxl_folder / "motion")
    assert isinstance(pipeline, AnimateDiffPipeline)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def plain(sdxl: AnimateDiffPipeline) -> Tensor:
    return latents_of(sdxl)


def test_a_loaded_folder_runs_as_the_motion_module_was_made(sdxl: AnimateDiffPipeline, sdxl_folder: Path) -> None:
    assert sdxl.is_sdxl
    assert isinstance(sdxl.scheduler, EulerDiscreteScheduler)
    chosen = ("beta_schedule", "beta_start", "beta_end", "timestep_spacing", "steps_offset", "prediction_type")
    assert [sdxl.scheduler.config[name] for name in chosen] == [
        "scaled_linear",
        0.00085,
        0.02,
        "leading",
        1,
        "epsilon",
    ]
    assert (sdxl.config["default_steps"], sdxl.config["default_guidance"]) == (100, 8.5)
    assert sdxl.motion_adapter.numerics == "diffusers"
    video = sdxl(PROMPT, num_frames=2, num_inference_steps=1, seed=0)
    assert video.frames.shape == (2, 16, 16, 3)  # the size of the U-Net's latents times the VAE's factor
    assert video.request["model"]["model"] == str(sdxl_folder / "base")
    assert video.request["model"]["motion_adapter"] == str(sdxl_folder / "motion")
    assert video.request["made"]["unrecorded"] == []


def test_a_saved_pipeline_makes_the_same_video(sdxl: AnimateDiffPipeline, plain: Tensor, tmp_path: Path) -> None:
    sdxl.save_pretrained(tmp_path / "model")
    index = json.loads((tmp_path / "model" / "model_index.json").read_text())
    assert index["text_encoder_2"] == ["transformers", "CLIPTextModelWithProjection"]
    assert index["force_zeros_for_empty_prompt"] is True
    loaded = load_pipeline(tmp_path / "model")
    loaded.set_progress_bar_config(disable=True)
    assert close(latents_of(loaded), plain)
    assert torch.equal(latents_of(sdxl), plain)


def test_an_image_model_gives_stills(sdxl: AnimateDiffPipeline, sdxl_folder: Path) -> None:
    stills = AnimateDiffPipeline.from_pretrained(sdxl_folder / "base", scheduler=sdxl.make_solver("euler"))
    stills.set_progress_bar_config(disable=True)
    assert stills.motion_adapter is None
    assert close(latents_of(stills), latents_of(sdxl, motion_strength=0.0))


def test_without_a_negative_prompt_its_states_are_zeros(sdxl_folder: Path, tmp_path: Path, plain: Tensor) -> None:
    folder = Path(shutil.copytree(sdxl_folder / "base", tmp_path / "base"))
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"force_zeros_for_empty_prompt": False}))
    pipeline = load_pipeline(folder, motion_adapter=sdxl_folder / "motion")
    pipeline.set_progress_bar_config(disable=True)
    without = latents_of(pipeline)
    assert torch.equal(without, latents_of(pipeline, negative_prompt=""))
    assert differ(without, plain)


@pytest.mark.parametrize(
    "options",
    [
        {"negative_prompt": NEGATIVE},
        {"negative_prompt": ""},
        {"original_size": (512, 512)},
        {"crops_coords_top_left": (40, 0)},
        {"target_size": [64, 16]},
        {"negative_original_size": (512, 512), "negative_target_size": (16, 16)},
    ],
)
def test_what_the_unet_is_told_counts(sdxl: AnimateDiffPipeline, plain: Tensor, options: dict[str, Any]) -> None:
    assert differ(latents_of(sdxl, **options), plain)


def test_sizes_are_those_of_the_video_by_default(sdxl: AnimateDiffPipeline, plain: Tensor) -> None:
    assert torch.equal(latents_of(sdxl, original_size=(16, 16), target_size=(16, 16)), plain)
    same = {"negative_original_size": (16, 16), "negative_target_size": (16, 16)}
    assert torch.equal(latents_of(sdxl, **same), plain)


def test_sizes_are_recorded(sdxl: AnimateDiffPipeline) -> None:
    video = sdxl(PROMPT, num_frames=1, num_inference_steps=1, original_size=(512, 512), target_size=(16, 8))
    sizes = {"kind": "picture-sizes", "original_size": [512, 512], "target_size": [16, 8]}
    assert (video.request["conditions"], video.request["made"]["unrecorded"]) == ([sizes], [])


def test_text_states_in_place_of_prompts(sdxl: AnimateDiffPipeline, plain: Tensor) -> None:
    found = sdxl._encode(read_texts([PROMPT], None), True)
    assert found.positive_pooled is not None
    states = {
        "prompt_embeds": found.positive,
        "negative_prompt_embeds": found.negative,
        "pooled_prompt_embeds": found.positive_pooled,
        "negative_pooled_prompt_embeds": found.negative_pooled,
    }
    assert torch.equal(latents_of(sdxl, None, **states), plain)
    assert differ(latents_of(sdxl, None, **{**states, "pooled_prompt_embeds": found.positive_pooled + 1}), plain)
    by_frame = {name: states[name][:, None].repeat(1, 4, 1, 1) for name in ("prompt_embeds", "negative_prompt_embeds")}
    windows = WindowSettings(size=2, overlap=1)
    whole, cut = (
        latents_of(sdxl, None, num_frames=4, windows=windows, **{**states, **more}) for more in ({}, by_frame)
    )
    assert close(whole, cut)


def test_a_batch_is_its_videos(sdxl: AnimateDiffPipeline, plain: Tensor) -> None:
    both = latents_of(sdxl, [PROMPT, OTHER], num_videos_per_prompt=2)
    assert both.shape == (4, 4, 2, 8, 8)
    assert torch.allclose(both[:1], plain, atol=1e-4)
    assert torch.allclose(both[3:], latents_of(sdxl, OTHER, seed=4), atol=1e-4)
    sequential = latents_of(sdxl, [PROMPT, OTHER], num_videos_per_prompt=2, batched_guidance=False)
    assert torch.allclose(both, sequential, atol=1e-4)


def test_travel_between_equal_prompts_is_that_prompt(sdxl: AnimateDiffPipeline, plain: Tensor) -> None:
    assert torch.allclose(latents_of(sdxl, {0: PROMPT, 1: PROMPT}), plain, atol=1e-4)


def test_each_window_of_a_travel_is_told_its_own_texts(sdxl: AnimateDiffPipeline) -> None:
    # Without motion and overlap, each window is a video of its own.
    options: dict[str, Any] = {"motion_strength": 0.0, "windows": WindowSettings(size=2, overlap=0)}
    noise = torch.randn(1, 4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    travelled = latents_of(sdxl, {1: PROMPT, 2: OTHER}, num_frames=4, latents=noise, **options)
    for prompt, frames in ((PROMPT, slice(0, 2)), (OTHER, slice(2, 4))):
        alone = latents_of(sdxl, prompt, latents=noise[:, :, frames], motion_strength=0.0)
        assert torch.allclose(travelled[:, :, frames], alone, atol=1e-4)


def test_one_window_over_all_frames_is_none(sdxl: AnimateDiffPipeline) -> None:
    whole = latents_of(sdxl, {0: PROMPT, 3: OTHER}, num_frames=4)
    windowed = latents_of(sdxl, {0: PROMPT, 3: OTHER}, num_frames=4, windows=WindowSettings(size=4, overlap=0))
    assert torch.equal(whole, windowed)


def test_repeated_denoising_starts_from_the_same_first_pass(sdxl: AnimateDiffPipeline, plain: Tensor) -> None:
    assert torch.equal(latents_of(sdxl, free_init=FreeInit(passes=1)), plain)
    assert differ(latents_of(sdxl, free_init=FreeInit(passes=2)), plain)


def test_a_source_video_is_kept_the_more_the_smaller_the_strength(sdxl: AnimateDiffPipeline) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    options: dict[str, Any] = {"init_video": frames, "num_inference_steps": 10, "guidance_scale": 1.0}
    with torch.no_grad():
        clean = sdxl.vae.encode(torch.from_numpy(frames).permute(0, 3, 1, 2) / 127.5 - 1).latent_dist.mean
    clean = (clean * sdxl.vae.config["scaling_factor"]).transpose(0, 1)[None]
    near, far = (float((latents_of(sdxl, strength=share, **options) - clean).std()) for share in (0.1, 0.8))
    assert near < far


@pytest.fixture
def half(sdxl_folder: Path) -> AnimateDiffPipeline:
    pipeline = load_pipeline(sdxl_folder / "base", torch.bfloat16, motion_adapter=sdxl_folder / "motion")
    assert isinstance(pipeline, AnimateDiffPipeline)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def seen(half: AnimateDiffPipeline) -> Iterator[list[torch.dtype]]:
    """Precisions that the first layers of encoder and decoder computed in."""
    found: list[torch.dtype] = []
    handles = [
        part.conv_in.register_forward_hook(lambda _module, _given, result: found.append(result.dtype))
        for part in (half.vae.encoder, half.vae.decoder)
    ]
    yield found
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("upcast", [True, False])
def test_the_vae_computes_in_float32_where_it_asks_for_it(
    half: AnimateDiffPipeline, seen: list[torch.dtype], upcast: bool
) -> None:
    half.vae.register_to_config(force_upcast=upcast)
    before = {name: value.clone() for name, value in half.vae.state_dict().items()}
    frames = np.zeros((1, 16, 16, 3), np.uint8)
    half(PROMPT, num_frames=1, num_inference_steps=1, seed=0, init_video=frames, strength=1.0)
    is_wide = upcast or not multiplies(torch.bfloat16)  # and where float32 is faster
    assert seen == [torch.float32 if is_wide else torch.bfloat16] * 2
    after = half.vae.state_dict()
    assert {half.unet.dtype, half.vae.dtype} == {torch.bfloat16}
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_vae_beyond_half_precision_gives_pictures(half: AnimateDiffPipeline) -> None:
    vae = half.vae.to(torch.float16)
    with torch.no_grad():
        vae.decoder.conv_in.weight.mul_(1e4)  # its results are beyond 65504, and those of the norm behind it are not
        latents = torch.full((1, 4, 8, 8), 50.0)
        assert not vae.decode(latents.half()).sample.isfinite().all()
        with in_float32(vae, True):
            assert vae.decode(latents).sample.isfinite().all()
    assert vae.dtype == torch.float16


def test_each_part_comes_back_as_it_was() -> None:
    mixed: Any = nn.ModuleList([nn.Linear(2, 2).half(), nn.Linear(2, 2), nn.Linear(2, 2).double()])
    before = {name: value.clone() for name, value in mixed.state_dict().items()}
    with in_float32(mixed, True):
        assert [layer.weight.dtype for layer in mixed] == [torch.float32, torch.float32, torch.float64]
    after = mixed.state_dict()
    assert all(value.dtype == after[name].dtype and torch.equal(value, after[name]) for name, value in before.items())


def test_the_precision_comes_back_after_an_error(half: AnimateDiffPipeline) -> None:
    with pytest.raises(KeyError), in_float32(half.vae, True):
        raise KeyError("anything")
    assert half.vae.dtype == torch.bfloat16


def test_every_network_has_its_turn_when_they_are_offloaded(sdxl_folder: Path, plain: Tensor) -> None:
    pipeline = load_pipeline(sdxl_folder / "base", motion_adapter=sdxl_folder / "motion")
    pipeline.set_progress_bar_config(disable=True)
    networks = {name for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    assert str(pipeline.model_cpu_offload_seq).split("->") == ["text_encoder", "text_encoder_2", "unet", "vae"]
    assert networks == {"text_encoder", "text_encoder_2", "unet", "vae", "motion_adapter"}
    pipeline.enable_model_cpu_offload(device="cpu")
    assert close(latents_of(pipeline), plain)


@pytest.fixture
def lora(tmp_path: Path) -> Callable[..., Path]:
    """A writer of a LoRA for layers that kohya's trainer names so, all 16 or 32 wide."""

    def write(**widths: int) -> Path:
        generator = torch.Generator().manual_seed(0)
        state: dict[str, Tensor] = {}
        for name, width in widths.items():
            state[f"{name}.lora_down.weight"] = torch.randn(2, width, generator=generator)
            state[f"{name}.lora_up.weight"] = torch.randn(width, 2, generator=generator)
            state[f"{name}.alpha"] = torch.tensor(2.0)
        save_file(state, tmp_path / "lora.safetensors")
        return tmp_path / "lora.safetensors"

    return write


@pytest.mark.parametrize(
    ("layer", "width", "part"),
    [
        ("lora_te1_text_model_encoder_layers_0_self_attn_q_proj", 16, "text_encoder"),
        ("lora_te2_text_model_encoder_layers_1_self_attn_v_proj", 16, "text_encoder_2"),
        ("lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q", 32, "backbone"),
        ("lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q", 32, "backbone"),
    ],
)
def test_a_lora_of_each_network(
    sdxl: AnimateDiffPipeline, plain: Tensor, lora: Callable[..., Path], layer: str, width: int, part: str
) -> None:
    before = sdxl._encode(read_texts([PROMPT], None), False)
    sdxl.load_lora_weights(lora(**{layer: width}))
    try:
        assert list(sdxl._attached_loras) == [part]
        states = sdxl._encode(read_texts([PROMPT], None), False)
        halves = [differ(a, b) for a, b in zip(states.positive.chunk(2, -1), before.positive.chunk(2, -1), strict=True)]
        assert halves == [part == "text_encoder", part == "text_encoder_2"]
        assert differ(latents_of(sdxl), plain)
    finally:
        sdxl.unload_lora_weights()
    assert torch.equal(latents_of(sdxl), plain)


def test_networks_without_weights(sdxl_folder: Path) -> None:
    parts = skeleton_parts(sdxl_folder / "base", part_makers(sdxl_folder / "base"), torch.float16)
    assert set(parts) == {"text_encoder", "text_encoder_2", "unet", "vae"}
    # The VAE is made as it works.
    assert {name: part.dtype for name, part in parts.items()} == {
        **dict.fromkeys(parts, torch.float16),
        "vae": torch.float32,
    }
    assert {p.device.type for part in parts.values() for p in part.parameters()} == {"meta"}
