"""Motion adapters in a pipeline: on, off, and in between."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from muybridge.errors import ConfigError
from muybridge.motion import MotionAdapter, TemporalConfig
from muybridge.pipelines import AnimateDiffPipeline
from muybridge.sampling import draw_noise, video_generators
from muybridge.types import LatentShape

PROMPT = "a red circle moving left"


def run(pipeline: Any, prompt: str | list[str] = PROMPT, **options: Any) -> Tensor:
    return pipeline(prompt, **{"num_frames": 4, "seed": 1, "output_type": "latent", **options})


def test_frames_see_each_other_only_with_motion(make_pipeline: Any) -> None:
    pipeline = make_pipeline()
    noise = draw_noise(video_generators(1, 1), LatentShape(4, 4, 8, 8))
    other = noise.clone()
    other[:, :, 3] = -other[:, :, 3]

    moving = run(pipeline, latents=noise) - run(pipeline, latents=other)
    pipeline.remove_motion_adapter()
    still = run(pipeline, latents=noise) - run(pipeline, latents=other)

    assert float(moving[:, :, 0].abs().max()) > 0.1
    assert float(still[:, :, :3].abs().max()) < 1e-4


def test_strength_0_is_the_pipeline_without_adapter(make_pipeline: Any) -> None:
    pipeline = make_pipeline()

    off = run(pipeline, motion_strength=0.0)
    on = run(pipeline)
    pipeline.remove_motion_adapter()

    assert torch.equal(off, run(pipeline))
    assert float((on - off).abs().max()) > 0.1


def test_strength_0_is_independent_stills(pipeline: Any) -> None:
    noise = draw_noise(video_generators(1, 1), LatentShape(4, 16, 8, 8))

    video = run(pipeline, num_frames=16, latents=noise, motion_strength=0.0)
    pictures = run(
        pipeline, [PROMPT] * 16, num_frames=1, latents=noise[0].transpose(0, 1).unsqueeze(2), motion_strength=0
    )

    assert pictures.shape == (16, 4, 1, 8, 8)
    assert torch.allclose(video[0].transpose(0, 1), pictures[:, :, 0], atol=1e-4)


def test_strength_is_gradual(pipeline: Any) -> None:
    half, full, off = (run(pipeline, motion_strength=strength) for strength in (0.5, 1.0, 0.0))

    assert 0.1 < float((half - off).norm() / (full - off).norm()) < 1


def test_taking_the_adapter_off_and_on_again_changes_nothing(make_pipeline: Any) -> None:
    pipeline = make_pipeline()
    before = run(pipeline)

    adapter = pipeline.remove_motion_adapter()
    assert pipeline.motion_adapter is None
    assert pipeline.unet.motion_adapter is None
    assert pipeline.remove_motion_adapter() is None
    pipeline.set_motion_adapter(adapter)

    assert pipeline.motion_adapter is adapter
    assert torch.equal(run(pipeline), before)


def test_another_adapter_takes_the_place_of_the_first(make_pipeline: Any) -> None:
    pipeline = make_pipeline()
    fresh = MotionAdapter.for_sites(pipeline.unet.motion_sites().values(), config=TemporalConfig(num_heads=4))
    stills = run(pipeline, motion_strength=0.0)

    pipeline.set_motion_adapter(fresh)

    assert pipeline.components["motion_adapter"] is fresh
    assert torch.equal(run(pipeline), stills)  # a fresh adapter does not move anything yet


@pytest.mark.parametrize("through", ["the constructor", "set_motion_adapter"])
def test_an_adapter_follows_the_precision_of_the_network(
    make_pipeline: Any, through: str, capfd: pytest.CaptureFixture[str]
) -> None:
    pipeline = make_pipeline()
    adapter = pipeline.remove_motion_adapter().float()
    for part in (pipeline.vae, pipeline.text_encoder, pipeline.unet):
        torch.nn.Module.to(part, torch.bfloat16)
    capfd.readouterr()

    if through == "the constructor":
        pipeline = AnimateDiffPipeline(**{**pipeline.components, "motion_adapter": adapter}, default_steps=3)
        pipeline.set_progress_bar_config(disable=True)
    else:
        pipeline.set_motion_adapter(adapter)

    assert adapter.dtype == torch.bfloat16
    assert capfd.readouterr() == ("", "")
    assert bool(run(pipeline).isfinite().all())


def test_an_adapter_for_other_widths_is_refused_and_the_present_one_stays(make_pipeline: Any) -> None:
    pipeline = make_pipeline()
    present = pipeline.motion_adapter
    sites = {name: {"kind": "temporal", "width": 96, "config": {}} for name in pipeline.unet.motion_sites()}

    with pytest.raises(ConfigError, match="for another backbone"):
        pipeline.set_motion_adapter(MotionAdapter(sites))

    assert pipeline.motion_adapter is present
    assert pipeline.unet.motion_adapter is present


def test_a_pipeline_can_be_made_of_the_parts_of_another(make_pipeline: Any) -> None:
    assembled = make_pipeline()
    again = AnimateDiffPipeline(**assembled.components, default_steps=3, default_guidance=5.0)
    again.set_progress_bar_config(disable=True)

    assert again.motion_adapter is assembled.motion_adapter
    assert torch.equal(run(again), run(assembled))
