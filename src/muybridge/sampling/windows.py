"""Context windows: a network sees some frames at a time, and what it says of frames seen often is averaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from muybridge.errors import ShapeError
from muybridge.request.sampling import WindowSettings
from muybridge.sampling.guidance import Predict

_FRAMES = 2  # axis of latents and predictions


@dataclass(frozen=True)
class Window:
    """Frames that are seen together.

    Attributes:
        frames: their indices, in the order in which the network gets them.
        weights: what this window counts in each of them; over all windows of a plan, those of a frame sum to 1.
    """

    frames: tuple[int, ...]
    weights: tuple[float, ...]


def plan_windows(num_frames: int, settings: WindowSettings, step: int = 0) -> list[Window]:
    """The windows of a denoising step; every frame is in at least one.

    Args:
        num_frames: of the video.
        settings: how to cut.
        step: its index, on which "uniform" and "looped" depend.

    Raises:
        ShapeError: a window is larger than the video.
    """
    if settings.size > num_frames:
        raise ShapeError(
            f"A window of {settings.size} frames is larger than the video of {num_frames}. Make it {num_frames} or "
            "smaller, or leave windows out."
        )
    if settings.size == num_frames:
        return [Window(tuple(range(num_frames)), (1.0,) * num_frames)]
    groups: list[tuple[tuple[int, ...], tuple[float, ...]]] = []
    for level in range(settings.strides):
        stride = 2**level
        if stride > 1 and settings.size * stride > num_frames:
            break
        starts = _starts(num_frames, settings, stride, step)
        for start in starts:
            frames = tuple((start + stride * index) % num_frames for index in range(settings.size))
            groups.append((frames, _shape(settings, start, stride, num_frames)))
    totals = [0.0] * num_frames
    for frames, weights in groups:
        for frame, weight in zip(frames, weights, strict=True):
            totals[frame] += weight
    return [
        Window(frames, tuple(weight / totals[frame] for frame, weight in zip(frames, weights, strict=True)))
        for frames, weights in groups
    ]


def _starts(num_frames: int, settings: WindowSettings, stride: int, step: int) -> list[int]:
    hop = (settings.size - settings.shared) * stride
    offset = 0 if settings.schedule == "standard" else int(_halving(step) * hop)
    phases = range(stride)  # of a strided round, so that it too reaches every frame
    if settings.schedule == "looped":
        return [(phase + offset + start) % num_frames for start in range(0, num_frames, hop) for phase in phases]
    last = num_frames - 1 - (settings.size - 1) * stride
    return sorted(
        {
            min(max(phase + offset + start, 0), last)
            for start in range(-hop if offset else 0, num_frames, hop)
            for phase in phases
        }
    )


def _halving(step: int) -> float:
    """0, 1/2, 1/4, 3/4, 1/8, ...: each step falls into the widest gap that those before it left."""
    result, share = 0.0, 0.5
    while step:
        result += share * (step & 1)
        step, share = step >> 1, share / 2
    return result


def _shape(settings: WindowSettings, start: int, stride: int, num_frames: int) -> tuple[float, ...]:
    size = settings.size
    if settings.fusing == "flat":
        return (1.0,) * size
    if settings.fusing == "pyramid":
        return tuple(float(min(index + 1, size - index)) for index in range(size))
    # Nothing to fade into before the first frame of a video and behind its last.
    looped = settings.schedule == "looped"
    fades_in = looped or start >= stride
    fades_out = looped or start + size * stride < num_frames
    ramp = settings.shared + 1
    return tuple(
        min(1.0, (index + 1) / ramp if fades_in else 1.0, (size - index) / ramp if fades_out else 1.0)
        for index in range(size)
    )


class ContextWindows:
    """A predictor that calls another one window by window.

    Goes between guidance and the network: `Guidance(ContextWindows(network, ...), ...)`. Besides the latents and their
    like, no more memory is taken than for one window, however long the video is. One window over all frames is the
    network itself, bit for bit.
    """

    def __init__(
        self,
        predict: Predict,
        settings: WindowSettings,
        frame_axes: Mapping[str, int] | None = None,
        frames_per_piece: int = 1,
    ) -> None:
        """Wrap a predictor.

        Args:
            predict: called with the frames of a window.
            settings: how to cut, counted in pieces.
            frame_axes: for each condition that has a part for every frame, by name, the axis of its frames: 2 for
                `[b, c, f, h, w]`, 1 for `[b, f, n, d]`. Other conditions go to every window whole.
            frames_per_piece: latent frames that are never parted, where the place of one among them means something.
        """
        self._predict = predict
        self._settings = settings
        self._frame_axes = dict(frame_axes or {})
        self._piece = frames_per_piece
        self._step = 0

    def begin_step(self, index: int) -> None:
        """Say which step comes next, for schedules that move; see `denoise(before_step=...)`."""
        self._step = index

    def __call__(self, latents: Tensor, timestep: Tensor, /, **conditions: Tensor) -> Tensor:
        """The prediction for `latents [b, c, f, h, w]`, in their dtype.

        Raises:
            ShapeError: a window is larger than the video, or a condition has not one part for each frame.
        """
        num_frames = latents.shape[_FRAMES]
        windows = [
            _of_frames(window, self._piece)
            for window in plan_windows(num_frames // self._piece, self._settings, self._step)
        ]
        own = {name: axis for name, axis in self._frame_axes.items() if name in conditions}
        for name, axis in own.items():
            if conditions[name].shape[axis] != num_frames:
                raise ShapeError(
                    f"Condition {name!r} must have {num_frames} frames on axis {axis}; given "
                    f"{tuple(conditions[name].shape)}."
                )
        if len(windows) == 1:
            return self._predict(latents, timestep, **conditions)
        total = torch.zeros_like(latents, memory_format=torch.contiguous_format)
        for window in windows:
            parts = {name: _take(conditions[name], axis, window.frames) for name, axis in own.items()}
            prediction = self._predict(_take(latents, _FRAMES, window.frames), timestep, **{**conditions, **parts})
            _add_to(total, prediction, window)
        return total


def _of_frames(window: Window, piece: int) -> Window:
    """A window over pieces as one over their frames."""
    if piece == 1:
        return window
    frames = tuple(index * piece + place for index in window.frames for place in range(piece))
    return Window(frames, tuple(weight for weight in window.weights for _ in range(piece)))


def _is_run(frames: Sequence[int]) -> bool:
    return frames[-1] - frames[0] == len(frames) - 1


def _take(tensor: Tensor, axis: int, frames: Sequence[int]) -> Tensor:
    if _is_run(frames):
        return tensor.narrow(axis, frames[0], len(frames))
    return tensor.index_select(axis, torch.tensor(frames, device=tensor.device))


def _add_to(total: Tensor, prediction: Tensor, window: Window) -> None:
    weights = torch.tensor(window.weights, dtype=total.dtype, device=total.device)
    weighted = prediction * weights[:, None, None]
    if _is_run(window.frames):
        total.narrow(_FRAMES, window.frames[0], len(window.frames)).add_(weighted)
    else:
        total.index_add_(_FRAMES, torch.tensor(window.frames, device=total.device), weighted)
