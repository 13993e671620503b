"""Whatever is asked for: a plan of windows covers every frame, and the weights of a frame sum to one."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from muybridge.sampling import Window, WindowSettings, plan_windows


@st.composite
def plans(draw: st.DrawFn) -> tuple[int, WindowSettings, list[Window]]:
    num_frames = draw(st.integers(1, 80))
    size = draw(st.integers(1, num_frames))
    fields: dict[str, Any] = {
        "overlap": draw(st.integers(0, size - 1)),
        "schedule": draw(st.sampled_from(["standard", "uniform", "looped"])),
        "fusing": draw(st.sampled_from(["flat", "pyramid", "overlap-linear"])),
        "strides": draw(st.integers(1, 4)),
    }
    settings = WindowSettings(size, **fields)
    return num_frames, settings, plan_windows(num_frames, settings, draw(st.integers(0, 1000)))


@given(plans())
def test_weights_of_every_frame_sum_to_one(drawn: tuple[int, WindowSettings, list[Window]]) -> None:
    num_frames, _, windows = drawn
    totals = [0.0] * num_frames
    for window in windows:
        for frame, weight in zip(window.frames, window.weights, strict=True):
            assert weight > 0
            totals[frame] += weight

    assert all(abs(total - 1) < 1e-9 for total in totals)


@given(plans())
def test_windows_have_their_size_and_no_frame_twice(drawn: tuple[int, WindowSettings, list[Window]]) -> None:
    num_frames, settings, windows = drawn

    for window in windows:
        assert len(window.frames) == len(set(window.frames)) == settings.size
        assert all(0 <= frame < num_frames for frame in window.frames)


@given(plans())
def test_only_looped_windows_leave_the_order_of_time(drawn: tuple[int, WindowSettings, list[Window]]) -> None:
    _, settings, windows = drawn

    if settings.schedule != "looped":
        assert all(list(window.frames) == sorted(window.frames) for window in windows)
