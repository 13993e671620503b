"""Which frame looks at which."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from muybridge.debug import AttentionMaps
from muybridge.errors import ConfigError
from muybridge.motion import HybridConfig, HybridMotionModule, MotionContext, TemporalConfig, TemporalMotionModule
from muybridge.motion.attention import AttentionProcessor
from muybridge.motion.timestep_film import TimestepFilmConfig, TimestepFilmMotionModule

FRAMES, WIDTH, HEADS = 5, 8, 2


class Sites(nn.Module):
    """A backbone with nothing but motion."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one = TemporalMotionModule(TemporalConfig(num_heads=HEADS, norm_groups=4), WIDTH)
        self.two = HybridMotionModule(HybridConfig(num_heads=HEADS, norm_groups=4), WIDTH)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.5)

    def forward(self, features: Tensor, strength: float = 1.0) -> Tensor:
        context = MotionContext(torch.arange(float(features.shape[1])), strength=strength)
        return self.two(self.one(features, context), context)


@pytest.fixture
def sites() -> Sites:
    return Sites().eval()


def features(frames: int = FRAMES, side: int = 3, batch: int = 2) -> Tensor:
    return torch.randn(batch, frames, side, side, WIDTH, generator=torch.Generator().manual_seed(1))


def look(sites: Sites, x: Tensor, pattern: str = "*") -> AttentionMaps:
    with AttentionMaps(sites, pattern) as maps, torch.no_grad():
        sites(x)
    return maps


def test_every_attention_of_every_site_has_a_map_whose_rows_sum_to_one(sites):
    maps = look(sites, features()).maps
    block = "transformer_blocks.0.attention_blocks"
    assert list(maps) == [f"{site}.{block}.{index}" for site in ("one", "two") for index in (0, 1)]
    for each in maps.values():
        assert each.shape == (HEADS, FRAMES, FRAMES)
        assert torch.allclose(each.sum(-1), torch.ones(HEADS, FRAMES), atol=1e-6)
        assert float(each.std()) > 1e-3


def test_the_map_is_the_softmax_of_queries_and_keys(sites):
    seen: list[Tensor] = []
    attentions = sites.two.transformer_blocks[0].attention_blocks
    handles = [attentions[1].register_forward_pre_hook(lambda _module, args: seen.append(args[0].clone()))]
    maps = look(sites, features()).maps
    for handle in handles:
        handle.remove()
    tokens, attention = seen[0], attentions[1]  # [b, places * frames, c], frames within places
    q, k = (layer(tokens).unflatten(-1, (HEADS, -1)).transpose(1, 2) for layer in (attention.to_q, attention.to_k))
    weights = (q @ k.mT * (WIDTH // HEADS) ** -0.5).softmax(-1).detach()
    expected = weights.unflatten(-1, (-1, FRAMES)).sum(-2).unflatten(-2, (-1, FRAMES)).mean(dim=(0, 2))
    assert torch.allclose(maps["two.transformer_blocks.0.attention_blocks.1"], expected, atol=1e-5)


def test_a_global_attention_in_pieces_gives_the_same_map(sites):
    # 20 x 20 places of 12 frames are more tokens than a piece holds.
    maps = look(sites, features(frames=12, side=20, batch=1), "two").maps
    assert all(torch.allclose(each.sum(-1), torch.ones(HEADS, 12), atol=1e-5) for each in maps.values())
    small = features(frames=12, side=4, batch=1)
    whole, in_pieces = look(sites, small, "two").maps, look(sites, small.repeat(1, 1, 5, 5, 1), "two").maps
    assert len(whole) == 2
    assert all(torch.allclose(in_pieces[name], each, atol=1e-4) for name, each in whole.items())


def test_calls_are_averaged(sites):
    one, other = features(), features().flip(1) * 2
    with AttentionMaps(sites) as maps, torch.no_grad():
        sites(one)
        sites(other)
    first, second = look(sites, one).maps, look(sites, other).maps
    for name, both in maps.maps.items():
        assert torch.allclose(both, (first[name] + second[name]) / 2, atol=1e-6)


def test_results_stay_the_same_and_processors_come_back(sites):
    with torch.no_grad():
        plain = sites(features())
        with AttentionMaps(sites):
            assert torch.equal(sites(features()), plain)
    sites(features())
    with pytest.raises(RuntimeError, match="on the way"), AttentionMaps(sites):
        raise RuntimeError("on the way")
    processors = [module.processor for module in sites.modules() if hasattr(module, "processor")]
    assert len(processors) == 4
    assert {type(each) for each in processors} == {AttentionProcessor}


def test_training_is_seen_too(sites):
    sites.train()
    with AttentionMaps(sites) as maps:
        sites(features()).sum().backward()
    assert len(maps.maps) == 4


def test_pictures_and_numbers_are_saved(sites, tmp_path):
    maps = look(sites, features(), "one")
    paths = maps.save(tmp_path / "new")
    assert [path.suffix for path in paths] == [".png", ".png", ".safetensors"]
    assert sorted(tmp_path.joinpath("new").iterdir()) == sorted(paths)
    saved = load_file(paths[-1])
    assert all(torch.equal(saved[name], each) for name, each in maps.maps.items())
    with Image.open(paths[0]) as picture:
        assert len(picture.convert("RGB").getcolors(100_000) or []) > 10


def test_what_cannot_be_seen_is_an_error(sites):
    with pytest.raises(ConfigError, match="no motion module"):
        AttentionMaps(nn.Linear(2, 2))
    with pytest.raises(ConfigError, match=r"Nearest: one"):
        AttentionMaps(sites, "onn")
    with pytest.raises(ConfigError, match="matches no motion site"):
        AttentionMaps(sites, "one.proj_in")
    with pytest.raises(ConfigError, match="TimestepFilmMotionModule has no attention"):
        AttentionMaps(TimestepFilmMotionModule(TimestepFilmConfig(), WIDTH, timestep_width=4))
    with AttentionMaps(sites) as maps:
        sites(features(), strength=0.0)
    with pytest.raises(ConfigError, match="No attention between frames"):
        _ = maps.maps
    with AttentionMaps(sites, "two"), torch.no_grad():
        sites(features())
        with pytest.raises(ConfigError, match="4 frames after another number"):
            sites(features(frames=4))


def test_calls_of_other_lengths_can_be_passed_over(sites):
    expected = look(sites, features()).maps
    with AttentionMaps(sites, skip_other_lengths=True) as maps, torch.no_grad():
        sites(features())
        sites(features(frames=4))
    assert all(torch.equal(each, expected[name]) for name, each in maps.maps.items())


def test_copies_made_inside_are_whole_and_not_listened_to(sites):
    with AttentionMaps(sites) as maps, torch.no_grad():
        plain = sites(features())
        seen = maps.maps
        for other in (copy.deepcopy(sites), pickle.loads(pickle.dumps(sites))):
            assert {type(m.processor) for m in other.modules() if hasattr(m, "processor")} == {AttentionProcessor}
            assert torch.equal(other(features() * 2), sites(features() * 2))
            assert torch.equal(other(features()), plain)
    assert seen.keys() == maps.maps.keys()
