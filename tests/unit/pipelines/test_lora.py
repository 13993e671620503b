"""LoRAs on whole pipelines of both families: equal to changed weights, mixed, fused, unloaded without a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests import tiny_models
from torch import Tensor, nn

from muybridge.errors import CheckpointError, ConfigError
from muybridge.motion import MotionAdapter, TemporalConfig
from muybridge.pipelines import AnimateDiffPipeline, EasyAnimatePipeline

PipelineMaker = Callable[..., AnimateDiffPipeline]
AnyPipeline = AnimateDiffPipeline | EasyAnimatePipeline
RANK = 3

UNET_LAYERS = {
    "lora_unet_conv_in": "conv_in",
    "lora_unet_down_blocks_0_resnets_0_conv1": "down_blocks.0.resnets.0.conv1",
    "lora_unet_down_blocks_0_resnets_0_time_emb_proj": "down_blocks.0.resnets.0.time_emb_proj",
    "lora_unet_down_blocks_0_downsamplers_0_conv": "down_blocks.0.downsamplers.0.conv",
    "lora_unet_down_blocks_0_attentions_0_proj_in": "down_blocks.0.attentions.0.proj_in",
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q": (
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    ),
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_v": (
        "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v"
    ),
    "lora_unet_up_blocks_1_attentions_1_transformer_blocks_0_attn1_to_out_0": (
        "up_blocks.1.attentions.1.transformer_blocks.0.attn1.to_out.0"
    ),
    "lora_unet_up_blocks_1_attentions_1_transformer_blocks_0_ff_net_0_proj": (
        "up_blocks.1.attentions.1.transformer_blocks.0.ff.net.0.proj"
    ),
    "lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_2": (
        "mid_block.attentions.0.transformer_blocks.0.ff.net.2"
    ),
}
CLIP_LAYERS = {
    "lora_te_text_model_encoder_layers_0_self_attn_q_proj": "encoder.layers.0.self_attn.q_proj",
    "lora_te_text_model_encoder_layers_1_self_attn_out_proj": "encoder.layers.1.self_attn.out_proj",
    "lora_te_text_model_encoder_layers_1_mlp_fc1": "encoder.layers.1.mlp.fc1",
}
DIT_LAYERS = {
    "lora_unet__adaln_single_linear": "adaln_single.linear",
    "lora_unet__adaln_single_emb_timestep_embedder_linear_1": "adaln_single.emb.timestep_embedder.linear_1",
    "lora_unet__caption_projection_linear_1": "caption_projection.linear_1",
    "lora_unet__clip_projection_linear_2": "clip_projection.linear_2",
    "lora_unet__long_connect_fc_0": "long_connect_fc.0",
    "lora_unet__proj_out": "proj_out",
    "lora_unet__transformer_blocks_0_attn1_to_q": "transformer_blocks.0.attn1.to_q",
    "lora_unet__transformer_blocks_3_attn2_to_out_0": "transformer_blocks.3.attn2.to_out.0",
    "lora_unet__transformer_blocks_2_ff_net_0_proj": "transformer_blocks.2.ff.net.0.proj",
}
DIT_MOTION_LAYERS = {
    "lora_unet__transformer_blocks_1_attn_temporal_temporal_transformer_proj_out": (
        "transformer_blocks.1.attn_temporal.proj_out"
    ),
    "lora_unet__transformer_blocks_1_attn_temporal_temporal_transformer_transformer_blocks_0_attention_blocks_1_to_k": (
        "transformer_blocks.1.attn_temporal.transformer_blocks.0.attention_blocks.1.to_k"
    ),
}
T5_LAYERS = {
    "lora_te_encoder_block_0_layer_0_SelfAttention_q": "encoder.block.0.layer.0.SelfAttention.q",
    "lora_te_encoder_block_0_layer_1_DenseReluDense_wo": "encoder.block.0.layer.1.DenseReluDense.wo",
}


def make_easyanimate() -> EasyAnimatePipeline:
    return tiny_models.make_easyanimate(drawn=("adapter", "transformer"), clip_channels=8, clip_tokens=2)


def base_weight(network: nn.Module, name: str) -> Tensor:
    layer = network.get_submodule(name)
    weight: Tensor = getattr(layer, "base_layer", layer).get_parameter("weight")
    return weight


def factors(network: nn.Module, name: str, seed: int = 0, rank: int = RANK) -> tuple[Tensor, Tensor]:
    """`down` and `up` of a random change that is large enough to be seen."""
    shape = base_weight(network, name).shape
    random = torch.Generator().manual_seed(100 * seed + len(name))
    down = torch.randn(rank, *shape[1:], generator=random) * 0.2
    return down, torch.randn(shape[0], rank, *(1,) * (len(shape) - 2), generator=random) * 0.2


def change_of(down: Tensor, up: Tensor) -> Tensor:
    """The product `up @ down` as a weight, one output and one rank at a time."""
    total = torch.zeros(up.shape[0], *down.shape[1:], dtype=torch.float64)
    for out in range(up.shape[0]):
        for rank in range(down.shape[0]):
            total[out] += up[out, rank].double().reshape(()) * down[rank].double()
    return total


def write_kohya(
    path: Path, networks: Iterable[tuple[nn.Module, dict[str, str]]], alpha: float | None = 1.5, seed: int = 0
) -> dict[str, tuple[Tensor, Tensor]]:
    """A file of random changes; returns the factors by name of the layer."""
    content, made = {}, {}
    for network, layers in networks:
        for key, name in layers.items():
            down, up = made[name] = factors(network, name, seed)
            content |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
            if alpha is not None:
                content[f"{key}.alpha"] = torch.tensor(alpha)
    save_file(content, path)
    return made


def changed_by_hand(network: nn.Module, made: dict[str, tuple[Tensor, Tensor]], scale: float) -> None:
    """W + scale * up @ down, written into the weights."""
    with torch.no_grad():
        for name, (down, up) in made.items():
            if any(name == own for own, _ in network.named_modules()):
                weight = base_weight(network, name)
                weight.copy_((weight.double() + scale * change_of(down, up)).to(weight.dtype))


def predict(pipeline: AnyPipeline, num_frames: int = 3, **options: Any) -> Tensor:
    """One call of the backbone, in eval mode, with everything it takes."""
    backbone = pipeline.backbone
    random = torch.Generator().manual_seed(5)
    if isinstance(pipeline, AnimateDiffPipeline):
        inputs = [torch.randn(1, 4, num_frames, 8, 8, generator=random), torch.randn(1, 5, 16, generator=random)]
        conditions: dict[str, Any] = {"encoder_hidden_states": inputs[1]}
    else:
        inputs = [torch.randn(1, 4, num_frames, 8, 8, generator=random), torch.randn(1, 5, 16, generator=random)]
        conditions = {
            "encoder_hidden_states": inputs[1],
            "inpaint_latents": torch.randn(1, 8, num_frames, 8, 8, generator=random),
            "clip_encoder_hidden_states": torch.randn(1, 8, generator=random),
        }
    with torch.no_grad():
        return backbone(inputs[0], torch.tensor(500), **conditions, **options).sample


def encode(pipeline: AnyPipeline) -> Tensor:
    with torch.no_grad():
        return pipeline.text_encoder(torch.arange(6)[None]).last_hidden_state


def assert_close(given: Tensor, wanted: Tensor, tolerance: float = 2e-5) -> None:
    assert (given - wanted).abs().max() <= tolerance * wanted.abs().max()


def snapshot(pipeline: AnyPipeline) -> dict[str, Tensor]:
    networks = {"backbone": pipeline.backbone, "text": pipeline.text_encoder}
    return {f"{n}.{k}": v.clone() for n, network in networks.items() for k, v in network.state_dict().items()}


def assert_unchanged(pipeline: AnyPipeline, before: dict[str, Tensor]) -> None:
    after = snapshot(pipeline)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)


Family = tuple[Callable[[], AnyPipeline], dict[str, str], dict[str, str]]


@pytest.fixture(params=["animatediff", "easyanimate"])
def family(request: pytest.FixtureRequest, make_pipeline: PipelineMaker) -> Family:
    """A maker of pipelines, and layers of backbone and text encoder, as files call them and as they are called here."""
    if request.param == "animatediff":
        return make_pipeline, UNET_LAYERS, CLIP_LAYERS
    return make_easyanimate, DIT_LAYERS | DIT_MOTION_LAYERS, T5_LAYERS


def kohya_file(path: Path, pipeline: AnyPipeline, layers: Sequence[dict[str, str]], **options: Any) -> Any:
    return write_kohya(path, [(pipeline.backbone, layers[0]), (pipeline.text_encoder, layers[1])], **options)


def test_kohya_equals_changed_weights(family: Family, tmp_path: Path) -> None:
    make, *layers = family
    pipeline, by_hand = make(), make()
    made = kohya_file(tmp_path / "a.safetensors", pipeline, layers, alpha=1.5)
    before, text_before = predict(pipeline), encode(pipeline)
    pipeline.load_lora_weights(tmp_path / "a.safetensors", weight=0.8)
    for network in (by_hand.backbone, by_hand.text_encoder):
        changed_by_hand(network, made, 0.8 * 1.5 / RANK)
    assert_close(predict(pipeline), predict(by_hand))
    assert_close(encode(pipeline), encode(by_hand))
    assert (predict(pipeline) - before).abs().max() > 0.01 * before.abs().max()
    assert (encode(pipeline) - text_before).abs().max() > 0.01 * text_before.abs().max()


def test_each_layer_is_the_one_that_is_named(family: Family, tmp_path: Path) -> None:
    """One layer at a time, so that no two can have been exchanged."""
    make, backbone_layers, _ = family
    pipeline = make()
    for key, name in backbone_layers.items():
        made = write_kohya(tmp_path / "one.safetensors", [(pipeline.backbone, {key: name})], alpha=None)
        own = base_weight(pipeline.backbone, name).double()
        pipeline.load_lora_weights(tmp_path / "one.safetensors")
        pipeline.fuse_lora()
        assert_close(base_weight(pipeline.backbone, name).double(), own + change_of(*made[name]), 1e-6)
        pipeline.unload_lora_weights()


def test_official_mode_passes_alphas_over(make_pipeline: PipelineMaker, tmp_path: Path) -> None:
    pipeline, by_hand = make_pipeline(), make_pipeline()
    made = write_kohya(tmp_path / "a.safetensors", [(pipeline.unet, UNET_LAYERS)], alpha=1.0)
    pipeline.load_lora_weights(tmp_path / "a.safetensors", lora_alpha_mode="official")
    changed_by_hand(by_hand.unet, made, 1.0)
    assert_close(predict(pipeline), predict(by_hand))
    with pytest.raises(ConfigError, match="EasyAnimate's own program scales by alpha"):
        make_easyanimate().load_lora_weights(tmp_path / "a.safetensors", lora_alpha_mode="official")


def test_two_loras_with_weights(family: Family, tmp_path: Path) -> None:
    make, *layers = family
    pipeline, by_hand = make(), make()
    made = [kohya_file(tmp_path / f"{n}.safetensors", pipeline, layers, seed=n) for n in (0, 1)]
    assert pipeline.load_lora_weights(tmp_path / "0.safetensors", "first") == "first"
    assert pipeline.load_lora_weights(tmp_path / "1.safetensors") == "1"
    assert pipeline.get_active_adapters() == ["first", "1"]
    pipeline.set_adapters(["first", "1"], [0.25, -0.5])
    for network in (by_hand.backbone, by_hand.text_encoder):
        changed_by_hand(network, made[0], 0.25 * 0.5)
        changed_by_hand(network, made[1], -0.5 * 0.5)
    mixed = predict(pipeline)
    assert_close(mixed, predict(by_hand))
    assert_close(encode(pipeline), encode(by_hand))
    pipeline.set_adapters("1")
    assert pipeline.get_active_adapters() == ["1"]
    alone = make()
    changed_by_hand(alone.backbone, made[1], -0.5 * 0.5)
    assert_close(predict(pipeline), predict(alone))
    pipeline.unload_lora_weights("first")
    assert_close(predict(pipeline), predict(alone))
    assert pipeline.get_list_adapters() == {"backbone": ["1"], "text_encoder": ["1"]}


def test_off_and_on(family: Family, tmp_path: Path) -> None:
    make, *layers = family
    pipeline = make()
    kohya_file(tmp_path / "a.safetensors", pipeline, layers)
    without = predict(pipeline)
    pipeline.load_lora_weights(tmp_path / "a.safetensors")
    with_lora = predict(pipeline)
    pipeline.disable_lora()
    assert pipeline.get_active_adapters() == []
    assert torch.equal(predict(pipeline), without)
    pipeline.enable_lora()
    assert torch.equal(predict(pipeline), with_lora)


def test_fusing_leaves_no_drift(family: Family, tmp_path: Path) -> None:
    make, *layers = family
    pipeline = make()
    before, without = snapshot(pipeline), predict(pipeline)
    kohya_file(tmp_path / "0.safetensors", pipeline, layers)
    kohya_file(tmp_path / "1.safetensors", pipeline, layers, seed=1)
    for n in (0, 1):
        pipeline.load_lora_weights(tmp_path / f"{n}.safetensors", weight=0.7)
    loose, loose_text = predict(pipeline), encode(pipeline)
    for _ in range(3):
        pipeline.fuse_lora()
        assert snapshot(pipeline).keys() == before.keys()
        assert_close(predict(pipeline), loose)
        assert_close(encode(pipeline), loose_text)
        pipeline.unfuse_lora()
        assert torch.equal(predict(pipeline), loose)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    assert_unchanged(pipeline, before)
    assert torch.equal(predict(pipeline), without)
    assert not hasattr(pipeline.backbone, "peft_config")


def test_bfloat16_fuses_in_float32_and_unfuses_exactly(family: Family, tmp_path: Path) -> None:
    make, backbone_layers, _ = family
    pipeline = make()
    torch.nn.Module.to(pipeline.backbone, torch.bfloat16)
    before = snapshot(pipeline)
    made = write_kohya(tmp_path / "a.safetensors", [(pipeline.backbone, backbone_layers)], alpha=None)
    pipeline.load_lora_weights(tmp_path / "a.safetensors")
    pipeline.fuse_lora()
    for name, pair in made.items():
        down, up = (factor.bfloat16().float() for factor in pair)
        exact = before[f"backbone.{name}.weight"].double() + change_of(down, up)
        error = (base_weight(pipeline.backbone, name).double() - exact).abs()
        assert (error <= 2**-8 * exact.abs() + 1e-6).all()  # half a unit in the last place: rounded once
    pipeline.unload_lora_weights()
    assert_unchanged(pipeline, before)


def test_unfusing_follows_a_move_of_the_model(make_pipeline: PipelineMaker, tmp_path: Path) -> None:
    pipeline = make_pipeline()
    before = snapshot(pipeline)
    write_kohya(tmp_path / "a.safetensors", [(pipeline.unet, UNET_LAYERS)])
    pipeline.load_lora_weights(tmp_path / "a.safetensors")
    pipeline.fuse_lora()
    nn.Module.to(pipeline.unet, torch.float64)
    pipeline.unfuse_lora()
    assert {parameter.dtype for parameter in pipeline.unet.parameters()} == {torch.float64}
    pipeline.unload_lora_weights()
    nn.Module.to(pipeline.unet, torch.float32)
    assert_unchanged(pipeline, before)


def test_unloading_gives_back_the_very_modules(family: Family, tmp_path: Path) -> None:
    make, *layers = family
    pipeline = make()
    modules = dict(pipeline.backbone.named_modules())
    trainable = {name: parameter.requires_grad for name, parameter in pipeline.backbone.named_parameters()}
    kohya_file(tmp_path / "a.safetensors", pipeline, layers)
    pipeline.load_lora_weights(tmp_path / "a.safetensors")
    pipeline.unload_lora_weights()
    after = dict(pipeline.backbone.named_modules())
    assert list(after) == list(modules)
    assert all(after[name] is modules[name] for name in modules)
    assert {name: parameter.requires_grad for name, parameter in pipeline.backbone.named_parameters()} == trainable


def test_a_lora_of_the_image_model_acts_on_every_frame(make_pipeline: PipelineMaker, tmp_path: Path) -> None:
    pipeline = make_pipeline()
    write_kohya(tmp_path / "a.safetensors", [(pipeline.unet, UNET_LAYERS)])
    still = predict(pipeline, motion_strength=0.0)
    pipeline.load_lora_weights(tmp_path / "a.safetensors")
    together = predict(pipeline, motion_strength=0.0)
    assert (together - still).abs().max() > 0.01 * still.abs().max()
    sample = torch.randn(1, 4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    text = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        video = pipeline.unet(sample, 500, text, motion_strength=0.0).sample
    pipeline.remove_motion_adapter()
    with torch.no_grad():
        frames = [pipeline.unet(sample[:, :, n : n + 1], 500, text).sample for n in range(3)]
    assert_close(torch.cat(frames, dim=2), video)


def test_a_lora_of_the_image_transformer_acts_on_video(tmp_path: Path) -> None:
    pipeline = make_easyanimate()
    write_kohya(tmp_path / "a.safetensors", [(pipeline.transformer, DIT_LAYERS)])
    moving = predict(pipeline)
    still = predict(pipeline, motion_strength=0.0)
    pipeline.load_lora_weights(tmp_path / "a.safetensors")
    assert (predict(pipeline) - moving).abs().max() > 0.01 * moving.abs().max()
    changed = predict(pipeline, motion_strength=0.0)
    assert (changed - still).abs().max() > 0.01 * still.abs().max()


def test_generating_with_a_lora(make_pipeline: PipelineMaker, tmp_path: Path) -> None:
    pipeline = make_pipeline()
    kohya_file(tmp_path / "a.safetensors", pipeline, (UNET_LAYERS, CLIP_LAYERS))
    options: dict[str, Any] = {"seed": 1, "num_frames": 2, "num_inference_steps": 2, "output_type": "latent"}
    without = pipeline("a red circle", **options)
    pipeline.load_lora_weights(tmp_path / "a.safetensors")
    with_lora = pipeline("a red circle", **options)
    assert (with_lora - without).abs().max() > 1e-2
    pipeline.fuse_lora()
    assert_close(pipeline("a red circle", **options), with_lora, 1e-4)
    pipeline.unload_lora_weights()
    assert torch.equal(pipeline("a red circle", **options), without)


MOTION = "temporal_transformer.transformer_blocks.0.attention_blocks"


def write_motion_lora(path: Path, pipeline: AnimateDiffPipeline, sites: Iterable[str]) -> dict[str, Any]:
    """A file as AnimateDiff's own, a pickle in its spelling, with all four projections of both attentions."""
    content, made = {}, {}
    for site in sites:
        for block in (0, 1):
            for theirs, ours in (("to_q", "to_q"), ("to_k", "to_k"), ("to_v", "to_v"), ("to_out", "to_out.0")):
                name = f"{site}.transformer_blocks.0.attention_blocks.{block}.{ours}"
                here = name if any(name == own for own, _ in pipeline.unet.named_modules()) else None
                down, up = factors(pipeline.unet, here, block) if here else (torch.ones(2, 64), torch.ones(64, 2))
                if here:
                    made[name] = (down, up)
                key = f"{site}.{MOTION}.{block}.processor.{theirs}_lora"
                content |= {f"{key}.down.weight": down, f"{key}.up.weight": up}
    torch.save({"state_dict": content, "animatediff_config": "x"}, path)
    return made


def test_a_motion_lora(make_pipeline: PipelineMaker, tmp_path: Path) -> None:
    pipeline, by_hand = make_pipeline(), make_pipeline()
    made = write_motion_lora(tmp_path / "pan.ckpt", pipeline, pipeline.unet.motion_sites())
    before = predict(pipeline)
    still = predict(pipeline, motion_strength=0.0)
    pipeline.load_lora_weights(tmp_path / "pan.ckpt", weight=0.6)
    changed_by_hand(by_hand.unet, made, 0.6)
    assert_close(predict(pipeline), predict(by_hand))
    assert (predict(pipeline) - before).abs().max() > 1e-3 * before.abs().max()
    assert torch.equal(predict(pipeline, motion_strength=0.0), still)


def test_a_motion_lora_without_a_module_in_the_middle(make_pipeline: PipelineMaker, tmp_path: Path) -> None:
    pipeline = make_pipeline()
    sites = pipeline.unet.motion_sites()
    file = tmp_path / "pan.ckpt"
    write_motion_lora(file, pipeline, sites)
    outer = [site for site in sites.values() if not site.name.startswith("mid_block")]
    pipeline.set_motion_adapter(MotionAdapter.for_sites(outer, config=TemporalConfig(num_heads=4)))
    middle = r"mid_block\.motion_modules\.0\.temporal_transformer\.transformer_blocks\.0\.attention_blocks"
    with pytest.warns(UserWarning, match=rf"{middle}\.0\.processor\.to_q,.* and 5 more"):
        pipeline.load_lora_weights(file)
    assert not any("mid_block" in name for name in pipeline._attached_loras["backbone"].changes("pan"))
    pipeline.unload_lora_weights()
    pipeline.remove_motion_adapter()
    with pytest.raises(CheckpointError, match=r"AnimateDiff's motion modules.*attach a motion adapter first"):
        pipeline.load_lora_weights(file)


def test_an_adapter_with_motion_loras_is_not_lost(make_pipeline: PipelineMaker, tmp_path: Path) -> None:
    pipeline = make_pipeline()
    adapter = pipeline.unet.motion_adapter
    assert adapter is not None
    before = {key: value.clone() for key, value in adapter.state_dict().items()}
    write_motion_lora(tmp_path / "pan.ckpt", pipeline, list(pipeline.unet.motion_sites())[:1])
    pipeline.load_lora_weights(tmp_path / "pan.ckpt")
    pipeline.check_motion_loras(adapter)
    other = MotionAdapter.for_sites(pipeline.unet.motion_sites().values(), config=TemporalConfig(num_heads=4))
    with pytest.raises(ConfigError, match="unload_lora_weights"):
        pipeline.check_motion_loras(other)
    pipeline.unet.remove_motion_adapter()
    pipeline.unload_lora_weights()
    after = adapter.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_a_domain_adapter(make_pipeline: PipelineMaker, tmp_path: Path) -> None:
    pipeline, by_hand = make_pipeline(), make_pipeline()
    content, made = {}, {}
    for attention in ("attn1", "attn2"):
        for theirs, ours in (("to_q", "to_q"), ("to_k", "to_k"), ("to_v", "to_v"), ("to_out", "to_out.0")):
            block = f"up_blocks.1.attentions.1.transformer_blocks.0.{attention}"
            made[f"{block}.{ours}"] = down, up = factors(pipeline.unet, f"{block}.{ours}")
            key = f"{block}.processor.{theirs}_lora"
            content |= {f"{key}.down.weight": down, f"{key}.up.weight": up}
    torch.save(content, tmp_path / "v3_sd15_adapter.ckpt")
    assert pipeline.load_lora_weights(tmp_path / "v3_sd15_adapter.ckpt") == "v3_sd15_adapter"
    changed_by_hand(by_hand.unet, made, 1.0)
    assert_close(predict(pipeline), predict(by_hand))


@pytest.mark.parametrize("dialect", ["diffusers", "kohya"])
def test_saving_and_loading_again(family: Family, tmp_path: Path, dialect: Any) -> None:
    make, *layers = family
    pipeline = make()
    kohya_file(tmp_path / "a.safetensors", pipeline, layers, alpha=0.7)
    pipeline.load_lora_weights(tmp_path / "a.safetensors")
    saved = pipeline.save_lora_weights(tmp_path / "b.safetensors", dialect=dialect)
    with_lora, text = predict(pipeline), encode(pipeline)
    again = make()
    again.load_lora_weights(saved)
    assert torch.equal(predict(again), with_lora)
    assert torch.equal(encode(again), text)
    pipeline.fuse_lora()
    fused = load_file(pipeline.save_lora_weights(tmp_path / "c.safetensors", dialect=dialect))
    loose = load_file(saved)
    assert fused.keys() == loose.keys()
    assert all(torch.equal(fused[key], loose[key]) for key in loose)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors", "c.safetensors"]


def test_a_folder_saved_with_a_lora_is_the_model_without(family: Family, tmp_path: Path) -> None:
    make, *layers = family
    pipeline = make()
    layers = [dict(layers[0]), layers[1]]
    if isinstance(pipeline, AnimateDiffPipeline):
        layers[0]["lora_unet_down_blocks_0_motion_modules_0_temporal_transformer_proj_in"] = (
            "down_blocks.0.motion_modules.0.proj_in"
        )
    before = snapshot(pipeline)
    kohya_file(tmp_path / "a.safetensors", pipeline, layers)
    pipeline.load_lora_weights(tmp_path / "a.safetensors")
    with_lora = predict(pipeline)
    pipeline.save_pretrained(tmp_path / "model")
    assert torch.equal(predict(pipeline), with_lora)
    loaded = type(pipeline).from_pretrained(tmp_path / "model")
    assert_unchanged(loaded, before)
    pipeline.fuse_lora()
    with pytest.raises(ConfigError, match=r"unfuse_lora\(\) first.*bake_lora\(\)"):
        pipeline.save_pretrained(tmp_path / "fused")
    fused = snapshot(pipeline)
    pipeline.bake_lora()
    pipeline.save_pretrained(tmp_path / "baked")
    assert_unchanged(type(pipeline).from_pretrained(tmp_path / "baked"), fused)


def test_wrong_architectures_are_named(make_pipeline: PipelineMaker, tmp_path: Path) -> None:
    animatediff, easyanimate = make_pipeline(), make_easyanimate()
    write_kohya(tmp_path / "unet.safetensors", [(animatediff.unet, UNET_LAYERS)])
    write_kohya(tmp_path / "dit.safetensors", [(easyanimate.transformer, DIT_LAYERS)])
    with pytest.raises(CheckpointError, match=r"a Stable Diffusion U-Net.*none of its 10 layers.*like EasyAnimate's"):
        easyanimate.load_lora_weights(tmp_path / "unet.safetensors")
    with pytest.raises(CheckpointError, match="for a transformer like EasyAnimate's of 32 channels: none of its 9"):
        animatediff.load_lora_weights(tmp_path / "dit.safetensors")
    key = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    wide = {f"{key}.lora_down.weight": torch.ones(4, 2048), f"{key}.lora_up.weight": torch.ones(32, 4)}
    save_file(wide, tmp_path / "xl.safetensors")
    with pytest.raises(CheckpointError, match=r"Stable Diffusion XL and this model.*\[32, 4\] x \[4, 2048\]"):
        animatediff.load_lora_weights(tmp_path / "xl.safetensors")


def test_nothing_is_loaded_when_anything_is_left_over(family: Family, tmp_path: Path) -> None:
    make, *layers = family
    pipeline = make()
    before = snapshot(pipeline)
    kohya_file(tmp_path / "a.safetensors", pipeline, layers)
    content = load_file(tmp_path / "a.safetensors")
    for key in ("lora_unet_nowhere_1", "lora_te_nowhere_2"):
        content |= {f"{key}.lora_down.weight": torch.ones(2, 4), f"{key}.lora_up.weight": torch.ones(4, 2)}
    save_file(content, tmp_path / "b.safetensors")
    with pytest.raises(CheckpointError, match="nothing was loaded: lora_te_nowhere_2, lora_unet_nowhere_1") as caught:
        pipeline.load_lora_weights(tmp_path / "b.safetensors")
    assert "b.safetensors" in str(caught.value)
    assert pipeline.get_active_adapters() == []
    assert_unchanged(pipeline, before)


def test_nan_is_refused(make_pipeline: PipelineMaker, tmp_path: Path) -> None:
    pipeline = make_pipeline()
    save_file(
        {"lora_unet_conv_in.lora_down.weight": torch.full((2, 4, 3, 3), torch.nan),
         "lora_unet_conv_in.lora_up.weight": torch.ones(32, 2, 1, 1)},
        tmp_path / "nan.safetensors",
    )  # fmt: skip
    with pytest.raises(CheckpointError, match="NaN or infinite values in lora_unet_conv_in"):
        pipeline.load_lora_weights(tmp_path / "nan.safetensors")


def test_refusals(make_pipeline: PipelineMaker, tmp_path: Path) -> None:
    pipeline = make_pipeline()
    file = tmp_path / "a.safetensors"
    write_kohya(file, [(pipeline.unet, UNET_LAYERS)])
    for call, message in (
        (pipeline.disable_lora, "No LoRA is loaded"),
        (pipeline.fuse_lora, "No LoRA acts"),
        (pipeline.unfuse_lora, "No LoRA is fused"),
        (pipeline.bake_lora, "fuse_lora"),
        (lambda: pipeline.save_lora_weights(tmp_path / "x.safetensors"), "loaded: none"),
        (lambda: pipeline.set_adapters("a"), "no LoRA a; loaded: none"),
        (lambda: pipeline.load_lora_weights(file, weight=float("nan")), "finite number"),
        (lambda: pipeline.load_lora_weights(file, lora_alpha_mode="other"), "must be one of"),  # type: ignore[arg-type]
        (lambda: pipeline.load_lora_weights(file, "a.b"), "cannot be called 'a.b'"),
        (lambda: pipeline.load_lora_weights(file, "keys"), "cannot be called 'keys'"),
    ):
        with pytest.raises(ConfigError, match=message):
            call()
    pipeline.load_lora_weights(file, "a")
    pipeline.load_lora_weights(file)
    assert pipeline.get_active_adapters() == ["a", "a_1"]
    for call, message in (
        (lambda: pipeline.load_lora_weights(file, "a"), "called 'a' already"),
        (lambda: pipeline.set_adapters(["a", "a"]), "each LoRA once"),
        (lambda: pipeline.set_adapters(["a", "a_1"], [1.0]), "with one weight"),
        (lambda: pipeline.save_lora_weights(tmp_path / "x.safetensors"), "loaded: a, a_1"),
        (lambda: pipeline.save_lora_weights(tmp_path / "x.ckpt", "a"), "saved as .safetensors"),
        (lambda: pipeline.save_lora_weights(tmp_path / "x.safetensors", "a", "x"), "dialect"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ConfigError, match=message):
            call()
    pipeline.fuse_lora()
    for call in (pipeline.disable_lora, pipeline.fuse_lora, lambda: pipeline.load_lora_weights(file, "c")):
        with pytest.raises(ConfigError, match=r"fused into the weights now; unfuse_lora\(\) first"):
            call()


def test_the_record_of_a_video(make_pipeline: PipelineMaker, tmp_path: Path) -> None:
    pipeline = make_pipeline()
    file = tmp_path / "a.safetensors"
    write_kohya(file, [(pipeline.unet, UNET_LAYERS)])
    assert pipeline.lora_settings is None
    assert not pipeline.has_unrecorded_lora
    pipeline.load_lora_weights(file, weight=0.5)
    assert pipeline.lora_settings == {str(file): 0.5}
    pipeline.disable_lora()
    assert pipeline.lora_settings is None
    pipeline.load_lora_weights(file, lora_alpha_mode="official")
    assert pipeline.has_unrecorded_lora


def test_another_pipeline_of_the_same_network(make_pipeline: PipelineMaker, tmp_path: Path) -> None:
    pipeline = make_pipeline()
    write_kohya(tmp_path / "a.safetensors", [(pipeline.unet, UNET_LAYERS)])
    pipeline.load_lora_weights(tmp_path / "a.safetensors")
    with pytest.raises(ConfigError, match="not this pipeline's"):
        make_pipeline(unet=pipeline.unet).load_lora_weights(tmp_path / "a.safetensors")
