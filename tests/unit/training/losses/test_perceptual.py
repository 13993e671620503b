"""Likeness of pictures: LPIPS from a user's files, and what stands in for it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from tests.unit.training.methods.test_denoise import small_vae as picture_vae
from tests.unit.training.methods.test_denoise_video import small_vae as video_vae
from torch import Tensor, nn

from muybridge.errors import CheckpointError
from muybridge.training.losses.perceptual import DifferenceDistance, EncoderDistance, Lpips, make_perceptual
from muybridge.training.losses.settings import PerceptualSettings

WIDTHS = (2, 3, 4, 5, 5)
CONVOLUTIONS = (2, 2, 3, 3, 3)
TAKEN_AFTER = (3, 8, 15, 22, 29)


def narrow_vgg() -> nn.Sequential:
    """VGG16's features with few channels, layer for layer as in torchvision."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    channels = 3
    for width, count in zip(WIDTHS, CONVOLUTIONS, strict=True):
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def features() -> dict[str, Tensor]:
    return {f"features.{key}": value for key, value in narrow_vgg().state_dict().items()}


def heads() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {f"lin{i}.model.1.weight": torch.rand(1, w, 1, 1, generator=generator) for i, w in enumerate(WIDTHS)}


def pictures(seed: int, size: int = 32) -> Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def lpips_by_hand(ours: Tensor, theirs: Tensor) -> Tensor:
    shift = torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1)
    a, b = (ours - shift) / scale, (theirs - shift) / scale
    total = torch.zeros(len(ours))
    for index, layer in enumerate(narrow_vgg()):
        a, b = layer(a), layer(b)
        if index in TAKEN_AFTER:
            head = heads()[f"lin{TAKEN_AFTER.index(index)}.model.1.weight"]
            difference = nn.functional.normalize(a, dim=1) - nn.functional.normalize(b, dim=1)
            total = total + nn.functional.conv2d(difference.square(), head).mean(dim=(1, 2, 3))
    return total.detach()


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_lpips_reads_the_files_that_there_are(tmp_path: Path, ending: str, caplog: pytest.LogCaptureFixture) -> None:
    write: Any = save_file if ending == ".safetensors" else torch.save
    files = tmp_path / f"vgg16{ending}", tmp_path / f"heads{ending}"
    write({**features(), "classifier.0.weight": torch.zeros(2, 2), "classifier.0.bias": torch.zeros(2)}, files[0])
    write(heads(), files[1])
    settings = PerceptualSettings(kind="lpips", features=str(files[0]), heads=str(files[1]))

    with caplog.at_level(logging.INFO):
        distance = make_perceptual(settings, picture_vae())

    assert distance is not None
    found = distance(pictures(1), pictures(2))
    torch.testing.assert_close(found, lpips_by_hand(pictures(1), pictures(2)), rtol=1e-5, atol=0)
    assert "LPIPS" in caplog.text
    assert not any(parameter.requires_grad for parameter in distance.parameters())


def test_lpips_reads_the_names_of_the_original() -> None:
    numbers = {0: 1, 2: 1, 5: 2, 7: 2, 10: 3, 12: 3, 14: 3, 17: 4, 19: 4, 21: 4, 24: 5, 26: 5, 28: 5}
    named = {
        f"net.slice{numbers[int(k.split('.')[1])]}.{k.removeprefix('features.')}": v for k, v in features().items()
    }
    found = Lpips(named, {key.replace("model.1.", ""): value for key, value in heads().items()})
    assert torch.equal(found(pictures(1), pictures(2)), Lpips(features(), heads())(pictures(1), pictures(2)))


def test_a_picture_is_like_itself_and_its_distance_has_a_gradient_where_nothing_is_seen() -> None:
    judge = Lpips(features(), heads())
    assert judge(pictures(1), pictures(1)).tolist() == [0, 0]
    blind = Lpips({k: v - 9 if k.endswith("bias") else v for k, v in features().items()}, heads())
    made = pictures(2).requires_grad_()
    blind(pictures(1), made).sum().backward()
    assert made.grad is not None
    assert made.grad.isfinite().all()


def test_other_networks_are_refused() -> None:
    lacking = {key: value for key, value in features().items() if not key.startswith("features.17.")}
    with pytest.raises(CheckpointError, match=r"lacks the convolution features\.17"):
        Lpips(lacking, heads())
    with pytest.raises(CheckpointError, match=r"features\.2 is not for 2 channels"):
        Lpips({**features(), "features.2.weight": torch.zeros(2, 7, 3, 3)}, heads())
    with pytest.raises(CheckpointError, match="no lin3 of 5 channels"):
        Lpips(features(), {**heads(), "lin3.model.1.weight": torch.zeros(1, 9, 1, 1)})


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    settings = PerceptualSettings(kind="lpips", features=str(tmp_path / "no.pth"), heads=str(tmp_path / "none.pth"))
    with pytest.raises(CheckpointError, match=r"no\.pth"):
        make_perceptual(settings, picture_vae())


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"kind": "lpips", "heads": "a"}, "lpips needs two files"), ({"features": "a"}, "given for encoder")],
)
def test_files_are_given_where_they_are_needed(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        PerceptualSettings.model_validate(settings)


@pytest.mark.parametrize("make_vae", [picture_vae, video_vae])
def test_the_encoder_stands_in_and_stays_as_it_was(make_vae: Any, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    vae = make_vae()
    with caplog.at_level(logging.INFO):
        judge = make_perceptual(PerceptualSettings(), vae)
    assert judge is not None
    assert "in place of LPIPS" in caplog.text
    made = pictures(2).requires_grad_()

    before = judge(pictures(1), made)
    before.sum().backward()
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.add_(1)
    judge.train()

    assert before.shape == (2,)
    assert (before > 0).all()
    assert torch.equal(judge(pictures(1), made), before)
    assert judge(pictures(1), pictures(1)).tolist() == [0, 0]
    assert made.grad is not None
    assert made.grad.any()
    assert not any(parameter.requires_grad for parameter in judge.parameters())


def test_the_encoders_distance_is_that_of_unit_features() -> None:
    torch.manual_seed(0)
    vae = picture_vae()
    found = EncoderDistance(vae)(pictures(1), pictures(2))
    distances = []
    a, b = vae.encoder.conv_in(pictures(1)), vae.encoder.conv_in(pictures(2))
    for block in vae.encoder.down_blocks:
        a, b = block(a), block(b)
        difference = nn.functional.normalize(a, dim=1) - nn.functional.normalize(b, dim=1)
        distances.append(difference.square().sum(1).mean((1, 2)))
    torch.testing.assert_close(found, torch.stack(distances).mean(0).detach())


def test_differences_of_neighbours_are_compared() -> None:
    plain = torch.zeros(1, 3, 2, 2)
    edge = torch.tensor([[0.0, 1.0], [0.0, 1.0]]).expand(1, 3, 2, 2)
    judge = make_perceptual(PerceptualSettings(kind="differences"), picture_vae())
    assert isinstance(judge, DifferenceDistance)
    assert judge(plain, edge).tolist() == [1.0]
    assert judge(plain, plain + 1).tolist() == [0.0]


def test_what_counts_nothing_is_not_made() -> None:
    assert make_perceptual(PerceptualSettings(weight=0), picture_vae()) is None
