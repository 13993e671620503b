"""AnimateDiff on Stable Diffusion XL beside diffusers' `AnimateDiffSDXLPipeline`, on the same random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AnimateDiffSDXLPipeline, MotionAdapter, StableDiffusionXLPipeline
from torch import Tensor

from muybridge import load_pipeline
from muybridge.pipelines import AnimateDiffPipeline
from muybridge.pipelines.prompts import read_texts

# diffusers hands tensors to numpy in a way that numpy will give up.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PROMPT, OTHER, NEGATIVE = "a red circle moving left", "a large blue heart", "green"
FRAMES, STEPS = 3, 3


@pytest.fixture(scope="module")
def ours(sdxl_folder: Path) -> AnimateDiffPipeline:
    pipeline = load_pipeline(sdxl_folder / "base", motion_adapter=sdxl_folder / "motion")
    assert isinstance(pipeline, AnimateDiffPipeline)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def theirs(sdxl_folder: Path, ours: AnimateDiffPipeline) -> Any:
    base = StableDiffusionXLPipeline.from_pretrained(sdxl_folder / "base", add_watermarker=False)
    parts: Any = {name: part for name, part in base.components.items() if name in ours.components}
    scheduler = type(ours.scheduler).from_config(ours.scheduler.config)
    pipeline = AnimateDiffSDXLPipeline(
        **{**parts, "motion_adapter": MotionAdapter.from_pretrained(sdxl_folder / "motion"), "scheduler": scheduler}
    )
    # diffusers 0.42 forgets to copy this one from the image model, and leaves it random.
    pipeline.unet.add_embedding.load_state_dict(base.unet.add_embedding.state_dict())
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def noise(count: int = 1, height: int = 8, width: int = 8) -> Tensor:
    return torch.randn(count, 4, FRAMES, height, width, generator=torch.Generator().manual_seed(3))


def both(ours: Any, theirs: Any, prompt: Any = PROMPT, **options: Any) -> tuple[Tensor, Tensor]:
    latents = noise(2 if isinstance(prompt, list) else 1, options.get("height", 16) // 2, options.get("width", 16) // 2)
    call = {
        "num_frames": FRAMES,
        "num_inference_steps": STEPS,
        "guidance_scale": 5.0,
        "output_type": "latent",
        **options,
        "latents": latents,
    }
    expected = theirs(prompt, **call).frames
    return ours(prompt, **call), expected


def error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(
    ("prompt", "options"),
    [
        (PROMPT, {}),
        (PROMPT, {"negative_prompt": NEGATIVE}),
        (PROMPT, {"negative_prompt": ""}),
        (PROMPT, {"guidance_scale": 1.0}),
        ([PROMPT, OTHER], {"negative_prompt": [NEGATIVE, "a"]}),
        (PROMPT, {"height": 8, "width": 24}),
        (
            PROMPT,
            {"original_size": (512, 384), "crops_coords_top_left": (7, 3), "target_size": (64, 48)},
        ),
        (
            PROMPT,
            {
                "negative_original_size": (128, 96),
                "negative_crops_coords_top_left": (1, 2),
                "negative_target_size": (16, 32),
            },
        ),
    ],
    ids=["no negative", "negative", "empty negative", "no guidance", "batch", "size", "sizes", "negative sizes"],
)
def test_latents(ours: AnimateDiffPipeline, theirs: Any, prompt: Any, options: dict[str, Any]) -> None:
    found, expected = both(ours, theirs, prompt, **options)
    assert found.shape == expected.shape
    assert error(found, expected) <= 1e-4


def test_frames(ours: AnimateDiffPipeline, theirs: Any) -> None:
    found, expected = both(ours, theirs, output_type="np")
    assert found.shape == expected.shape == (1, FRAMES, 16, 16, 3)
    assert np.abs(found - expected).max() <= 1e-4
    assert found.std() > 0.01


def test_ddim(ours: AnimateDiffPipeline, theirs: Any) -> None:
    own = theirs.scheduler
    theirs.scheduler = ours.make_solver("ddim")
    try:
        call: dict[str, Any] = {"num_frames": FRAMES, "num_inference_steps": STEPS, "guidance_scale": 5.0}
        expected = theirs(PROMPT, output_type="latent", latents=noise(), **call).frames
        found = ours(PROMPT, output_type="latent", latents=noise(), scheduler="ddim", **call)
    finally:
        theirs.scheduler = own
    assert error(found, expected) <= 1e-4


def test_text_states(ours: AnimateDiffPipeline, theirs: Any) -> None:
    positive, negative, pooled, negative_pooled = theirs.encode_prompt(PROMPT, negative_prompt=NEGATIVE)
    found = ours._encode(read_texts([PROMPT], NEGATIVE), True)
    for ours_, theirs_ in (
        (found.positive, positive),
        (found.negative, negative),
        (found.positive_pooled, pooled),
        (found.negative_pooled, negative_pooled),
    ):
        assert ours_ is not None
        assert torch.allclose(ours_, theirs_, atol=1e-5)
    assert positive.std() > 0.1
    assert not torch.allclose(pooled, negative_pooled, atol=1e-2)
