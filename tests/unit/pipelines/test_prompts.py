"""What prompts say, through whole pipelines: weights, LoRA tags, embeddings, and nothing at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests import tiny_models
from torch import Tensor

from muybridge.errors import CheckpointError, ConfigError
from muybridge.pipelines import AnimateDiffPipeline

PROMPT = "a red circle"
LAYER = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_v"


def latents_of(pipeline: Any, prompt: Any = PROMPT, negative: Any = None, **settings: Any) -> Tensor:
    usual = {"num_inference_steps": 1, "seed": 1, "output_type": "latent"}
    if isinstance(pipeline, AnimateDiffPipeline):
        usual["num_frames"] = 2
    return pipeline(prompt, negative, **{**usual, **settings})


@pytest.fixture(scope="module")
def easyanimate() -> Any:
    return tiny_models.make_easyanimate()


@pytest.fixture(params=["pipeline", "easyanimate"])
def either(request: pytest.FixtureRequest) -> Any:
    """A pipeline of each family, left as it was."""
    return request.getfixturevalue(request.param)


def test_weights_act_in_prompts_and_negatives(either: Any) -> None:
    plain = latents_of(either, PROMPT, "blue")

    assert torch.equal(latents_of(either, "a (red:1.0) circle", "(blue:1.0)"), plain)
    assert not torch.equal(latents_of(either, "a (red:1.6) circle", "blue"), plain)
    assert not torch.equal(latents_of(either, PROMPT, "a (blue:1.6)"), latents_of(either, PROMPT, "a blue"))


@pytest.mark.filterwarnings("ignore:This model's vocabulary")
def test_a_plain_prompt_is_words(either: Any) -> None:
    weighed, plain = "a (red:1.6) circle", r"a \(red:1.6\) circle"
    found = latents_of(either, weighed, plain_prompt=True)
    assert torch.equal(found, latents_of(either, plain))
    assert not torch.equal(found, latents_of(either, weighed))
    video = either("(red)", plain_prompt=True, num_inference_steps=1)
    assert video.request["plain_prompt"] is True
    with pytest.raises(ConfigError, match="plain_prompt is about the prompt"):
        latents_of(either, None, prompt_embeds=torch.zeros(1, 24, 16), plain_prompt=True, guidance_scale=1.0)


def test_weights_in_prompts_by_frame(pipeline: Any) -> None:
    plain = latents_of(pipeline, {0: PROMPT, 1: "blue"})
    assert torch.equal(latents_of(pipeline, {0: "(a red circle:1)", 1: "(blue:1)"}), plain)
    assert not torch.equal(latents_of(pipeline, {0: PROMPT, 1: "a (blue:1.5)"}), plain)
    assert latents_of(pipeline, {0: "", 1: "blue"}).shape == plain.shape


def test_an_empty_prompt_is_what_the_model_does_unguided(either: Any) -> None:
    alone = latents_of(either, "", "", guidance_scale=1.0)
    assert torch.allclose(latents_of(either, "", "", guidance_scale=4.0), alone, atol=1e-5)
    video = either("", "", num_inference_steps=1)
    assert (video.request["prompt"], video.request["negative_prompt"]) == ("", "")
    with pytest.raises(ConfigError, match="either prompt or prompt_embeds"):
        latents_of(either, None)


@pytest.mark.filterwarnings("ignore:This model's vocabulary")
def test_what_does_nothing_is_said(either: Any) -> None:
    with pytest.warns(UserWarning, match="prompt editing in other programs"):
        latents_of(either, "a [red:blue:0.5] circle")


def test_an_embedding_that_is_not_loaded_is_refused(either: Any) -> None:
    with pytest.raises(ConfigError, match="embedding:easy"):
        latents_of(either, "a embedding:easy")
    with pytest.raises(ConfigError, match="embedding:easy"):
        latents_of(either, "a", "embedding:easy")


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    weights = {f"{LAYER}.lora_down.weight": torch.randn(2, 16), f"{LAYER}.lora_up.weight": torch.randn(32, 2)}
    save_file(weights, tmp_path / "ink-wash.v2.safetensors")
    return tmp_path / "ink-wash.v2.safetensors"


def test_a_tag_weighs_a_lora_for_one_call(make_pipeline: Callable[..., Any], lora: Path) -> None:
    pipeline = make_pipeline()
    without = latents_of(pipeline)
    pipeline.load_lora_weights(lora, weight=0.25)
    quarter = latents_of(pipeline)
    pipeline.set_adapters("ink_wash_v2", 0.8)
    strong = latents_of(pipeline)
    pipeline.set_adapters("ink_wash_v2", 0.25)

    video = pipeline(PROMPT + " <lora:ink-wash.v2:0.8>", num_frames=1, num_inference_steps=1)
    assert video.request["model"]["loras"] == {str(lora): 0.8}
    assert torch.equal(latents_of(pipeline, PROMPT + "<lora:ink-wash.v2:0.8>"), strong)
    assert torch.equal(latents_of(pipeline, f"{PROMPT} <lora:ink_wash_v2:0>"), without)
    assert torch.equal(latents_of(pipeline), quarter)

    pipeline.set_adapters([])
    assert torch.equal(latents_of(pipeline, f"{PROMPT} <lora:ink_wash_v2:0.8>"), strong)
    assert torch.equal(latents_of(pipeline), without)
    assert pipeline.get_active_adapters() == []


def test_weights_come_back_when_a_call_fails(make_pipeline: Callable[..., Any], lora: Path) -> None:
    pipeline = make_pipeline()
    pipeline.load_lora_weights(lora, weight=0.25)

    def fail(*_: object) -> dict[str, Tensor]:
        raise StopIteration

    with pytest.raises(StopIteration):
        latents_of(pipeline, f"{PROMPT} <lora:ink-wash.v2:0.8>", callback_on_step_end=fail)
    assert pipeline.lora_settings == {str(lora): 0.25}


def test_tags_that_cannot_act(make_pipeline: Callable[..., Any], lora: Path) -> None:
    pipeline = make_pipeline()
    with pytest.raises(ConfigError, match=r"names the LoRA style; loaded: none.*--lora style\.safetensors"):
        latents_of(pipeline, "a <lora:style:0.8>")
    name = pipeline.load_lora_weights(lora)
    tag = f"<lora:{name}:0.8>"
    for prompt, negative, message in (
        ("a", tag, "negative prompt names the LoRA"),
        ([f"a {tag}", "a"], None, "Some of the prompts name"),
        ([f"a {tag}", f"a <lora:{name}:1>"], None, "several weights"),
        (f"a {tag} <lora:ink-wash.v2:0.8>", None, "named twice"),
    ):
        with pytest.raises(ConfigError, match=message):
            latents_of(pipeline, prompt, negative)
    expected = latents_of(pipeline, {0: f"a {tag}", 1: f"red {tag}"})
    assert torch.equal(latents_of(pipeline, {0: f"a {tag}", 1: "red"}), expected)
    pipeline.disable_lora()
    with pytest.raises(ConfigError, match="enable_lora"):
        latents_of(pipeline, f"a {tag}")
    pipeline.enable_lora()
    pipeline.fuse_lora()
    with pytest.raises(ConfigError, match="unfuse_lora"):
        latents_of(pipeline, f"a {tag}")


def test_embeddings_are_loaded_named_and_taken_out(make_pipeline: Callable[..., Any], tmp_path: Path) -> None:
    pipeline = make_pipeline()
    ids = pipeline.tokenizer("red circle", add_special_tokens=False).input_ids
    vectors = pipeline.text_encoder.get_input_embeddings().weight[ids].detach().clone()
    torch.save({"<toy>": vectors}, tmp_path / "doll.bin")
    plain, path = latents_of(pipeline), str(tmp_path / "doll.bin")

    assert pipeline.load_embedding(path) == "doll"

    for prompt in ("a doll", "a <toy>", "a embedding:DOLL"):
        assert torch.equal(latents_of(pipeline, prompt), plain)
    video = pipeline("a", "a doll", num_frames=1, num_inference_steps=1)
    assert video.request["model"]["embeddings"] == {path: "doll"}
    assert pipeline("a", num_frames=1, num_inference_steps=1).request["model"].get("embeddings") is None
    for again in ({}, {"name": "other"}):
        with pytest.raises(ConfigError, match="already"):
            pipeline.load_embedding(path, **again)
    pipeline.save_pretrained(tmp_path / "saved")
    saved = AnimateDiffPipeline.from_pretrained(tmp_path / "saved")
    assert torch.equal(
        saved.text_encoder.get_input_embeddings().weight, pipeline.text_encoder.get_input_embeddings().weight
    )
    with pytest.raises(ConfigError, match="no embedding toy; loaded: doll"):
        pipeline.unload_embedding("toy")
    pipeline.unload_embedding()
    with pytest.raises(ConfigError, match="loaded: none"):
        latents_of(pipeline, "a embedding:doll")
    assert torch.equal(latents_of(pipeline), plain)


def test_an_embedding_of_another_width_is_refused(pipeline: Any, tmp_path: Path) -> None:
    save_file({"emb_params": torch.ones(1, 1024)}, tmp_path / "sd2.safetensors")
    with pytest.raises(CheckpointError, match=r"1024 wide \(Stable Diffusion 2\).*take vectors 16 wide"):
        pipeline.load_embedding(tmp_path / "sd2.safetensors")
