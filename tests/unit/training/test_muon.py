"""Muon, and which parameters it is given."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from muybridge.demo import models
from muybridge.training.muon import Muon, orthogonalise, split_parameters


def names(model: nn.Module, parameters: list[nn.Parameter]) -> set[str]:
    chosen = {id(p) for p in parameters}
    return {name for name, p in model.named_parameters() if id(p) in chosen}


@pytest.mark.parametrize("shape", [(16, 16), (8, 40), (40, 8)])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_orthogonalising_makes_singular_values_about_one(shape, scale):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * scale

    result = orthogonalise(matrix)

    values = torch.linalg.svdvals(result)
    assert result.shape == matrix.shape
    assert result.dtype == matrix.dtype
    assert values.max() < 1.3
    assert values.median() > 0.6


def test_orthogonalising_keeps_singular_directions():
    generator = torch.Generator().manual_seed(1)
    left, _ = torch.linalg.qr(torch.randn(12, 12, generator=generator))
    right, _ = torch.linalg.qr(torch.randn(12, 12, generator=generator))
    matrix = left @ torch.diag(torch.linspace(1, 2, 12)) @ right

    product = left.T @ orthogonalise(matrix) @ right.T

    assert (product - torch.diag(product.diag())).abs().max() < 0.05
    assert product.diag().min() > 0.6


def test_nothing_in_nothing_out():
    assert not orthogonalise(torch.zeros(3, 4)).any()


def test_muon_solves_least_squares():
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(64, 8, generator=generator)
    wanted = inputs @ torch.randn(8, 5, generator=generator)
    weight = nn.Parameter(torch.zeros(8, 5))
    optimizer = Muon([weight], lr=0.5)
    losses = []

    for step in range(120):
        optimizer.param_groups[0]["lr"] = 0.5 * (1 - step / 120)
        optimizer.zero_grad()
        loss = (inputs @ weight - wanted).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))

    assert losses[-1] < 0.01 * losses[0]


def test_a_convolution_counts_as_a_matrix():
    convolution = nn.Conv2d(4, 6, 3, bias=False)
    before = convolution.weight.detach().clone()
    generator = torch.Generator().manual_seed(3)
    gradient = torch.randn(convolution.weight.shape, generator=generator)
    convolution.weight.grad = gradient.clone()

    Muon(convolution.parameters(), lr=1.0).step()

    update = (before - convolution.weight.detach()).flatten(1)
    direction = gradient.flatten(1)
    values = torch.linalg.svdvals(update)
    assert values.max() / values.min() < 2
    assert nn.functional.cosine_similarity(update.flatten(), direction.flatten(), dim=0) > 0.7


def test_updates_are_as_large_as_adamw_s():
    weight = nn.Parameter(torch.zeros(20, 30))
    weight.grad = torch.randn(20, 30, generator=torch.Generator().manual_seed(4))

    Muon([weight], lr=1e-2).step()

    assert float(weight.detach().square().mean().sqrt()) == pytest.approx(0.2 * 1e-2, rel=0.25)


def test_gradients_are_left_alone_and_those_without_are_skipped():
    used, unused = nn.Parameter(torch.ones(3, 3)), nn.Parameter(torch.ones(3, 3))
    used.grad = torch.eye(3)

    Muon([used, unused]).step()

    assert torch.equal(used.grad, torch.eye(3))
    assert torch.equal(unused.detach(), torch.ones(3, 3))


def test_weight_decay_shrinks():
    weight = nn.Parameter(torch.ones(3, 3))
    weight.grad = torch.zeros(3, 3)

    Muon([weight], lr=0.1, weight_decay=0.5).step()

    assert torch.allclose(weight.detach(), torch.full((3, 3), 0.95))


def test_a_closure_is_called_with_gradients():
    weight = nn.Parameter(torch.eye(3))
    optimizer = Muon([weight], lr=0.1)

    def closure() -> float:
        loss = weight.square().sum()
        loss.backward()
        return float(loss.detach())

    assert optimizer.step(closure) == 3.0
    assert not torch.equal(weight.detach(), torch.eye(3))


def test_hidden_matrices_go_to_muon_and_the_rest_to_adamw():
    unet = models.make_unet()
    matrices, others = split_parameters(unet)
    for_muon, for_adamw = names(unet, matrices), names(unet, others)

    assert for_muon | for_adamw == {name for name, _ in unet.named_parameters()}
    assert not for_muon & for_adamw
    assert {"conv_in.weight", "conv_out.weight", "conv_norm_out.weight", "conv_in.bias"} <= for_adamw
    assert {"mid_block.resnets.0.conv1.weight", "mid_block.attentions.0.proj_in.weight"} <= for_muon
    assert all(p.ndim >= 2 for p in matrices)


def test_embeddings_go_to_adamw():
    text_encoder = models.text_tower(models.make_clip(models.make_tokenizer()))
    for_muon = names(text_encoder, split_parameters(text_encoder)[0])

    assert not [name for name in for_muon if "embedding" in name]
    assert any("q_proj.weight" in name for name in for_muon)


def test_frozen_parameters_go_to_neither():
    layers = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    layers[0].requires_grad_(False)

    matrices, others = split_parameters(layers)

    assert names(layers, [*matrices, *others]) == {"1.weight", "1.bias"}
