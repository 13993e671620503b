"""Tasks of AnimateDiff beyond text to video: prompt travel, video to video, dense control."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel

from muybridge.conditioning.kinds.control import Control
from muybridge.conditioning.residuals import Influence
from muybridge.errors import ConfigError, ShapeError
from muybridge.pipelines.prompts import read_texts
from muybridge.video import Video

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PROMPT, OTHER = "a red circle moving left", "a large blue heart"


def latents_of(pipeline: Any, prompt: Any = PROMPT, **options: Any) -> torch.Tensor:
    return pipeline(prompt, **{"num_frames": 4, "seed": 1, "output_type": "latent", **options})


def make_frames(count: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), np.uint8)


@pytest.fixture(scope="module")
def control_net(pipeline: Any) -> ControlNetModel:
    config = pipeline.unet.config
    torch.manual_seed(0)
    model = ControlNetModel(
        block_out_channels=config["block_out_channels"],
        down_block_types=config["down_block_types"],
        layers_per_block=config["layers_per_block"],
        cross_attention_dim=config["cross_attention_dim"],
        attention_head_dim=config["attention_head_dim"],
        norm_num_groups=config["norm_num_groups"],
        conditioning_embedding_out_channels=(8, 16),
    ).eval()
    for parameter in [*model.controlnet_down_blocks.parameters(), *model.controlnet_mid_block.parameters()]:
        torch.nn.init.normal_(parameter, std=0.5)
    torch.nn.init.normal_(model.controlnet_cond_embedding.conv_out.weight, std=0.5)
    return model


def test_travel_between_equal_prompts_is_that_prompt(pipeline: Any) -> None:
    travelled = latents_of(pipeline, {0: PROMPT, 3: PROMPT})

    assert torch.allclose(travelled, latents_of(pipeline), atol=1e-4)


def test_without_motion_each_frame_has_its_own_prompt(pipeline: Any) -> None:
    travelled = latents_of(pipeline, {0: PROMPT, 3: OTHER}, motion_strength=0.0)
    first, last = (latents_of(pipeline, prompt, motion_strength=0.0) for prompt in (PROMPT, OTHER))

    assert torch.allclose(travelled[:, :, 0], first[:, :, 0], atol=1e-5)
    assert torch.allclose(travelled[:, :, 3], last[:, :, 3], atol=1e-5)
    assert not torch.allclose(travelled[:, :, 3], first[:, :, 3], atol=1e-2)


def test_travel_gives_one_video_whose_request_repeats_it(pipeline: Any) -> None:
    video = pipeline({0: PROMPT, 3: OTHER}, num_frames=4, seed=1)

    assert video.request["prompt"] == {0: PROMPT, 3: OTHER}
    again = pipeline(video.request["prompt"], num_frames=4, seed=1)
    assert np.array_equal(again.frames, video.frames)


def test_a_source_video_is_kept_the_more_the_smaller_the_strength(pipeline: Any) -> None:
    frames = make_frames()
    settings: dict[str, Any] = {"init_video": frames, "num_inference_steps": 10, "guidance_scale": 1.0}
    with torch.no_grad():
        clean = pipeline.vae.encode(torch.from_numpy(frames).permute(0, 3, 1, 2) / 127.5 - 1).latent_dist.mean
    clean = (clean * pipeline.vae.config["scaling_factor"]).transpose(0, 1)[None]

    distances = [float((latents_of(pipeline, strength=s, **settings) - clean).std()) for s in (0.1, 0.5, 1.0)]

    assert distances[0] < distances[1] < distances[2]


def test_a_source_video_is_recorded_as_something_the_file_does_not_hold(pipeline: Any) -> None:
    video = pipeline(PROMPT, num_frames=4, seed=1, init_video=Video(make_frames(6), fps=8.0))

    assert video.request["made"]["unrecorded"] == ["init_video"]


def test_a_dense_control_is_the_control_net_on_every_frame(pipeline: Any, control_net: ControlNetModel) -> None:
    frames = make_frames()
    settings: dict[str, Any] = {"motion_strength": 0.0, "num_inference_steps": 1, "guidance_scale": 1.0}
    noise = torch.randn(1, 4, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    made = latents_of(
        pipeline, controls=[Control(model=control_net, frames=frames, strength=0.7)], latents=noise, **settings
    )

    states = pipeline._encode(read_texts([PROMPT], None), False).positive
    pipeline.scheduler.set_timesteps(1)
    timestep = pipeline.scheduler.timesteps[0]
    for index in range(4):
        picture = torch.from_numpy(frames[index : index + 1]).permute(0, 3, 1, 2) / 255
        with torch.no_grad():
            down, mid = control_net(noise[:, :, index], timestep, states, picture, 0.7, return_dict=False)
            prediction = pipeline.unet(
                noise[:, :, index : index + 1],
                timestep,
                states,
                down_block_additional_residuals=down,
                mid_block_additional_residual=mid,
                motion_strength=0.0,
            ).sample
        alone = pipeline.scheduler.step(prediction, timestep, noise[:, :, index : index + 1]).prev_sample
        assert torch.allclose(made[:, :, index : index + 1], alone, atol=1e-4)
    assert not torch.allclose(made, latents_of(pipeline, latents=noise, **settings), atol=1e-2)


def test_several_controls_add_up_and_none_at_strength_zero(pipeline: Any, control_net: ControlNetModel) -> None:
    frames = make_frames()
    half = Control(model=control_net, frames=frames, strength=0.5)

    twice, once = latents_of(pipeline, controls=[half, half]), Control(model=control_net, frames=frames, strength=1.0)

    assert torch.allclose(twice, latents_of(pipeline, controls=[once]), atol=1e-4)
    off = latents_of(pipeline, controls=[Control(model=control_net, frames=frames, strength=0.0)])
    assert torch.allclose(off, latents_of(pipeline), atol=1e-5)


def test_a_control_counts_in_the_steps_of_its_influence() -> None:
    timesteps = torch.tensor([900, 700, 500, 300, 100])

    influence = Influence.during(0.5, 0.2, 0.6, timesteps)

    assert [influence.counts_at(float(t)) for t in timesteps] == [False, True, True, False, False]
    assert not Influence(0.0, 900, 100).counts_at(500)


def test_without_bounds_a_control_counts_in_a_shorter_pass_too() -> None:
    whole, short = torch.tensor([945, 700, 500, 300, 1]), torch.tensor([951, 501, 0])

    everywhere, late = Influence.during(1.0, 0.0, 1.0, whole), Influence.during(1.0, 0.4, 1.0, whole)

    assert [everywhere.counts_at(float(t)) for t in short] == [True, True, True]
    assert [late.counts_at(float(t)) for t in short] == [False, False, True]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"strength": 0.5}, ConfigError, "give that too"),
        ({"init_video": make_frames(), "strength": 0.0}, ConfigError, "above 0 and at most 1; given 0.0"),
        ({"init_video": make_frames(3)}, ShapeError, "has 3 frames; 4 were asked for"),
        ({"init_video": make_frames(0)}, ShapeError, "has 0 frames"),
    ],
)
def test_refused_before_any_work(pipeline: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        latents_of(pipeline, **options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": make_frames(2)}, "for each of 4 frames; given 2"),
        ({"start": 0.9, "end": 0.1}, "start before it ends"),
        ({"start": 0.5, "end": 0.6}, "None of 3 steps lies whole between"),
        ({"strength": float("nan")}, "finite number"),
    ],
)
def test_refused_controls(pipeline: Any, control_net: ControlNetModel, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        latents_of(pipeline, controls=[Control(**{"model": control_net, "frames": make_frames(), **changes})])
