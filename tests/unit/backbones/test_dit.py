"""EasyAnimate's transformer beside the image model it is made of, and its own behaviour."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import PixArtTransformer2DModel
from safetensors.torch import save_file
from torch import Tensor

from muybridge.backbones.dit import Transformer3DModel
from muybridge.backbones.dit.published import published_keywords
from muybridge.errors import CheckpointError, ConfigError, ShapeError
from muybridge.motion import HybridConfig, MotionAdapter
from muybridge.motion import pieces as piece_sizes

SIZES: dict[str, Any] = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 6, "sample_size": 8}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make_model(**settings: Any) -> Transformer3DModel:
    torch.manual_seed(0)
    chosen: dict[str, Any] = {"in_channels": 4, "caption_channels": 16, "clip_channels": None, **SIZES, **settings}
    model = Transformer3DModel(**chosen)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def with_motion(model: Transformer3DModel) -> Transformer3DModel:
    torch.manual_seed(1)
    adapter = MotionAdapter.for_sites(model.motion_sites().values(), "hybrid", HybridConfig(num_heads=2))
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model.set_motion_adapter(adapter)
    return model


def image_model() -> PixArtTransformer2DModel:
    torch.manual_seed(2)
    return PixArtTransformer2DModel(
        **SIZES, in_channels=4, out_channels=8, cross_attention_dim=32, caption_channels=16
    ).eval()


def test_made_of_an_image_model_it_gives_the_image_model_for_every_frame() -> None:
    image = image_model()
    video = Transformer3DModel.from_transformer2d(image)
    adapter = MotionAdapter.for_sites(video.motion_sites().values(), "hybrid", HybridConfig(num_heads=2))
    video.set_motion_adapter(adapter)
    latents, given = draw(1, 4, 3, 8, 12), draw(1, 8, 3, 8, 12, seed=1)
    text, timestep = draw(1, 5, 16, seed=2), torch.tensor([400])
    with torch.no_grad():
        found = video(latents, timestep, text, inpaint_latents=given, clip_encoder_hidden_states=draw(1, 768)).sample
        expected = torch.stack(
            [
                image(
                    latents[:, :, frame],
                    encoder_hidden_states=text,
                    timestep=timestep,
                    added_cond_kwargs={"resolution": None, "aspect_ratio": None},
                ).sample
                for frame in range(3)
            ],
            dim=2,
        )
    # The image tokens are zero, but a zero token takes its share of the softmax; without them it is exact.
    with torch.no_grad():
        exact = video(latents, timestep, text, inpaint_latents=given).sample
    assert float((exact - expected).abs().max() / expected.abs().max()) <= 1e-5
    assert found.shape == expected.shape


@pytest.mark.parametrize("batch", [1, 2])
def test_pieces_and_training_give_the_same_numbers(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = with_motion(make_model())
    arguments = (draw(batch, 4, 3, 8, 8), 300.5, draw(batch, 5, 16, seed=1), torch.tensor([[1, 1, 1, 0, 0]] * batch))
    with torch.no_grad():
        whole = model(*arguments).sample
        monkeypatch.setattr(piece_sizes, "PIECE_TOKENS", 17)
        in_pieces = model(*arguments).sample
    trained = model(*arguments).sample.detach()
    for other in (in_pieces, trained):
        assert float((whole - other).abs().max() / whole.abs().max()) <= 1e-5


def test_padding_does_not_count() -> None:
    model = with_motion(make_model())
    latents, text = draw(1, 4, 2, 8, 8), draw(1, 5, 16, seed=1)
    padded = torch.cat((text, draw(1, 3, 16, seed=2)), dim=1)
    with torch.no_grad():
        short = model(latents, 10, text).sample
        long = model(latents, 10, padded, torch.tensor([[1, 1, 1, 1, 1, 0, 0, 0]])).sample
    assert float((short - long).abs().max() / short.abs().max()) <= 1e-5


def test_long_skips_join_the_ends() -> None:
    model = make_model()
    assert len(model.long_connect_fc) == 2
    has_skip: list[bool] = []

    def note(_module: object, given: tuple[Any, ...]) -> None:
        has_skip.append(given[2] is not None)

    for block in model.transformer_blocks:
        block.register_forward_pre_hook(note)
    with torch.no_grad():
        model(draw(1, 4, 2, 8, 8), 10, draw(1, 5, 16))
    assert has_skip == [False, False, False, False, True, True]
    assert len(make_model(enable_uvit=False).long_connect_fc) == 0


def test_checkpointing_gives_the_same_gradients() -> None:
    gradients = []
    for checkpointed in (False, True):
        model = with_motion(make_model()).train()
        if checkpointed:
            model.enable_gradient_checkpointing()
        model(draw(1, 4, 2, 8, 8), 10, draw(1, 5, 16)).sample.square().mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.allclose(gradients[0][name], gradients[1][name], atol=1e-6) for name in gradients[0])


def test_bfloat16_is_close() -> None:
    model = with_motion(make_model())
    latents, text = draw(1, 4, 3, 8, 8), draw(1, 5, 16, seed=1)
    with torch.no_grad():
        exact = model(latents, 300, text).sample
        torch.nn.Module.to(model, torch.bfloat16)
        rounded = model(latents.bfloat16(), 300, text.bfloat16()).sample.float()
    assert float((exact - rounded).abs().max() / exact.abs().max()) < 0.05


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"hidden_states": draw(1, 4, 8, 8)}, ShapeError, r"\[b, c, f, h, w\]"),
        ({"hidden_states": draw(1, 3, 2, 8, 8)}, ShapeError, "4 channels"),
        ({"hidden_states": draw(1, 4, 2, 7, 8)}, ShapeError, "that 2 divides"),
        ({"encoder_hidden_states": draw(2, 5, 16)}, ShapeError, "one text for each video"),
        ({"clip_encoder_hidden_states": draw(1, 768)}, ConfigError, "no image embedding"),
        ({"added_cond_kwargs": {"resolution": draw(1, 2)}}, ConfigError, "128"),
    ],
)
def test_wrong_inputs_are_named(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"hidden_states": draw(1, 4, 2, 8, 8), "timestep": 10, "encoder_hidden_states": draw(1, 5, 16)}
    with pytest.raises(error, match=message):
        make_model()(**{**arguments, **change})


def published_config(**changes: Any) -> dict[str, Any]:
    motion = {
        "num_attention_heads": 2,
        "num_transformer_block": 1,
        "attention_block_types": ["Temporal_Self", "Temporal_Self"],
    }
    own = {**SIZES, "in_channels": 4, "out_channels": 8, "patch_size": 2, "caption_channels": 16, "norm_eps": 1e-6}
    return {**own, "enable_uvit": True, "basic_block_type": "motionmodule", "motion_module_kwargs": motion, **changes}


def test_v2_config_has_one_kind_of_layer() -> None:
    keywords = published_keywords(published_config())
    specs = keywords["motion_adapter"]["modules_by_site"]
    assert len(specs) == 6
    assert {spec["config"]["attentions"] for spec in specs.values()} == {("temporal", "temporal")}
    assert keywords["clip_channels"] is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_3d": True}, "patch_3d=True"),
        ({"basic_block_type": "kvcompression_motionmodule"}, "kvcompression"),
        ({"sample_size": None}, "lacks sample_size"),
    ],
)
def test_foreign_configs_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        published_keywords(published_config(**changes))


@pytest.mark.parametrize("damage", ["missing", "extra", "nan"])
def test_damaged_published_weights_are_refused(tmp_path: Path, damage: str) -> None:
    state = dict(Transformer3DModel(**published_keywords(published_config())).state_dict())
    renamed = {
        k.replace(".attn_temporal.", ".attn_temporal.temporal_transformer."): v.clone() for k, v in state.items()
    }
    if damage == "missing":
        del renamed["proj_out.bias"]
    elif damage == "extra":
        renamed["stranger"] = torch.zeros(1)
    else:
        renamed["proj_out.bias"][0] = float("nan")
    save_file(renamed, tmp_path / "diffusion_pytorch_model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(published_config()))
    with pytest.raises(CheckpointError, match=r"proj_out.bias|stranger"):
        Transformer3DModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("grad", [False, True])
def test_a_text_for_each_frame_is_that_of_the_frame_alone(grad: bool) -> None:
    model = make_model(clip_channels=8)
    latents, text, timestep = draw(2, 4, 3, 8, 8), draw(2, 3, 5, 16, seed=1), torch.tensor([400])
    mask = torch.ones(2, 3, 5)
    mask[1, 2, 3:] = 0
    picture = {"clip_encoder_hidden_states": draw(2, 8, seed=2), "clip_attention_mask": torch.ones(2, 8)}
    picture["clip_attention_mask"] = torch.ones(2, model.config["clip_tokens"])
    with torch.set_grad_enabled(grad):
        found = model(latents, timestep, text, mask, **picture).sample
        for frame in range(3):  # without motion modules frames are independent
            alone = model(latents[:, :, [frame]], timestep, text[:, frame], mask[:, frame], **picture).sample
            torch.testing.assert_close(found[:, :, [frame]], alone, rtol=1e-4, atol=1e-4)


def test_one_text_for_all_frames_or_that_for_each_is_the_same() -> None:
    model = with_motion(make_model())
    latents, text, timestep = draw(1, 4, 3, 8, 8), draw(1, 5, 16, seed=1), torch.tensor([400])
    with torch.no_grad():
        one, each = (model(latents, timestep, given).sample for given in (text, text[:, None].expand(-1, 3, -1, -1)))
    torch.testing.assert_close(one, each, rtol=1e-4, atol=1e-4)
    with pytest.raises(ShapeError, match=r"or \[1, 3, n, d\], one for each latent frame; given \(1, 2, 5, 16\)"):
        model(latents, timestep, text[:, None].expand(-1, 2, -1, -1))
