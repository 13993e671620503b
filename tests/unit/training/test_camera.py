"""Camera moves made of stills: where the windows go, and how a move is found again."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor

from muybridge.errors import ConfigError
from muybridge.training.camera import CameraClips, camera_extent, camera_windows, look_through
from muybridge.training.camera_moves import CameraMove

MOVES: tuple[CameraMove, ...] = get_args(CameraMove)


def picture(height: int = 48, width: int = 48) -> Tensor:
    """Smooth patches of colour, none like another."""
    noise = torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(3))
    return torch.nn.functional.interpolate(noise, (height, width), mode="bicubic").clamp(-1, 1)


def spot(x: int, y: int, size: int = 33) -> Tensor:
    pixels = torch.zeros(1, 1, size, size)
    pixels[..., y - 1 : y + 2, x - 1 : x + 2] = 1
    return pixels


def place(frame: Tensor) -> tuple[float, float]:
    """Of the brightest point, from the middle: to the right, and down."""
    weights = frame[0] / frame[0].sum()
    middle = torch.arange(frame.shape[-1]) - (frame.shape[-1] - 1) / 2
    return float((weights.sum(0) * middle).sum()), float((weights.sum(1) * middle).sum())


def seen(move: CameraMove, pixels: Tensor, extent: float = 0.3, frames: int = 5) -> Tensor:
    return look_through(pixels, camera_windows(move, torch.tensor([extent]), frames))[0]


@pytest.mark.parametrize(
    ("move", "goes"),
    [("pan-right", (-1, 0)), ("pan-left", (1, 0)), ("tilt-up", (0, 1)), ("tilt-down", (0, -1))],
)
def test_things_go_against_the_camera(move: CameraMove, goes: tuple[int, int]) -> None:
    places = torch.tensor([place(frame) for frame in seen(move, spot(16, 16))])

    steps = places.diff(dim=0)
    torch.testing.assert_close(steps, steps.mean(0).expand_as(steps), atol=0.15, rtol=0)  # at constant speed
    across = 33 * 0.3 / 0.7
    torch.testing.assert_close(places[-1] - places[0], torch.tensor(goes) * across, atol=0.3, rtol=0)


def test_zooms_make_things_larger_or_smaller() -> None:
    zooms: tuple[tuple[CameraMove, float], ...] = (("zoom-in", 1 / 0.7), ("zoom-out", 0.7))
    for move, factor in zooms:
        first, last = (place(frame)[0] for frame in seen(move, spot(20, 16))[[0, -1]])
        assert last / first == pytest.approx(factor, abs=0.05)


def test_rolls_turn_what_is_shown() -> None:
    rolls: tuple[tuple[CameraMove, int], ...] = (("roll-clockwise", 1), ("roll-anticlockwise", -1))
    for move, direction in rolls:
        places = [place(frame) for frame in seen(move, spot(20, 16))]
        right, down = places[-1]
        angle = torch.atan2(torch.tensor(down), torch.tensor(right))
        assert float(angle) == pytest.approx(direction * 0.6, abs=0.05)


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("size", [(48, 48), (40, 60)])
def test_a_move_is_found_again(move: CameraMove, size: tuple[int, int]) -> None:
    pixels = picture(*size)
    frames = seen(move, pixels, 0.25)

    assert frames.shape == (5, 3, *size)
    assert camera_extent(frames[0], frames[-1], move) == pytest.approx(0.25, abs=0.03)
    assert camera_extent(frames[-1], frames[0], move) == pytest.approx(-0.25, abs=0.06)


def test_nothing_moved_is_nought() -> None:
    assert all(camera_extent(picture()[0], picture()[0], move) == pytest.approx(0, abs=1e-6) for move in MOVES)


def test_windows_stay_in_square_pictures() -> None:
    ones = torch.ones(1, 1, 20, 20)
    for move in MOVES:
        windows = camera_windows(move, torch.tensor([0.4]), 4)
        corners = windows.scale * (windows.angle.abs().cos() + windows.angle.abs().sin())
        reach = corners / 2 + torch.maximum(windows.x.abs(), windows.y.abs())
        assert float(reach.max()) <= 0.5 + 1e-6, move
        torch.testing.assert_close(look_through(ones, windows), torch.ones(1, 4, 1, 20, 20))


def test_batches_keep_all_else() -> None:
    clips = torch.rand(2, 4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    batches = CameraClips(
        lambda index: {"pixels": clips + index, "input_ids": torch.tensor([index])}, "pan-left", (0.2, 0.4), 1
    )

    batch = batches(3)

    assert batch["pixels"].shape == clips.shape
    assert int(batch["input_ids"]) == 3
    assert torch.equal(batches(3)["pixels"], batch["pixels"])
    assert not torch.equal(batches(4)["pixels"] - 1, batch["pixels"])
    changed = clips.clone()
    changed[:, 1:] = 0
    again = CameraClips(lambda index: {"pixels": changed + index}, "pan-left", (0.2, 0.4), 1)
    assert torch.equal(again(3)["pixels"], batch["pixels"]), "the clips' own motion is not seen"


@pytest.mark.parametrize("extents", [(0.0, 0.2), (0.3, 0.2), (0.2, 1.0)])
def test_extents_that_are_refused(extents: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="above 0 and below 1"):
        CameraClips(lambda _: {}, "pan-left", extents, 0)
