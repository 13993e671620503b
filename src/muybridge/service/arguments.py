"""From a request to the arguments of a pipeline: files read, settings that a family does not have refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from muybridge.conditioning import fit_size, open_picture
from muybridge.errors import ConfigError
from muybridge.pipelines import EasyAnimatePipeline
from muybridge.service.requests import GenerateRequest
from muybridge.video import read_video

_OF_EASYANIMATE = frozenset(
    {
        "profile",
        "clip_apply_ratio",
        "keyframes",
        "init_video",
        "mask",
        "strength",
        "fit",
        "segment_frames",
        "overlap_frames",
    }
)
_NOT_OF_THE_CALL = frozenset({"model", "motion_adapter", "fit", "segment_frames", "overlap_frames"})


def animatediff_arguments(request: GenerateRequest) -> dict[str, Any]:
    """Arguments of `AnimateDiffPipeline`.

    Raises:
        ConfigError: a setting that this family does not have.
    """
    given = request.model_dump(exclude_none=True)
    if foreign := sorted(given.keys() & _OF_EASYANIMATE):
        raise ConfigError(f"An AnimateDiff model has no {', '.join(foreign)}; leave out, or use an EasyAnimate model.")
    return {name: value for name, value in given.items() if name not in _NOT_OF_THE_CALL}


def easyanimate_arguments(request: GenerateRequest, pipeline: EasyAnimatePipeline) -> dict[str, Any]:
    """Arguments of `EasyAnimatePipeline`; its pictures and videos are opened.

    Raises:
        ConfigError: `fit` together with a size, or without a keyframe.
        InputFileError: a file that cannot be read.
    """
    given = request.model_dump(exclude_none=True)
    arguments = {name: value for name, value in given.items() if name not in _NOT_OF_THE_CALL}
    if request.keyframes is not None:
        arguments["keyframes"] = {frame: open_picture(path) for frame, path in request.keyframes.items()}
    if request.init_video is not None:
        arguments["init_video"] = read_video(Path(request.init_video))
    if request.mask is not None:
        arguments["mask"] = np.asarray(open_picture(request.mask).convert("L"))
    if request.fit is not None:
        if request.width is not None or request.height is not None:
            raise ConfigError("fit takes the size from the first keyframe; leave width and height out.")
        if request.keyframes is None:
            raise ConfigError("fit takes the size from the first keyframe; give one, as in 0=start.png.")
        picture = arguments["keyframes"][min(request.keyframes, key=lambda frame: (frame < 0, frame))]
        size = fit_size(picture.height, picture.width, request.fit, pipeline.size_multiple)
        arguments["height"], arguments["width"] = size
    return arguments
