"""Image prompts of the AnimateDiff pipeline: loading, calls, unloading, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from muybridge.backbones.unet.image_prompt import text_attention_blocks
from muybridge.errors import CheckpointError, ConfigError, InputFileError, ShapeError
from muybridge.pipelines import AnimateDiffPipeline
from muybridge.sampling import WindowSettings

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PROMPT, OTHER = "a red circle moving left", "a large blue heart"
TEXT, PROJECTED = 16, 24
Weights = dict[str, Tensor]


def make_encoder(projected: int = PROJECTED) -> CLIPVisionModelWithProjection:
    torch.manual_seed(1)
    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        projection_dim=projected,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=16,
        patch_size=8,
    )
    return CLIPVisionModelWithProjection(config).eval()


def make_weights(pipeline: Any) -> Weights:
    generator = torch.Generator().manual_seed(2)
    blocks = text_attention_blocks(pipeline.unet).values()
    shapes: dict[str, tuple[int, ...]] = {
        "image_proj.proj.weight": (4 * TEXT, PROJECTED),
        "image_proj.proj.bias": (4 * TEXT,),
        "image_proj.norm.weight": (TEXT,),
        "image_proj.norm.bias": (TEXT,),
    }
    for index, block in enumerate(blocks):
        shapes |= {f"ip_adapter.{2 * index + 1}.to_{n}_ip.weight": (block.attn2.to_q.out_features, TEXT) for n in "kv"}
    return {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def make_picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (20, 30, 3), np.uint8)


def latents_of(pipeline: Any, prompt: Any = PROMPT, **options: Any) -> Tensor:
    return pipeline(prompt, **{"num_frames": 4, "seed": 1, "output_type": "latent", **options})


@pytest.fixture
def write(pipeline: Any, tmp_path: Path) -> Callable[..., Path]:
    """A writer of an adapter's file for the pipeline; keywords replace weights, None leaves them out."""

    def write(**changes: Tensor | None) -> Path:
        weights = {**make_weights(pipeline), **{name.replace("__", "."): value for name, value in changes.items()}}
        path = tmp_path / "ip-adapter_tiny.safetensors"
        save_file({name: value for name, value in weights.items() if value is not None}, path)
        return path

    return write


@pytest.fixture
def loaded(pipeline: Any, write: Callable[..., Path]) -> Iterator[Any]:
    """The pipeline with an adapter, which is taken off again."""
    pipeline.load_image_prompt_adapter(write(), make_encoder())
    yield pipeline
    pipeline.unload_image_prompt_adapter()


def test_a_picture_changes_the_video_and_another_one_differently(loaded: Any) -> None:
    without, first, second = (
        latents_of(loaded, **options)
        for options in ({}, {"image_prompt": make_picture(0)}, {"image_prompt": make_picture(1)})
    )

    assert not torch.allclose(first, without, atol=1e-2)
    assert not torch.allclose(first, second, atol=1e-4)


def test_strength_zero_is_no_picture(loaded: Any) -> None:
    without = latents_of(loaded)

    assert torch.equal(latents_of(loaded, image_prompt=make_picture(), image_prompt_strength=0.0), without)
    weak, strong = (latents_of(loaded, image_prompt=make_picture(), image_prompt_strength=s) for s in (0.1, 1.0))
    assert (weak - without).abs().mean() < (strong - without).abs().mean()


def test_unloading_leaves_the_unet_as_it_was(pipeline: Any, write: Callable[..., Path]) -> None:
    before = {name: value.clone() for name, value in pipeline.unet.state_dict().items()}
    expected = latents_of(pipeline)

    pipeline.load_image_prompt_adapter(write(), make_encoder())
    assert pipeline.unet.state_dict().keys() > before.keys()
    pipeline.unload_image_prompt_adapter()

    after = pipeline.unet.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert torch.equal(latents_of(pipeline), expected)


def test_both_branches_of_guidance_see_their_own_picture(loaded: Any) -> None:
    options: dict[str, Any] = {"image_prompt": make_picture()}
    batched, one_by_one = (latents_of(loaded, batched_guidance=each, **options) for each in (True, False))

    assert torch.allclose(batched, one_by_one, atol=1e-4)
    assert not torch.allclose(latents_of(loaded, guidance_scale=1.0, **options), batched, atol=1e-2)


def test_several_pictures_several_videos_windows_and_travel(loaded: Any) -> None:
    pictures = [make_picture(0), make_picture(1)]
    two = latents_of(loaded, [PROMPT, OTHER], image_prompt=pictures)
    one = latents_of(loaded, image_prompt=pictures)
    assert torch.allclose(two[:1], one, atol=1e-4)

    travelled = latents_of(loaded, {0: PROMPT, 3: PROMPT}, image_prompt=pictures)
    assert torch.allclose(travelled, one, atol=1e-4)

    settings: dict[str, Any] = {"num_frames": 6, "motion_strength": 0.0, "image_prompt": pictures}
    whole, windowed = (latents_of(loaded, windows=each, **settings) for each in (None, WindowSettings(4, 2)))
    assert torch.allclose(whole, windowed, atol=1e-4)


def test_the_image_encoder_lies_beside_the_file(pipeline: Any, write: Callable[..., Path]) -> None:
    path = write()
    with pytest.raises(ConfigError, match=r"no folder .*image_encoder.* give its folder as image_encoder"):
        pipeline.load_image_prompt_adapter(path)

    make_encoder().save_pretrained(path.parent / "image_encoder")
    pipeline.load_image_prompt_adapter(path)
    found = latents_of(pipeline, image_prompt=make_picture())
    pipeline.load_image_prompt_adapter(path, make_encoder())
    expected = latents_of(pipeline, image_prompt=make_picture())
    pipeline.unload_image_prompt_adapter()

    assert torch.equal(found, expected)


def test_a_pipeline_is_saved_without_its_image_prompt_adapter(loaded: Any, tmp_path: Path) -> None:
    expected = latents_of(loaded, image_prompt=make_picture())

    loaded.save_pretrained(tmp_path / "saved")
    again = AnimateDiffPipeline.from_pretrained(tmp_path / "saved")
    again.set_progress_bar_config(disable=True)

    assert torch.equal(latents_of(again), latents_of(loaded))
    assert torch.equal(latents_of(loaded, image_prompt=make_picture()), expected)


def test_the_request_says_that_a_picture_is_missing_from_it(loaded: Any) -> None:
    video = loaded(PROMPT, num_frames=2, seed=1, image_prompt=make_picture())

    assert "image_prompt" in video.request["made"]["unrecorded"]


@pytest.mark.parametrize("strength", [float("nan"), float("inf")])
def test_a_strength_must_be_finite(loaded: Any, strength: float) -> None:
    with pytest.raises(ConfigError, match=r"image_prompt_strength must be a finite number; given (nan|inf)"):
        latents_of(loaded, image_prompt=make_picture(), image_prompt_strength=strength)


def test_calls_that_would_have_no_effect_are_refused(pipeline: Any) -> None:
    with pytest.raises(ConfigError, match=r"needs an image prompt adapter; load one with pipe\.load_image_prompt"):
        latents_of(pipeline, image_prompt=make_picture())
    with pytest.raises(ConfigError, match="image_prompt_strength has no effect without image_prompt"):
        latents_of(pipeline, image_prompt_strength=0.5)


def test_pictures_that_are_none_are_refused(loaded: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="image_prompt is an empty list"):
        latents_of(loaded, image_prompt=[])
    with pytest.raises(InputFileError, match="There is no picture"):
        latents_of(loaded, image_prompt=tmp_path / "missing.png")


def test_an_encoder_of_another_width_is_refused(pipeline: Any, write: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="reads an embedding of CLIP 24 wide; this image encoder makes it 20 wide"):
        pipeline.load_image_prompt_adapter(write(), make_encoder(projected=20))
    assert not any(block.image_attention for block in text_attention_blocks(pipeline.unet).values())


def test_a_file_for_another_unet_is_refused(pipeline: Any, tmp_path: Path) -> None:
    shapes = {f"ip_adapter.{2 * index + 1}.to_{name}_ip.weight": (8, 2048) for index in range(70) for name in "kv"}
    path = tmp_path / "ip-adapter_sdxl.safetensors"
    save_file({"image_proj.norm.weight": torch.ones(4), **{k: torch.zeros(s) for k, s in shapes.items()}}, path)

    with pytest.raises(CheckpointError, match=r"for another U-Net.*70 text attentions 2048 wide \(SDXL\).*16 wide"):
        pipeline.load_image_prompt_adapter(path, make_encoder())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_proj__proj__bias": None}, "has no weights for"),
        ({"ip_adapter__1__to_v_ip__weight": None}, r"has no weights for 1\.to_v_ip\.weight"),
        ({"ip_adapter__1__to_v_ip__weight": torch.zeros(5, TEXT)}, "shapes that do not fit"),
        ({"ip_adapter__1__to_k_ip__weight": torch.full((32, TEXT), torch.nan)}, "NaN or infinite"),
        ({"image_proj__more": torch.zeros(1)}, "has keys that the model does not have: more"),
        ({"unet__weight": torch.zeros(1)}, "is no image prompt adapter.*unet.weight"),
        ({"ip_adapter__0__to_q_lora__down__weight": torch.zeros(1, TEXT)}, "FaceID"),
        ({"image_proj__proj__weight": None}, "in a way that is not supported"),
    ],
)
def test_damaged_files_are_refused_whole(
    pipeline: Any, write: Callable[..., Path], changes: dict[str, Tensor | None], message: str
) -> None:
    path = write(**changes)
    with pytest.raises(CheckpointError, match=message):
        pipeline.load_image_prompt_adapter(path, make_encoder())
    assert not any(block.image_attention for block in text_attention_blocks(pipeline.unet).values())


def test_a_damaged_pickle_is_refused(pipeline: Any, tmp_path: Path) -> None:
    path = tmp_path / "ip-adapter_tiny.bin"
    path.write_bytes(b"not a pickle")
    with pytest.raises(CheckpointError, match=r"ip-adapter_tiny\.bin"):
        pipeline.load_image_prompt_adapter(path, make_encoder())
    with pytest.raises(CheckpointError, match="There is no weight file"):
        pipeline.load_image_prompt_adapter(tmp_path / "missing.bin", make_encoder())


def test_the_unet_refuses_tokens_that_do_not_fit(loaded: Any) -> None:
    sample, text = torch.zeros(1, 4, 2, 8, 8), torch.zeros(1, 3, TEXT)
    with pytest.raises(ShapeError, match=r"image_prompt must be \[1, m, 16\]; given \[2, 4, 16\]"):
        loaded.unet(sample, 1, text, image_prompt=torch.zeros(2, 4, TEXT))
    loaded.unload_image_prompt_adapter()
    with pytest.raises(ConfigError, match="no attention to pictures; load an image prompt adapter"):
        loaded.unet(sample, 1, text, image_prompt=torch.zeros(1, 4, TEXT))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_proj__norm__weight": torch.ones(0)}, "not supported"),
        ({"image_proj__proj__weight": torch.ones(4)}, "not supported"),
        ({"ip_adapter__1__to_k_ip__weight": torch.ones(())}, "shapes that do not fit: 1.to_k_ip.weight"),
        (
            {
                "image_proj__latents": torch.ones(1, 4, 8),
                "image_proj__proj_in__weight": torch.ones(8, PROJECTED),
                "image_proj__layers__0__0__to_q__weight": torch.ones(()),
                "image_proj__layers__0__1__1__weight": torch.ones(8, 8),
            },
            "damaged: attn.to_q and ff.1.net.0.proj must have two axes",
        ),
    ],
)
def test_files_with_weights_of_odd_shapes_are_refused(
    pipeline: Any, write: Callable[..., Path], changes: Weights, message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        pipeline.load_image_prompt_adapter(write(**changes), make_encoder())
