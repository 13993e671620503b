"""What a call gives back."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL.Image import Image
from torch import Tensor

from muybridge.conditioning.text import encode_prompts
from muybridge.request import Request
from muybridge.sampling import draw_noise, scheduler_names, video_generators
from muybridge.types import LatentShape
from muybridge.video import Video

# diffusers hands tensors to numpy in a way that numpy will give up.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PROMPT = "a red circle moving left"
OTHER = "a large blue heart"


def run(pipeline: Any, prompt: Any = PROMPT, **options: Any) -> Any:
    return pipeline(prompt, **{"num_frames": 4, "seed": 1, **options})


def test_one_prompt_gives_a_video(pipeline: Any) -> None:
    video = run(pipeline, fps=12.0)

    assert isinstance(video, Video)
    assert video.frames.shape == (4, 16, 16, 3)
    assert video.fps == 12.0
    assert video.frames.std() > 10


def test_several_give_a_list(pipeline: Any) -> None:
    videos = run(pipeline, [PROMPT, OTHER], num_videos_per_prompt=2)

    assert [video.request["prompt"] for video in videos] == [PROMPT, PROMPT, OTHER, OTHER]
    assert [video.request["sampling"]["seed"] for video in videos] == [1, 2, 3, 4]
    assert isinstance(run(pipeline, [PROMPT]), list)
    assert len(run(pipeline, num_videos_per_prompt=2)) == 2
    assert len(run(pipeline, (PROMPT,))) == 1


def test_output_types_are_the_same_video(pipeline: Any) -> None:
    video, pictures, array, tensor = (run(pipeline, output_type=kind) for kind in ("video", "pil", "np", "pt"))

    assert isinstance(pictures[0][0], Image)
    assert len(pictures) == 1
    assert np.array_equal(np.stack([np.asarray(picture) for picture in pictures[0]]), video.frames)
    assert array.shape == (1, 4, 16, 16, 3)
    assert array.dtype == np.float32
    assert array.min() >= 0
    assert array.max() <= 1
    assert np.array_equal((array[0] * 255).round().astype(np.uint8), video.frames)
    assert tensor.shape == (1, 4, 3, 16, 16)
    assert torch.equal(tensor.movedim(2, -1), torch.from_numpy(array))


def test_latents_can_be_asked_for(pipeline: Any) -> None:
    latents = run(pipeline, [PROMPT, OTHER], output_type="latent")

    assert latents.shape == (2, 4, 4, 8, 8)
    assert latents.dtype == torch.float32


def test_size_is_what_was_asked_for_or_what_the_model_was_trained_at(pipeline: Any) -> None:
    assert pipeline.scale_factors.spatial == 2
    assert run(pipeline, height=10, width=24).frames.shape == (4, 10, 24, 3)
    assert run(pipeline, height=8).frames.shape == (4, 8, 16, 3)
    assert run(pipeline, num_frames=1).frames.shape == (1, 16, 16, 3)


def test_same_seed_same_video_whatever_torchs_own_state(pipeline: Any) -> None:
    torch.manual_seed(1)
    first = run(pipeline, output_type="pt")
    torch.manual_seed(2)

    assert torch.equal(run(pipeline, output_type="pt"), first)
    assert not torch.allclose(run(pipeline, seed=2, output_type="pt"), first, atol=0.01)


@pytest.mark.parametrize("solver", [{}, {"eta": 1.0}, {"scheduler": "euler-a"}, {"scheduler": "lcm"}])
def test_a_video_is_the_same_alone_and_in_a_batch(pipeline: Any, solver: dict[str, Any]) -> None:
    batch = run(pipeline, [PROMPT, OTHER], num_videos_per_prompt=2, output_type="latent", **solver)

    for index, prompt in enumerate([PROMPT, PROMPT, OTHER, OTHER]):
        alone = run(pipeline, prompt, seed=1 + index, output_type="latent", **solver)
        assert float((batch[index] - alone[0]).abs().max() / alone.abs().max()) < 1e-4


def test_a_solver_does_not_draw_the_starting_noise_again(pipeline: Any) -> None:
    # If it did, the noise of the first step would be that of the start, and taking both away would leave little.
    start = draw_noise(video_generators(1, 1), LatentShape(4, 4, 8, 8))
    latents: list[Tensor] = []

    def keep(_pipe: Any, _step: int, _timestep: Tensor, tensors: dict[str, Tensor]) -> None:
        latents.append(tensors["latents"])

    for eta in (0.0, 1.0):
        run(pipeline, eta=eta, num_inference_steps=10, guidance_scale=1.0, callback_on_step_end=keep)
    added = latents[10] - latents[0]  # with eta 1 noise is added, and less of the prediction

    correlation = torch.corrcoef(torch.stack([added.flatten(), start.flatten()]))[0, 1]
    assert abs(float(correlation)) < 0.5


def test_a_random_seed_is_recorded_and_repeats(pipeline: Any) -> None:
    first, second = run(pipeline, seed=None), run(pipeline, seed=None)

    assert first.request["sampling"]["seed"] != second.request["sampling"]["seed"]
    assert np.array_equal(run(pipeline, seed=first.request["sampling"]["seed"]).frames, first.frames)


def test_the_request_repeats_each_video(pipeline: Any) -> None:
    settings: dict[str, Any] = {"height": 8, "num_inference_steps": 2, "guidance_scale": 3.0, "eta": 0.5}
    videos = run(pipeline, [PROMPT, OTHER], negative_prompt=["green", "a cyan ring"], motion_strength=0.5, **settings)
    for video in videos:
        record = json.loads(json.dumps(video.request))
        request = Request.parse({name: record[name] for name in Request.model_fields if name in record})
        again = pipeline.make(request)
        assert np.abs(again.frames.astype(int) - video.frames).max() <= 1
        assert again.request == video.request
    assert [video.request["negative_prompt"] for video in videos] == ["green", "a cyan ring"]


def test_the_request_says_what_it_cannot_repeat(pipeline: Any) -> None:
    plain = run(pipeline)
    noise = draw_noise(video_generators(1, 1), LatentShape(4, 4, 8, 8))
    given = run(pipeline, latents=noise, callback_on_step_end=lambda *_: None)

    assert plain.request["made"]["unrecorded"] == []
    assert plain.request["made"]["interrupted"] is False
    assert plain.request["made"]["dtype"] == "float32"
    assert set(plain.request["made"]["versions"]) == {"muybridge", "torch", "diffusers"}
    assert given.request["made"]["unrecorded"] == ["latents", "callback_on_step_end"]


def test_defaults_are_those_of_the_model(pipeline: Any) -> None:
    request = run(pipeline).request["sampling"]

    assert (request["num_inference_steps"], request["guidance_scale"]) == (3, 5.0)
    assert np.array_equal(run(pipeline).frames, run(pipeline, num_inference_steps=3, guidance_scale=5.0).frames)


@pytest.mark.parametrize("solver", [{}, {"eta": 1.0}, {"scheduler": "euler"}])
def test_given_latents_stand_for_the_noise(pipeline: Any, solver: dict[str, Any]) -> None:
    noise = draw_noise(video_generators(1, 1), LatentShape(4, 4, 8, 8))

    assert np.array_equal(run(pipeline, latents=noise, **solver).frames, run(pipeline, **solver).frames)


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_given_text_states_stand_for_the_prompts(pipeline: Any, scale: float) -> None:
    negatives = ["green"] if scale != 1 else None
    states = encode_prompts(pipeline.tokenizer, pipeline.text_encoder, [PROMPT], negatives)

    given = run(
        pipeline, None, guidance_scale=scale, prompt_embeds=states.positive, negative_prompt_embeds=states.negative
    )

    expected = run(pipeline, guidance_scale=scale, negative_prompt=negatives)
    assert np.array_equal(given[0].frames, expected.frames)
    assert given[0].request["prompt"] is None
    assert "prompt_embeds" in given[0].request["made"]["unrecorded"]


def test_the_prompts_matter(pipeline: Any) -> None:
    plain = run(pipeline, output_type="latent")

    assert not torch.allclose(run(pipeline, OTHER, output_type="latent"), plain, atol=1e-3)
    assert not torch.allclose(run(pipeline, negative_prompt=OTHER, output_type="latent"), plain, atol=1e-3)
    assert torch.equal(run(pipeline, negative_prompt="", output_type="latent"), plain)


def test_one_negative_is_for_all(pipeline: Any) -> None:
    one = run(pipeline, [PROMPT, OTHER], negative_prompt="green")
    each = run(pipeline, [PROMPT, OTHER], negative_prompt=["green", "green"])

    assert all(np.array_equal(a.frames, b.frames) for a, b in zip(one, each, strict=True))
    assert [video.request["negative_prompt"] for video in one] == ["green", "green"]


def test_guidance_in_one_batch_or_two_calls(pipeline: Any) -> None:
    together, apart = (run(pipeline, batched_guidance=batched, output_type="latent") for batched in (True, False))

    assert float((together - apart).abs().max() / apart.abs().max()) < 1e-4


@pytest.mark.parametrize("name", scheduler_names())
def test_every_scheduler_runs(pipeline: Any, name: str) -> None:
    latents = run(pipeline, scheduler=name, num_inference_steps=4, output_type="latent")

    assert bool(latents.isfinite().all())
    assert float(latents.std()) > 0.1


def test_another_scheduler_does_not_stay(pipeline: Any) -> None:
    before = run(pipeline).frames
    own = pipeline.scheduler

    run(pipeline, scheduler="euler")

    assert pipeline.scheduler is own
    assert np.array_equal(run(pipeline).frames, before)


def test_half_precision_runs(make_pipeline: Any) -> None:
    pipeline = make_pipeline()
    expected = run(pipeline, output_type="latent")
    pipeline.to("cpu", torch.bfloat16)

    latents = run(pipeline, output_type="latent")

    assert latents.dtype == torch.float32
    assert float((latents - expected).norm() / expected.norm()) < 0.2
    assert run(pipeline).request["made"]["dtype"] == "bfloat16"


def test_long_prompts_run(pipeline: Any) -> None:
    assert run(pipeline, " ".join([PROMPT] * 6), negative_prompt="green").frames.shape == (4, 16, 16, 3)
