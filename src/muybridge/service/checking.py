"""What is wrong with a request, as far as that can be told before the weights of its model are read."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from muybridge.errors import ConfigError, ShapeError
from muybridge.longvideo import check_long
from muybridge.pipelines.family import ModelFacts
from muybridge.pipelines.plan import asked_shape
from muybridge.request import GenerateRequest, Inputs
from muybridge.sampling import scheduler_names
from muybridge.service.long_generation import is_long

_PATHS = {"segment_frames": "segments.frames", "overlap_frames": "segments.overlap"}
"""Of a request, by the names that plans of long videos go by."""


def check_scheduler(request: GenerateRequest) -> None:
    """Raises ConfigError for a scheduler that is not known."""
    name = request.sampling.scheduler
    if name is not None and name not in scheduler_names():
        raise ConfigError(
            f"sampling.scheduler: there is no scheduler {name!r:.60}. Known: {', '.join(scheduler_names())}."
        )


def check_request(request: GenerateRequest, inputs: Inputs, facts: ModelFacts) -> None:
    """Check a request against what is known of its model. Errors begin with the path of the setting.

    Raises:
        ConfigError: settings that do not go together.
        ShapeError: sizes, lengths or frames that cannot be.
    """
    check_scheduler(request)
    usual, count = facts.usual, request.shape.num_frames
    if request.sampling.windows is not None:
        usual = replace(usual, is_bounded=False)  # as pipelines have it
    for name in ("width", "height"):
        _check_multiple(f"shape.{name}", getattr(request.shape, name), usual.multiple)
    if is_long(request, facts.can.is_continued, usual.num_frames):
        _check_long(request, usual.num_frames, facts.frame_multiple)
    elif count is not None and count > 1 and (most := usual.largest(count)) != count:
        raise ShapeError(f"shape.num_frames: this model cannot make {count} frames; it can make {most}.")
    if usual.size is None and request.shape.fit is None and None in (request.shape.height, request.shape.width):
        return  # loading says at which size it was made
    with warnings.catch_warnings(action="ignore"):  # making the video gives them
        shape, _ = asked_shape(request, inputs, usual)
    fitted = None if request.shape.fit is None else request.size_to_fit(inputs)
    for index, each in enumerate(request.conditions):
        with _at(f"conditions.{index}"):
            each.check_shape(shape, facts.can, inputs, fitted)


def _check_multiple(path: str, given: int | None, multiple: int) -> None:
    if given is None or given % multiple == 0:
        return
    nearest = max(multiple, round(given / multiple) * multiple)
    raise ShapeError(
        f"{path}: must be a multiple of {multiple} for this model (given {given}); {nearest} is the nearest."
    )


def _check_long(request: GenerateRequest, at_once: int, multiple: int) -> None:
    try:
        check_long(request, at_once, multiple)
    except ShapeError as error:
        name = str(error).split(" ", 1)[0]
        raise ShapeError(f"{_PATHS.get(name, 'shape.num_frames')}: {error}") from error


@contextmanager
def _at(path: str) -> Iterator[None]:
    """Errors of the block with the path of what they are about."""
    try:
        yield
    except (ConfigError, ShapeError) as error:
        raise type(error)(f"{path}: {error}") from error
