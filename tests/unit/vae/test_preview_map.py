"""Maps for previews: fitted, made smaller, stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from muybridge.errors import CheckpointError, ShapeError
from muybridge.vae.preview_map import PreviewMap, PreviewSums


def a_map(channels: int = 2, patch: int = 2, per_latent: int = 1) -> PreviewMap:
    generator = torch.Generator().manual_seed(0)
    weight = 0.02 * torch.randn(9 * channels + 1, per_latent * 3 * patch**2, generator=generator)
    weight[-1] = 0.5
    return PreviewMap(weight, patch, per_latent)


def some_latents(channels: int = 2, num_latents: int = 3, height: int = 6, width: int = 8) -> Tensor:
    return torch.randn(channels, num_latents, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("per_latent", [1, 4])
def test_a_map_is_found_again_from_what_it_makes(per_latent: int) -> None:
    true, latents = a_map(per_latent=per_latent), some_latents()
    sums = PreviewSums()
    sums.add(latents, true.frames(latents).numpy(), per_latent)
    found = sums.solve()
    assert (found.patch, found.frames_per_latent, found.channels) == (2, per_latent, 2)
    assert found.frames(latents).shape == (3 * per_latent, 12, 16, 3)
    difference = found.frames(latents).int() - true.frames(latents).int()
    assert difference.abs().max() <= 1  # which is what frames are rounded by


def test_of_large_videos_some_frames_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muybridge.vae.preview_map._ROWS_PER_VIDEO", 100)
    true, latents = a_map(per_latent=4), some_latents(num_latents=9)
    sums = PreviewSums()
    sums.add(latents, true.frames(latents, most_frames=99).numpy()[3:], 4)  # every fifth but the first, of 48 rows
    assert sums._gram[-1, -1] == 2 * 48
    found = sums.solve()
    assert (found.frames(latents).int() - true.frames(latents).int()).abs().max() <= 1


def test_a_lone_first_frame_has_a_latent_of_its_own() -> None:
    true, latents = a_map(per_latent=4), some_latents()
    sums = PreviewSums()
    sums.add(latents, true.frames(latents).numpy()[3:], 4)  # 1 + 4 + 4
    assert sums.solve().frames_per_latent == 4
    with pytest.raises(ShapeError, match="no multiple"):
        sums.add(latents, true.frames(latents).numpy()[4:], 4)


def test_large_frames_are_made_smaller_by_means() -> None:
    true, latents = a_map(patch=4), some_latents()
    whole, small = true.frames(latents), true.frames(latents, most_pixels=16)
    assert whole.shape == (3, 24, 32, 3)
    assert small.shape == (3, 12, 16, 3)
    mean = F.avg_pool2d(whole.movedim(-1, 1).float(), 2).movedim(1, -1)
    assert (mean - small).abs().max() <= 1
    assert true.frames(latents, most_pixels=4).shape == (3, 3, 4, 3)  # fewer than there are latents
    assert true.frames(some_latents(num_latents=50)).shape[0] == 17  # every third


def test_a_map_is_stored_and_read(tmp_path: Path) -> None:
    true, latents = a_map(), some_latents()
    true.save(tmp_path / "map.safetensors")
    found = PreviewMap.load(tmp_path / "map.safetensors")
    assert (found.frames(latents).int() - true.frames(latents).int()).abs().max() <= 1
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    for name in ("broken.safetensors", "absent.safetensors"):
        with pytest.raises(CheckpointError, match=name):
            PreviewMap.load(tmp_path / name)


def test_sums_go_on_on_another_day(tmp_path: Path) -> None:
    true = a_map()
    videos = [some_latents(height=size) for size in (6, 7)]
    whole, before = PreviewSums(), PreviewSums()
    for each in videos:
        whole.add(each, true.frames(each).numpy())
    before.add(videos[0], true.frames(videos[0]).numpy())
    before.save(tmp_path / "sums.safetensors")
    after = PreviewSums.load(tmp_path / "sums.safetensors")
    after.add(videos[1], true.frames(videos[1]).numpy())
    assert after.num_videos == 2
    assert torch.equal(after.solve().weight, whole.solve().weight)
    with pytest.raises(CheckpointError, match="absent"):
        PreviewSums.load(tmp_path / "absent")


def test_what_does_not_fit_is_refused() -> None:
    sums = PreviewSums()
    with pytest.raises(ShapeError, match="add some"):
        sums.solve()
    with pytest.raises(ShapeError, match="no multiple"):
        sums.add(some_latents(), np.zeros((3, 13, 16, 3), np.uint8))
    sums.add(some_latents(), np.zeros((3, 12, 16, 3), np.uint8))
    with pytest.raises(ShapeError, match="several VAEs"):
        sums.add(some_latents(), np.zeros((3, 24, 32, 3), np.uint8))
