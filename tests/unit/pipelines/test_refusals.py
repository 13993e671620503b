"""Calls that cannot be what was meant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from muybridge.errors import ConfigError, ShapeError
from muybridge.pipelines import AnimateDiffPipeline
from muybridge.sampling import make_scheduler

# diffusers hands tensors to numpy in a way that numpy will give up.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PROMPT = "a red circle moving left"
STATES = torch.zeros(1, 24, 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"height": 17}, r"multiples of 2; given 16x17\. The nearest is 16x16"),
        ({"width": 31, "height": 64}, r"given 31x64\. The nearest is 32x64"),
        ({"height": 0}, r"given 16x0\. The nearest is 16x2"),
        ({"num_frames": 0}, "num_frames must be at least 1; given 0"),
        ({"num_frames": -3}, "num_frames must be at least 1; given -3"),
        ({"latents": torch.zeros(1, 4, 16, 8, 9)}, r"latents must be \[1, 4, 16, 8, 8\].*given \[1, 4, 16, 8, 9\]"),
        ({"latents": torch.zeros(2, 4, 16, 8, 8)}, r"latents must be \[1, 4, 16, 8, 8\]"),
        ({"prompt": None, "prompt_embeds": STATES}, r"negative_prompt_embeds must be \[1, 24, 16\]"),
        (
            {"prompt": None, "prompt_embeds": STATES, "negative_prompt_embeds": STATES[:, :7]},
            r"negative_prompt_embeds must be \[1, 24, 16\]",
        ),
    ],
)
def test_sizes_that_do_not_fit(pipeline: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        pipeline(**{"prompt": PROMPT, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_inference_steps": 0}, "num_inference_steps must be at least 1; given 0"),
        ({"num_inference_steps": 1001}, "The number of steps must be from 1 to 1000; given 1001"),
        ({"num_inference_steps": 1001, "scheduler": "unipc"}, "The number of steps must be from 1 to 1000; given 1001"),
        ({"num_inference_steps": 60, "scheduler": "lcm"}, "LCMScheduler cannot make 60 steps"),
        ({"guidance_scale": -1.0}, r"guidance_scale must be between 0 and 1000; given -1\.0"),
        ({"guidance_scale": float("nan")}, "guidance_scale must be between 0 and 1000; given nan"),
        ({"num_videos_per_prompt": 0}, "num_videos_per_prompt must be at least 1; given 0"),
        ({"seed": -1}, r"seed must be between 0 and 2\*\*63 - 1; given -1"),
        ({"seed": 2**63}, "seed must be between"),
        ({"eta": 1.5}, r"eta must be between 0 and 1; given 1\.5"),
        ({"eta": 0.5, "scheduler": "euler"}, "EulerDiscreteScheduler has no eta; leave it 0 or use the .*'ddim'"),
        ({"motion_strength": float("inf")}, "motion_strength must be a finite number; given inf"),
        ({"fps": 0.0}, "fps must be between 0.01 and 1000; given 0.0"),
        ({"output_type": "gif"}, r"output_type must be one of .'video', 'pil', 'np', 'pt', 'latent'.; given 'gif'"),
        ({"scheduler": "dimm"}, "Unknown scheduler 'dimm'"),
        ({"prompt": []}, "prompt list is empty"),
        ({"prompt": None}, "Give either prompt or prompt_embeds"),
        ({"prompt_embeds": STATES, "negative_prompt_embeds": STATES}, "Give either prompt or prompt_embeds"),
        ({"prompt": [PROMPT] * 3, "negative_prompt": ["green"] * 2}, "3 prompts but 2 negative prompts"),
        ({"negative_prompt": []}, "1 prompts but 0 negative prompts"),
        ({"negative_prompt_embeds": STATES}, "negative_prompt_embeds with prompt_embeds"),
        ({"prompt": None, "prompt_embeds": STATES, "negative_prompt": "green"}, "negative_prompt goes with prompt"),
        ({"negative_prompt": "green", "guidance_scale": 1.0}, "negative prompt has no effect at guidance_scale 1"),
    ],
)
def test_values_that_cannot_be_meant(pipeline: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pipeline(**{"prompt": PROMPT, **arguments})


def test_refused_before_any_step(pipeline: Any) -> None:
    steps = []

    for arguments in ({"fps": -1.0}, {"output_type": "gif"}, {"eta": 0.5, "scheduler": "unipc"}):
        with pytest.raises(ConfigError):
            pipeline(PROMPT, callback_on_step_end=lambda *_: steps.append(1), **arguments)

    assert steps == []


def test_a_model_without_a_size_asks_for_one(make_pipeline: Any) -> None:
    pipeline = make_pipeline()
    pipeline.unet.register_to_config(sample_size=None)

    with pytest.raises(ConfigError, match="give height and width"):
        pipeline(PROMPT, height=16)
    assert pipeline(PROMPT, height=16, width=8, num_frames=2).frames.shape == (2, 16, 8, 3)


def test_a_solver_that_cannot_sample_this_model(make_pipeline: Any) -> None:
    trained = make_scheduler("ddim")
    pipeline = make_pipeline(
        scheduler=type(trained).from_config(  # type: ignore[attr-defined]
            trained.config, prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
        )
    )

    assert pipeline(PROMPT, num_frames=2).frames.shape == (2, 16, 16, 3)
    with pytest.raises(ConfigError, match="'pndm' cannot start from zero signal"):
        pipeline(PROMPT, scheduler="pndm")


def test_a_text_encoder_of_another_width_is_refused(make_pipeline: Callable[..., Any]) -> None:
    pipe = make_pipeline()
    config = pipe.text_encoder.config
    other = type(pipe.text_encoder)(type(config)(**{**config.to_dict(), "hidden_size": 2 * config.hidden_size}))

    with pytest.raises(ConfigError, match=f"states {2 * config.hidden_size} wide; this U-Net takes"):
        AnimateDiffPipeline(**{**pipe.components, "text_encoder": other})
