"""Segments made by EasyAnimate's pipeline, each from the pictures or from the latents of the one before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from muybridge.errors import ConfigError, ShapeError
from muybridge.longvideo.continuation import Carry
from muybridge.longvideo.plan import Segment, plan_segments

if TYPE_CHECKING:
    from torch import Tensor

    from muybridge.pipelines import EasyAnimatePipeline

Strategy = Literal["crossfade", "latent"]
_OVERLAP_FRAMES = 4  # the original's
_OF_ONE_VIDEO = {"init_video", "mask", "strength", "latents", "known_latents", "output_type", "num_frames", "seed"}


class PipelineSegments:
    """A pipeline as what `continue_video` needs: the plan of a video, and the generator of its segments.

    `crossfade` is the original's way: the last frames so far are handed on as pictures, and known as such. `latent`
    hands on the latents that these frames were decoded from, whole pieces of the VAE, and the next segment has exactly
    these: nothing is rounded to 8 bits, encoded again, or made twice. Both decodings of the shared frames then differ
    in their neighbours only, and fading from one to the other hides where one ends.

    Attributes:
        strategy: `crossfade` or `latent`.
        segment_frames: frames made at once.
        overlap_frames: frames that neighbouring segments share.
    """

    def __init__(
        self,
        pipeline: EasyAnimatePipeline,
        arguments: Mapping[str, Any],
        strategy: Strategy = "crossfade",
        segment_frames: int | None = None,
        overlap_frames: int | None = None,
    ) -> None:
        """Check what can be, before anything is made.

        Args:
            pipeline: of the model.
            arguments: of its calls: a prompt, keyframes 0 and -1 of the whole video, and settings.
            strategy: what a segment is continued from.
            segment_frames: by default what the model makes at once.
            overlap_frames: by default 4, and with `latent` the frames of one piece of the VAE (8 in V3).

        Raises:
            ConfigError: an unknown strategy, or arguments that a long video cannot have.
            ShapeError: an overlap of one picture, which a model that holds keyframes would show for longer.
        """
        if strategy not in get_args(Strategy):
            raise ConfigError(f"strategy must be one of {', '.join(get_args(Strategy))}; given {strategy!r}.")
        if strategy == "crossfade" and not pipeline.takes_pictures:
            raise ConfigError(
                "This model has 4 channels and takes no pictures to continue from. Use the strategy 'latent'."
            )
        _check_arguments(arguments)
        keyframes = dict(arguments.get("keyframes") or {})
        self._first, self._last = keyframes.pop(0, None), keyframes.pop(-1, None)
        if keyframes:
            raise ConfigError(f"A long video can have keyframes 0 and -1; given {', '.join(map(str, keyframes))} too.")
        self._pipeline = pipeline
        self._arguments = {name: value for name, value in arguments.items() if name != "keyframes"}
        self.strategy: Strategy = strategy
        self.segment_frames = segment_frames or pipeline.config["default_num_frames"]
        self._piece_frames: int = pipeline.vae.frame_multiple
        usual = _OVERLAP_FRAMES if strategy == "crossfade" else self._piece_frames
        self.overlap_frames = usual if overlap_frames is None else overlap_frames
        held = pipeline.config["known_frames"]
        if strategy == "crossfade" and self.overlap_frames == 1 and held > 1:
            raise ShapeError(
                f"This model holds a single picture for {held} frames, so overlap_frames must be at least 2; given 1."
            )

    def plan(self, num_frames: int | None) -> Iterator[Segment]:
        """The segments of a video of `num_frames`, None for one without end; see `plan_segments`.

        Raises:
            ShapeError: numbers of frames that cannot be, with the nearest that can.
            ConfigError: a last keyframe without an end.
        """
        return plan_segments(
            num_frames,
            self.segment_frames,
            self.overlap_frames,
            self._piece_frames,
            known_multiple=self._piece_frames if self.strategy == "latent" else 1,
            has_first_keyframe=self._first is not None,
            has_last_keyframe=self._last is not None,
            held_frames=self._pipeline.config["known_frames"],
        )

    def __call__(
        self, segment: Segment, carried: Carry | None, seed: int, /
    ) -> tuple[npt.NDArray[np.uint8], Tensor | None]:
        """A segment, as `SegmentGenerator` says; with `latent`, also all latents up to where it is cut off."""
        keyframes: dict[int, Any] = {}
        if segment.has_first_keyframe:
            keyframes[0] = self._first
        if segment.has_last_keyframe:
            keyframes[-1] = self._last
        own = {**self._arguments, "num_frames": segment.num_frames, "seed": seed}
        if self.strategy == "crossfade":
            keyframes |= {} if carried is None else dict(enumerate(carried.frames))
            return self._pipeline(**own, keyframes=keyframes or None).frames, None
        known = None if carried is None else {0: self._known(segment, carried)}
        latents = self._pipeline(**own, keyframes=keyframes or None, known_latents=known, output_type="latent")
        profile = self._arguments.get("profile")
        frames = np.concatenate(list(self._pipeline.decode(latents[0], profile, seed)))
        return frames, latents[:, :, : self._num_latents(segment.add_stop)]

    def _known(self, segment: Segment, carried: Carry) -> Tensor:
        if carried.latents is None:
            raise ConfigError(
                f"Segment {segment.index - 1} left no latents to continue from. Make it anew, or start in another "
                "folder."
            )
        return carried.latents[:, :, -self._num_latents(segment.num_known) :]

    def _num_latents(self, num_frames: int) -> int:
        """Latent frames of the pieces that `num_frames` fill; a piece that is cut off counts no more."""
        return num_frames // self._piece_frames * self._pipeline.vae.num_latent_frames(self._piece_frames)


def _check_arguments(arguments: Mapping[str, Any]) -> None:
    given = {name for name, value in arguments.items() if value is not None}
    if "init_video" in given:
        raise ConfigError("A source video cannot be longer than the model makes at once; ask for fewer frames.")
    if foreign := sorted(given & _OF_ONE_VIDEO):
        raise ConfigError(
            f"A long video is made in segments, to which {', '.join(foreign)} cannot apply. Leave it out."
        )
    if not isinstance(arguments.get("prompt"), str) or arguments.get("num_videos_per_prompt", 1) != 1:
        raise ConfigError("A long video is one video of one prompt; give a prompt as text, and make one at a time.")
