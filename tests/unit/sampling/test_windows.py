"""Context windows around a predictor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.debug import TensorMemory
from muybridge.errors import ConfigError, ShapeError
from muybridge.sampling import (
    ContextWindows,
    Guidance,
    WindowSettings,
    denoise,
    make_scheduler,
    plan_windows,
    set_timesteps,
)

TIMESTEP = torch.tensor(500)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def frames_of(num_frames: int, step: int = 0, **settings: Any) -> list[list[int]]:
    return [list(window.frames) for window in plan_windows(num_frames, WindowSettings(**settings), step)]


def weights_of(num_frames: int, **settings: Any) -> list[list[float]]:
    return [list(window.weights) for window in plan_windows(num_frames, WindowSettings(**settings))]


def test_standard_windows_overlap_and_end_with_the_video() -> None:
    assert frames_of(9, size=4, overlap=1) == [[0, 1, 2, 3], [3, 4, 5, 6], [5, 6, 7, 8]]


def test_standard_windows_are_the_same_in_every_step() -> None:
    assert frames_of(20, 0, size=6, overlap=2) == frames_of(20, 7, size=6, overlap=2)


def test_uniform_windows_move_and_stay_inside() -> None:
    options = {"size": 6, "overlap": 2, "schedule": "uniform"}

    assert frames_of(16, 0, **options) == frames_of(16, 0, size=6, overlap=2)
    first_of = [[frames[0] for frames in frames_of(16, step, **options)] for step in range(4)]
    assert first_of == [[0, 4, 8, 10], [0, 2, 6, 10], [0, 1, 5, 9, 10], [0, 3, 7, 10]]


def test_looped_windows_go_on_from_the_last_frame_to_the_first() -> None:
    assert frames_of(8, 0, size=4, overlap=1, schedule="looped") == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 0, 1]]
    assert frames_of(8, 1, size=4, overlap=1, schedule="looped") == [[1, 2, 3, 4], [4, 5, 6, 7], [7, 0, 1, 2]]


def test_strides_add_windows_over_distant_frames() -> None:
    plain = frames_of(16, size=4, overlap=0)

    strided = frames_of(16, size=4, overlap=0, strides=3)

    assert strided[: len(plain)] == plain
    assert [0, 2, 4, 6] in strided
    assert [3, 7, 11, 15] in strided


def test_strides_that_do_not_fit_are_left_out() -> None:
    assert frames_of(7, size=4, overlap=0, strides=5) == frames_of(7, size=4, overlap=0)


def test_one_window_over_all_frames_is_in_order() -> None:
    for schedule in ("standard", "uniform", "looped"):
        assert frames_of(4, 3, size=4, overlap=2, schedule=schedule) == [[0, 1, 2, 3]]


def test_flat_fusing_averages() -> None:
    assert weights_of(6, size=4, overlap=2, fusing="flat") == [[1, 1, 0.5, 0.5], [0.5, 0.5, 1, 1]]


def test_pyramid_fusing_prefers_the_middle() -> None:
    first, second = weights_of(6, size=4, overlap=2, fusing="pyramid")

    assert first == pytest.approx([1, 1, 2 / 3, 1 / 3])
    assert second == pytest.approx([1 / 3, 2 / 3, 1, 1])


def test_overlap_linear_fusing_fades_over_the_overlap_only() -> None:
    first, second = weights_of(9, size=6, overlap=3, fusing="overlap-linear")

    assert first == pytest.approx([1, 1, 1, 0.75, 0.5, 0.25])
    assert second == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])


def test_a_window_larger_than_the_video_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"A window of 16 frames is larger than the video of 12\. Make it 12"):
        plan_windows(12, WindowSettings())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "size of at least 1"),
        ({"size": 4, "overlap": 4}, "overlap from 0 to below the size; given size 4 and overlap 4"),
        ({"overlap": -1}, "overlap from 0"),
        ({"strides": 0}, "strides must be at least 1"),
        ({"schedule": "sideways"}, "schedule must be one of standard, uniform, looped; given 'sideways'"),
        ({"fusing": "hard"}, "fusing must be one of flat, pyramid, overlap-linear; given 'hard'"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        WindowSettings(**settings)


def of_window(latents: Tensor, timestep: Tensor, **conditions: Tensor) -> Tensor:
    """Each frame gets the mean over the frames that are seen with it, times the timestep."""
    result = latents.mean(dim=2, keepdim=True).expand_as(latents) * timestep / 1000
    for value in conditions.values():
        result = result + value
    return result


def test_overlapping_windows_are_averaged() -> None:
    latents = noise(1, 4, 6, 2, 2)

    found = ContextWindows(of_window, WindowSettings(4, 2, fusing="flat"))(latents, TIMESTEP)

    first, second = latents[:, :, :4].mean(dim=2) / 2, latents[:, :, 2:].mean(dim=2) / 2
    expected = [first, first, (first + second) / 2, (first + second) / 2, second, second]
    torch.testing.assert_close(found, torch.stack(expected, dim=2))


@pytest.mark.parametrize("schedule", ["standard", "uniform", "looped"])
def test_what_looks_at_single_frames_is_not_changed_by_windows(schedule: Any) -> None:
    latents = noise(2, 4, 13, 3, 2)

    def predict(latents: Tensor, timestep: Tensor) -> Tensor:
        return latents * timestep

    windows = ContextWindows(predict, WindowSettings(5, 2, schedule, strides=2))
    for step in range(4):
        windows.begin_step(step)
        torch.testing.assert_close(windows(latents, TIMESTEP), latents * TIMESTEP)


@pytest.mark.parametrize("schedule", ["standard", "looped"])
def test_conditions_of_frames_are_cut_with_the_latents(schedule: Any) -> None:
    latents, shown = torch.zeros(1, 4, 7, 2, 2), noise(1, 4, 7, 2, 2, seed=1)
    whole = noise(1, 4, 1, 2, 2, seed=2)
    per_text = torch.arange(7.0).reshape(1, 7, 1, 1)

    def predict(latents: Tensor, timestep: Tensor, shown: Tensor, text: Tensor, whole: Tensor) -> Tensor:  # noqa: ARG001
        return latents + shown + text.transpose(1, 2)[..., None] + whole

    windows = ContextWindows(predict, WindowSettings(4, 1, schedule), {"shown": 2, "text": 1, "absent": 2})
    windows.begin_step(1)
    found = windows(latents, TIMESTEP, shown=shown, text=per_text, whole=whole)

    torch.testing.assert_close(found, shown + torch.arange(7.0)[:, None, None] + whole)


def test_conditions_of_other_lengths_are_refused() -> None:
    windows = ContextWindows(of_window, WindowSettings(4, 1), {"shown": 2})

    with pytest.raises(ShapeError, match=r"'shown' must have 7 frames on axis 2; given \(1, 4, 6, 2, 2\)"):
        windows(noise(1, 4, 7, 2, 2), TIMESTEP, shown=noise(1, 4, 6, 2, 2))


@pytest.mark.parametrize("batched", [True, False])
def test_guidance_goes_around_windows(batched: bool) -> None:
    latents = noise(2, 4, 6, 2, 2)
    positive, negative = ({"shown": noise(2, 4, 6, 2, 2, seed=seed)} for seed in (1, 2))
    windows = ContextWindows(of_window, WindowSettings(4, 2), {"shown": 2})

    found = Guidance(windows, positive, negative, 3.0, batched)(latents, TIMESTEP)

    one, other = windows(latents, TIMESTEP, **positive), windows(latents, TIMESTEP, **negative)
    torch.testing.assert_close(found, other + 3 * (one - other))


@pytest.fixture
def predict(pipeline: Any) -> Callable[..., Tensor]:
    unet: UNet3DConditionModel = pipeline.unet
    text = noise(1, 7, 16, seed=9)

    def predict(latents: Tensor, timestep: Tensor) -> Tensor:
        with torch.no_grad():
            return unet(latents, timestep, text).sample

    return predict


@pytest.mark.parametrize("schedule", ["standard", "uniform", "looped"])
def test_one_window_over_all_frames_is_bit_identical_to_none(predict: Callable[..., Tensor], schedule: Any) -> None:
    windows = ContextWindows(predict, WindowSettings(6, 2, schedule))
    scheduler = make_scheduler("ddim")
    set_timesteps(scheduler, 3)
    start = noise(1, 4, 6, 8, 8)

    with_windows = denoise(windows, scheduler, start, scheduler.timesteps, before_step=windows.begin_step)

    assert torch.equal(with_windows, denoise(predict, scheduler, start, scheduler.timesteps))


def test_windows_are_told_the_steps() -> None:
    told: list[int] = []
    scheduler = make_scheduler("ddim")
    set_timesteps(scheduler, 4)

    denoise(
        lambda latents, _: latents * 0.1, scheduler, noise(1, 4, 2, 2, 2), scheduler.timesteps, before_step=told.append
    )

    assert told == [0, 1, 2, 3]


def peak(predict: Callable[..., Tensor], num_frames: int) -> int:
    latents = noise(1, 4, num_frames, 8, 8)
    with TensorMemory() as memory:
        predict(latents, TIMESTEP)
    return memory.peak_bytes


BYTES_OF_A_FRAME = 4 * 8 * 8 * 4


@pytest.mark.parametrize("schedule", ["standard", "looped"])
def test_peak_memory_grows_by_the_latents_only(predict: Callable[..., Tensor], schedule: Any) -> None:
    windows = ContextWindows(predict, WindowSettings(4, 1, schedule))

    growth = peak(windows, 16) - peak(windows, 6)

    # The sum of the predictions is all that has as many frames as the latents.
    assert growth <= 10 * BYTES_OF_A_FRAME * 1.05


def test_peak_memory_without_windows_grows_by_much_more(predict: Callable[..., Tensor]) -> None:
    assert peak(predict, 8) - peak(predict, 4) > 4 * BYTES_OF_A_FRAME * 20
