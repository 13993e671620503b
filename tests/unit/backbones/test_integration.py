"""Motion modules put into models that exist, and taken out again."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import PixArtTransformer2DModel, UNet2DConditionModel
from torch import Tensor, nn

from muybridge.backbones.dit import Transformer3DModel
from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.errors import ConfigError, ShapeError
from muybridge.motion import (
    ComposeMotionModule,
    LowRankMotionModule,
    MixMotionModule,
    MotionAdapter,
    MotionHost,
    TemporalConfig,
)
from muybridge.motion.registry import build_motion_module, spec_for_site
from muybridge.pipelines import AnimateDiffPipeline
from muybridge.pipelines.integration import integrate_motion

TEMPORAL = ("temporal", {"num_heads": 4})
LOW_RANK = ("low_rank", {"motion_rank": 8})
FILM = ("timestep_film", {"hidden_dim": 8})
BOTH = {"modules": [{"kind": kind, "config": config} for kind, config in (TEMPORAL, FILM)]}
KINDS = [LOW_RANK, FILM, ("compose", BOTH), ("mix", {**BOTH, "weights": [1.0, 0.5]})]
FRAMES = 3


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def randomise(module: nn.Module) -> None:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)


def pixart() -> PixArtTransformer2DModel:
    torch.manual_seed(2)
    return PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=2,
        sample_size=8,
        in_channels=4,
        out_channels=4,
        cross_attention_dim=32,
        caption_channels=16,
    ).eval()


@pytest.fixture(params=["unet", "dit"])
def host(request: pytest.FixtureRequest, unet: UNet3DConditionModel) -> MotionHost:
    """Each backbone, without motion modules."""
    if request.param == "unet":
        return unet
    return Transformer3DModel.from_transformer2d(pixart(), 4, clip_channels=None, enable_uvit=False)


def call(host: nn.Module, **options: Any) -> Tensor:
    return host(draw(2, 4, FRAMES, 8, 8), torch.tensor([500, 20]), draw(2, 5, 16, seed=1), **options).sample


def run(host: nn.Module, **options: Any) -> Tensor:
    with torch.no_grad():
        return call(host, **options)


def difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind[0])
def test_fresh_changes_nothing_trained_does_and_removed_is_as_before(host: MotionHost, kind: tuple[str, Any]) -> None:
    before, keys, config = run(host), list(host.state_dict()), dict(host.config)
    integration = integrate_motion(host, kind[0], config=kind[1])
    assert torch.equal(run(host), before)
    assert integration.model is host
    assert set(integration.sites) == set(host.motion_sites())
    assert integration.num_parameters == sum(p.numel() for p in integration.adapter.parameters())
    assert integration.num_bytes == 4 * integration.num_parameters
    assert f"{kind[0]} at {len(integration.sites)} of {len(integration.sites)} motion sites" in str(integration)
    randomise(integration.adapter)
    assert difference(run(host), before) > 1e-3
    assert torch.equal(run(host, motion_strength=0.0), before)
    assert integration.remove() is host
    assert torch.equal(run(host), before)
    assert list(host.state_dict()) == keys
    assert dict(host.config) == config
    with pytest.raises(ConfigError, match="undone already"):
        integration.remove()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind[0])
def test_gradients_reach_every_new_parameter_at_the_second_step(host: MotionHost, kind: tuple[str, Any]) -> None:
    adapter = integrate_motion(host.train(), kind[0], config=kind[1]).adapter
    optimizer = torch.optim.SGD(adapter.parameters(), lr=0.5)
    for _ in range(2):
        optimizer.zero_grad()
        call(host).square().mean().backward()
        optimizer.step()
    assert [name for name, p in adapter.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind[0])
def test_checkpointing_training_and_inference_agree(host: MotionHost, kind: tuple[str, Any]) -> None:
    integration = integrate_motion(host, kind[0], config=kind[1])
    randomise(integration.adapter)
    gradients = []
    for checkpointed in (False, True):
        if checkpointed:
            host.enable_gradient_checkpointing()
        host.zero_grad()
        found = call(host)
        assert difference(found.detach(), run(host)) <= 1e-5
        found.square().mean().backward()
        gradients.append({name: p.grad.clone() for name, p in host.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.allclose(gradients[1][name], value, atol=1e-6) for name, value in gradients[0].items())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies(host: MotionHost, copied: Callable[[MotionHost], MotionHost]) -> None:
    randomise(integrate_motion(host, "compose", config=BOTH).adapter)
    expected, twin = run(host), copied(host)
    assert torch.equal(run(twin), expected)
    twin.remove_motion_adapter()
    assert torch.equal(run(host), expected)


def test_saving_and_loading(host: MotionHost, tmp_path: Path) -> None:
    kinds = {"*.0.*": LOW_RANK, "*": ("compose", BOTH)}
    integration = integrate_motion(host, kinds)
    randomise(integration.adapter)
    host.save_pretrained(tmp_path / "whole")
    again = type(host).from_pretrained(tmp_path / "whole")
    assert difference(run(again), run(host)) <= 1e-6
    integration.adapter.save_pretrained(tmp_path / "adapter")
    expected = run(host)
    integration.remove()
    host.set_motion_adapter(MotionAdapter.from_pretrained(tmp_path / "adapter"))
    assert difference(run(host), expected) <= 1e-6


@pytest.mark.slow
def test_compiles_without_graph_breaks(host: MotionHost) -> None:
    randomise(integrate_motion(host, {"*.0.*": LOW_RANK, "*": ("compose", BOTH)}).adapter)
    expected = run(host)
    if isinstance(host, UNet3DConditionModel):
        host.compile(fullgraph=True, backend="eager")
    else:  # its blocks are what is compiled of a transformer
        host.compile_repeated_blocks(fullgraph=True, backend="eager")
    found = run(host)
    torch.compiler.reset()
    assert difference(found, expected) <= 1e-5


def test_kinds_by_site(unet: UNet3DConditionModel) -> None:
    integration = integrate_motion(unet, {"up_blocks.*": LOW_RANK, "mid_*": TEMPORAL})
    kinds = {name.split(".")[0]: kind for name, kind in integration.sites.items()}
    assert kinds == {"up_blocks": "low_rank", "mid_block": "temporal"}
    assert not any("down_blocks" in name and "motion" in name for name in unet.state_dict())
    assert isinstance(unet.get_submodule("up_blocks.1.motion_modules.0"), LowRankMotionModule)


@pytest.mark.parametrize(("mode", "holder"), [("add", MixMotionModule), ("after", ComposeMotionModule)])
def test_beside_what_is_there(moving: UNet3DConditionModel, mode: Any, holder: type[nn.Module]) -> None:
    before, adapter = run(moving), moving.motion_adapter
    assert adapter is not None
    integration = integrate_motion(moving, "low_rank", "mid_block.*", mode=mode, config=LOW_RANK[1])
    assert torch.equal(run(moving), before)
    combined = moving.get_submodule("mid_block.motion_modules.0")
    assert isinstance(combined, holder)
    randomise(combined.get_submodule("parts.1"))
    assert difference(run(moving), before) > 1e-4
    integration.adapter.set_strength(0.5)
    assert integration.remove() is moving
    assert moving.motion_adapter is adapter
    assert torch.equal(run(moving), before)


def test_in_place_of_what_is_there(moving: UNet3DConditionModel) -> None:
    before, adapter = run(moving), moving.motion_adapter
    integration = integrate_motion(moving, "low_rank", mode="replace")
    assert torch.equal(run(moving), run(moving, motion_strength=0.0))
    outer = integrate_motion(moving, "temporal", ["mid_block.*"], config=TemporalConfig(num_heads=4))
    with pytest.raises(ConfigError, match="undo the later changes first"):
        integration.remove()
    outer.remove()
    integration.remove()
    assert moving.motion_adapter is adapter
    assert torch.equal(run(moving), before)


def test_a_single_module(unet: UNet3DConditionModel) -> None:
    name = "mid_block.motion_modules.0"
    module = build_motion_module(spec_for_site(unet.motion_sites()[name], *LOW_RANK))
    integrate_motion(unet, module, name)
    assert unet.get_submodule(name) is module
    with pytest.raises(ConfigError, match="can sit at one site, and 7 are meant"):
        integrate_motion(unet, module)
    with pytest.raises(ConfigError, match="has 32 channels; the module given has 64"):
        integrate_motion(unet, module, "down_blocks.0.*")


def test_an_image_unet_is_made_a_video_model(image_model: UNet2DConditionModel) -> None:
    keys = list(image_model.state_dict())
    integration = integrate_motion(image_model, LowRankMotionModule)
    assert isinstance(integration.model, UNet3DConditionModel)
    assert integration.model.conv_in.weight.data_ptr() == image_model.conv_in.weight.data_ptr()
    with torch.no_grad():
        frame = image_model(draw(2, 4, FRAMES, 8, 8)[:, :, 1], torch.tensor([500, 20]), draw(2, 5, 16, seed=1)).sample
    assert difference(run(integration.model)[:, :, 1], frame) <= 1e-5
    assert integration.remove() is image_model
    assert list(image_model.state_dict()) == keys


def test_an_image_transformer_is_made_a_video_model() -> None:
    image = pixart()
    integration = integrate_motion(image, "timestep_film")
    assert isinstance(integration.model, Transformer3DModel)
    with torch.no_grad():
        frame = image(
            draw(2, 4, FRAMES, 8, 8)[:, :, 1],
            encoder_hidden_states=draw(2, 5, 16, seed=1),
            timestep=torch.tensor([500, 20]),
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        ).sample
    assert difference(run(integration.model)[:, :, 1], frame) <= 1e-5
    assert integration.remove() is image


def test_a_pipeline_keeps_the_adapter_among_its_parts(make_pipeline: Callable[..., AnimateDiffPipeline]) -> None:
    pipeline = make_pipeline()
    before = pipeline.motion_adapter
    integration = integrate_motion(pipeline, "low_rank", "up_blocks.*")
    assert integration.model is pipeline
    assert pipeline.motion_adapter is pipeline.unet.motion_adapter is integration.adapter
    assert integration.remove() is pipeline
    assert pipeline.motion_adapter is pipeline.unet.motion_adapter is before


def test_the_precision_of_the_model_is_taken_over(unet: UNet3DConditionModel) -> None:
    nn.Module.to(unet, torch.bfloat16)
    integration = integrate_motion(unet, "low_rank")
    assert {p.dtype for p in integration.adapter.parameters()} == {torch.bfloat16}
    assert integration.num_bytes == 2 * integration.num_parameters


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"motion": "low_rnk"}, "did you mean 'low_rank'"),
        ({"motion": "low_rank", "mode": "beside"}, "mode must be one of add, replace, after; given 'beside'"),
        ({"motion": "low_rank", "sites": "upblocks.*"}, r"No motion site is called 'upblocks.\*'"),
        ({"motion": "low_rank", "sites": []}, "sites is empty"),
        ({"motion": "low_rank", "config": {"rank": 3}}, "no setting rank"),
        ({"motion": {"*": "low_rank"}, "sites": "*"}, "leave sites and config out"),
        ({"motion": {"*": "low_rank", "up_blocks.*": "temporal"}}, "has no effect"),
        ({"motion": int}, "is no registered motion module"),
        ({"motion": "hybrid", "config": {"num_heads": 7}}, "that divide it"),
    ],
)
def test_refused_and_nothing_changed(moving: UNet3DConditionModel, arguments: dict[str, Any], words: str) -> None:
    before, adapter = run(moving), moving.motion_adapter
    with pytest.raises(ConfigError, match=words):
        integrate_motion(moving, **arguments)
    assert moving.motion_adapter is adapter
    assert torch.equal(run(moving), before)


def test_models_without_sites(image_model: UNet2DConditionModel) -> None:
    class Pictures:
        unet = image_model

    with pytest.raises(ConfigError, match="A Linear has no motion sites"):
        integrate_motion(nn.Linear(1, 1), "temporal")
    with pytest.raises(ConfigError, match=r"A Pictures makes single pictures .* Give its \.unet alone"):
        integrate_motion(Pictures(), "temporal")


def test_strength_of_each_frame(host: MotionHost) -> None:
    randomise(integrate_motion(host, *FILM[:1], config=FILM[1]).adapter)  # no mixing: frames are on their own
    off, on = run(host, motion_strength=0.0), run(host)
    found = run(host, motion_strength=[0.0, 1.0, 0.5])
    assert difference(found[:, :, 0], off[:, :, 0]) <= 1e-6
    assert difference(found[:, :, 1], on[:, :, 1]) <= 1e-6
    assert difference(found[:, :, 2], on[:, :, 2]) > 1e-4
    assert torch.equal(run(host, motion_strength=torch.tensor([0.0, 1.0, 0.5])), found)
    assert torch.equal(run(host, motion_strength=[0.0] * FRAMES), off)
    assert torch.equal(run(host, motion_strength=[1] * FRAMES), on)
    with pytest.raises(ShapeError, match=r"motion_strength must be one number or \[3\]; given \[2\]"):
        run(host, motion_strength=[0.5, 1.0])


@pytest.mark.parametrize("numerics", ["official-v1", "official-v3"])
def test_an_adapter_without_strength_leaves_the_image_model(
    unet: UNet3DConditionModel, make_adapter: Callable[..., MotionAdapter], numerics: str
) -> None:
    before, adapter = run(unet), make_adapter(unet, numerics=numerics)
    unet.set_motion_adapter(adapter)
    full = run(unet)
    adapter.set_strength({"up_blocks.*": 0.5})
    assert difference(run(unet), full) > 1e-4
    adapter.set_strength(0)
    assert torch.equal(run(unet), before)
    adapter.set_strength(1)
    assert torch.equal(run(unet), full)


def test_mixed_adapters_in_a_backbone(unet: UNet3DConditionModel, make_adapter: Callable[..., MotionAdapter]) -> None:
    adapter, before = make_adapter(unet), run(unet)
    unet.set_motion_adapter(adapter)
    alone = run(unet)
    fresh = make_adapter(unet, fresh=True)
    for weights, expected in (((1, 5), alone), ((0, 1), before), ((0.25, 0), run(unet, motion_strength=0.25))):
        unet.set_motion_adapter(MotionAdapter.mixed([adapter, fresh], weights))
        assert difference(run(unet), expected) <= 1e-5


def test_a_motion_condition(host: MotionHost) -> None:
    with pytest.raises(ConfigError, match="No motion module here reads a motion_condition"):
        run(host, motion_condition=draw(2, 6))
    randomise(integrate_motion(host, "low_rank", config={"motion_rank": 8, "motion_condition_width": 6}).adapter)
    assert difference(run(host, motion_condition=draw(2, 6)), run(host, motion_condition=draw(2, 6, seed=1))) > 1e-5
    with pytest.raises(ShapeError, match=r"motion_condition must be \[2, d\]"):
        run(host, motion_condition=draw(3, 6))
    with pytest.raises(ConfigError, match="needs motion_condition"):
        run(host)


def test_an_adapter_for_another_timestep_embedding_is_refused(unet: UNet3DConditionModel) -> None:
    adapter = integrate_motion(unet, "low_rank").adapter
    settings = copy.deepcopy(adapter.settings())
    for spec in settings["modules_by_site"].values():
        spec["context_widths"] = {"timestep_width": 64}
    with pytest.raises(ConfigError, match=r"down_blocks.0.motion_modules.0 \(timestep_width 64; here 128\)"):
        unet.set_motion_adapter(MotionAdapter.from_settings(settings))
