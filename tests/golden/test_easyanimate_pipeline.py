"""Equality with EasyAnimate's pipeline: conditions, text, guidance, solvers and decoding, on small random weights."""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    T5Config,
    T5EncoderModel,
)

from muybridge.backbones.dit import Transformer3DModel
from muybridge.conditioning.kinds.start_noise import StartNoise
from muybridge.conditioning.kinds.text_states import TextStates
from muybridge.conditioning.pinned import PinnedVideo
from muybridge.conditioning.prepared import Prepared
from muybridge.conditioning.text import EncodedPrompts
from muybridge.pipelines import EasyAnimatePipeline
from muybridge.request import Condition, Request, Sampling, Shape, register_condition
from muybridge.sampling import make_plain_scheduler
from muybridge.sampling.schedulers import EASYANIMATE_BETAS
from muybridge.vae import AutoencoderKLMagvit

CASE = "easyanimate_v3_pipeline_small"
RUNS = ("i2v_ddim", "i2v_dpm", "i2v_euler", "t2v_euler")
SOLVERS = {"ddim": "ddim", "dpm": "dpm++2m", "euler": "euler"}


def part(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    prefix = f"weights/{name}."
    return {k.removeprefix(prefix): v.float() for k, v in tensors.items() if k.startswith(prefix)}


def error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.fixture(scope="module")
def case(golden: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    return golden(CASE)


@pytest.fixture(scope="module")
def pipeline(case: Any, tmp_path_factory: pytest.TempPathFactory) -> EasyAnimatePipeline:
    tensors, meta = case
    config, folder = meta["config"], tmp_path_factory.mktemp("easyanimate")
    for name in ("transformer", "vae"):
        (folder / name).mkdir()
        save_file(part(tensors, name), folder / name / "diffusion_pytorch_model.safetensors")
        (folder / name / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKLMagvit", **config[name]}))
    text_encoder = T5EncoderModel(T5Config(**config["text_encoder_T5Config"]))
    weights = part(tensors, "text_encoder")
    text_encoder.load_state_dict({**weights, "encoder.embed_tokens.weight": weights["shared.weight"]})
    image_encoder = CLIPVisionModelWithProjection(CLIPVisionConfig(**config["image_encoder_CLIPVisionConfig"]))
    image_encoder.load_state_dict(part(tensors, "image_encoder"), strict=False)
    pipe = EasyAnimatePipeline(
        vae=AutoencoderKLMagvit.from_pretrained(folder / "vae").eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=None,  # type: ignore[arg-type]  # the case has token ids
        transformer=Transformer3DModel.from_pretrained(folder / "transformer"),
        scheduler=make_plain_scheduler("euler", EASYANIMATE_BETAS),  # type: ignore[arg-type]
        image_encoder=image_encoder.eval(),
        image_processor=CLIPImageProcessorPil(),
        default_size=(48, 64),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def encoded(pipeline: EasyAnimatePipeline, tensors: dict[str, Tensor]) -> EncodedPrompts:
    states = {}
    for name in ("prompt", "negative"):
        ids, mask = (tensors[f"inputs/{name}.{kind}"] for kind in ("input_ids", "attention_mask"))
        with torch.no_grad():
            states[name] = pipeline.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    masks = [tensors[f"inputs/{name}.attention_mask"].float() for name in ("prompt", "negative")]
    return EncodedPrompts(states["prompt"], states["negative"], *masks)


@register_condition("recorded-pixels")
class RecordedPixels(Condition):
    """Pixels that were recorded with the case."""

    pinned: Any

    def prepare(self, parts: Any, task: Any) -> Prepared:
        """As they are."""
        del parts, task
        return Prepared(pinned=self.pinned)


def request_of(tensors: dict[str, Tensor], run: dict[str, Any], text: EncodedPrompts) -> Request:
    conditions: list[Condition] = [
        TextStates(
            prompt_embeds=text.positive,
            negative_prompt_embeds=text.negative,
            prompt_mask=text.positive_mask,
            negative_prompt_mask=text.negative_mask,
        ),
        StartNoise(latents=tensors["inputs/latents"]),
    ]
    if run["mode"] == "i2v":
        frames = (tensors["inputs/video"][0] * 255).round().to(torch.uint8).permute(1, 2, 3, 0).numpy()
        picture = Image.fromarray(tensors["inputs/clip_image_uint8"].numpy())
        pinned = PinnedVideo(frames, tensors["inputs/mask_video"][0, 0].numpy() > 127, picture)
        conditions.append(RecordedPixels(pinned=pinned))
    return Request(
        shape=Shape(num_frames=16, height=48, width=64),
        sampling=Sampling(
            seed=0,
            num_inference_steps=run["steps"],
            guidance_scale=run["guidance_scale"],
            scheduler=SOLVERS[run["scheduler"]],
            clip_apply_ratio=run["clip_apply_ratio"] if run["mode"] == "i2v" else None,
            profile="reference",
        ),
        conditions=tuple(conditions),
    )


def test_text_states_equal_the_original(pipeline: EasyAnimatePipeline, case: Any) -> None:
    tensors, _ = case
    found = encoded(pipeline, tensors)
    assert found.negative is not None
    assert error(found.positive, tensors["outputs/prompt_embeds"]) <= 1e-5
    assert error(found.negative, tensors["outputs/negative_embeds"]) <= 1e-5


@pytest.mark.parametrize("name", RUNS)
def test_runs_equal_the_original(pipeline: EasyAnimatePipeline, case: Any, name: str) -> None:
    tensors, meta = case
    run = meta["runs"][name]
    expected = {k.removeprefix(f"outputs/{name}/"): v for k, v in tensors.items() if k.startswith(f"outputs/{name}/")}
    after: list[Tensor] = []
    timesteps: list[float] = []
    first: list[Tensor] = []
    masks: list[Any] = []

    def keep(_pipe: object, _index: int, timestep: Tensor, values: dict[str, Tensor]) -> None:
        after.append(values["latents"])
        timesteps.append(float(timestep))

    def watch(_module: object, _arguments: object, given: dict[str, Any], output: Any) -> None:
        first.append(output.sample)
        masks.append(given.get("clip_attention_mask"))

    request = request_of(tensors, run, encoded(pipeline, tensors))
    hook = pipeline.transformer.register_forward_hook(watch, with_kwargs=True)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # diffusers' Euler hands an array of one number to numpy where it wants a number.
            warnings.filterwarnings("ignore", category=DeprecationWarning, module="diffusers")
            video = pipeline.make(request, output_type="pt", callback_on_step_end=keep)
    finally:
        hook.remove()
    assert np.allclose(timesteps, expected["timesteps"].numpy())
    assert error(first[0], expected["noise_pred_raw_each_step"][0]) <= 1e-5
    assert error(torch.stack(after), expected["latents_after_each_step"].view_as(torch.stack(after))) <= 1e-3
    if run["mode"] == "i2v":
        wanted = expected["clip_attention_mask_each_step"]
        assert all(torch.equal(mask, row.view_as(mask)) for mask, row in zip(masks, wanted, strict=True))
    if "video" in expected:
        assert error(video.transpose(1, 2), expected["video"].view_as(video.transpose(1, 2))) <= 1e-3
