"""Segments made by a pipeline, each from the pictures or from the latents of the one before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from muybridge.errors import ConfigError, InterruptedRunError, ShapeError
from muybridge.longvideo.continuation import Carry
from muybridge.longvideo.plan import Segment, plan_segments
from muybridge.pipelines.base import OutputType
from muybridge.pipelines.progress import OnProgress, Progress
from muybridge.request import Condition, Inputs, Request, Segments
from muybridge.request.condition import Shown, conditions_of_call
from muybridge.request.sizes import fit_size

if TYPE_CHECKING:
    from torch import Tensor

    from muybridge.pipelines import VideoPipeline

Strategy = Literal["crossfade", "latent"]
_OVERLAP_FRAMES = 4  # the original's


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
        pipeline: VideoPipeline,
        request: Request,
        inputs: Inputs | None = None,
        batched_guidance: bool | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        """Check what can be, before anything is made.

        Args:
            pipeline: of the model; any that takes keyframes can use `crossfade`, and every one `latent`.
            request: with a prompt, keyframes 0 and -1 of the whole video, and settings; its segments say how, by
                default `crossfade`, what the model makes at once, and an overlap of 4 or, with `latent`, of the frames
                of one piece of the VAE (8 in EasyAnimate V3).
            inputs: its files, where they have been opened already.
            batched_guidance: see `VideoPipeline.make`.
            on_progress: likewise, told of each segment; what it raises ends the video there.

        Raises:
            ConfigError: an unknown strategy, one that the model cannot follow, or conditions that a long video cannot
                have.
            ShapeError: an overlap of one picture, which a model that holds keyframes would show for longer.
        """
        asked = request.segments or Segments()
        strategy = asked.strategy or "crossfade"
        if strategy not in get_args(Strategy):
            raise ConfigError(f"strategy must be one of {', '.join(get_args(Strategy))}; given {strategy!r}.")
        if strategy == "crossfade":
            _check_pictures(pipeline)
        elif pipeline.codec.latents_per_piece is None:
            raise ConfigError(
                "The strategy 'latent' needs a VAE that works piece by piece; this one takes all frames at once. Use "
                "'crossfade'."
            )
        _check_request(request)
        keyframes, first, last = _ends(request)
        self._pipeline = pipeline
        self._request = request.model_copy(update={"segments": None})
        self._keyframes = keyframes
        self._inputs = inputs or Inputs()
        self._first, self._last = self._as_fitted(first, 0), self._as_fitted(last, -1)
        self._batched_guidance = batched_guidance
        self._on_progress = on_progress
        self.strategy: Strategy = strategy
        self._piece_frames: int = pipeline.codec.frame_multiple
        self.segment_frames = asked.frames or pipeline.frames_at_once
        self.overlap_frames = _overlap(asked, self._piece_frames)
        held = pipeline.known_frames
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
            held_frames=self._pipeline.known_frames,
        )

    def __call__(
        self, segment: Segment, carried: Carry | None, seed: int, /
    ) -> tuple[npt.NDArray[np.uint8], Tensor | None]:
        """A segment, as `SegmentGenerator` says; with `latent`, also all latents up to where it is cut off."""
        pictures = {}
        if segment.has_first_keyframe:
            pictures[0] = self._first
        if segment.has_last_keyframe:
            pictures[-1] = self._last
        if self.strategy == "crossfade":
            pictures |= {} if carried is None else dict(enumerate(carried.frames))
            return self._make(segment, seed, self._pinned(pictures), "video").frames, None
        conditions = self._pinned(pictures)
        if carried is not None:
            conditions.append(_known_latents(self._known(segment, carried)))
        latents = self._make(segment, seed, conditions, "latent")
        frames = np.concatenate(list(self._decoded(latents[0], seed)))
        return frames, latents[:, :, : self._num_latents(segment.add_stop)]

    def _decoded(self, latents: Tensor, seed: int) -> Iterator[npt.NDArray[np.uint8]]:
        for frames in self._pipeline.decode(latents, self._request.sampling.profile, seed):
            if self._on_progress is not None:
                self._on_progress(Progress("decode"))
            yield frames

    def _make(self, segment: Segment, seed: int, conditions: list[Condition], output_type: OutputType) -> Any:
        own, shape = self._request, self._request.shape
        others = [each for each in own.conditions if each.kind != "keyframes"]
        request = own.model_copy(
            update={
                "shape": shape.model_copy(update={"num_frames": segment.num_frames, **self._size()}),
                "sampling": own.sampling.model_copy(update={"seed": seed}),
                "conditions": (*others, *conditions),
            }
        )
        made = self._pipeline.make(
            request,
            inputs=self._inputs,
            output_type=output_type,
            batched_guidance=self._batched_guidance,
            on_progress=self._on_progress,
        )
        if self._pipeline.is_interrupted:
            raise InterruptedRunError(
                f"Interrupted in segment {segment.index}, which is not kept. Those before it are; make the same video "
                "again to go on."
            )
        return made

    def _size(self) -> dict[str, int | None]:
        """A size to fit follows the whole video's pictures, which not every segment has."""
        fit = self._request.shape.fit
        found = None if fit is None else self._request.size_to_fit(self._inputs)
        if fit is None or found is None:
            return {}
        height, width = fit_size(*found, fit, self._pipeline.size_multiple)
        return {"fit": None, "height": height, "width": width}

    def _as_fitted(self, picture: Shown | None, index: int) -> Shown | None:
        """Where no network stretches it, the middle of a picture that the size follows; see `cropped_as_fitted`."""
        size = self._size()
        found = self._request.size_to_fit(self._inputs) if size else None
        if picture is None or found is None or "picture channels" in self._pipeline.can.takes:
            return picture
        from muybridge.conditioning.sparse import cropped_as_fitted

        opened = self._inputs.picture(picture, f"The picture of frame {index}")
        return cropped_as_fitted(opened, found, (size["height"] or 0, size["width"] or 0))

    def _pinned(self, pictures: Mapping[int, object]) -> list[Condition]:
        if not pictures:
            return []
        if self._keyframes is not None:
            return [self._keyframes.model_copy(update={"pictures": pictures})]
        return list(conditions_of_call({"keyframes": pictures}))

    def _known(self, segment: Segment, carried: Carry) -> Tensor:
        if carried.latents is None:
            raise ConfigError(
                f"Segment {segment.index - 1} left no latents to continue from. Make it anew, or start in another "
                "folder."
            )
        return carried.latents[:, :, -self._num_latents(segment.num_known) :]

    def _num_latents(self, num_frames: int) -> int:
        """Latent frames of the pieces that `num_frames` fill; a piece that is cut off counts no more."""
        return num_frames // self._piece_frames * (self._pipeline.codec.latents_per_piece or 1)


def _known_latents(latents: Tensor) -> Condition:
    return conditions_of_call({"known_latents": {0: latents}})[0]


def takes_pictures(pipeline: VideoPipeline) -> bool:
    """Whether a pipeline takes pictures at frames, so that a segment can go on from those of the one before."""
    return "picture channels" in pipeline.can.takes or pipeline.network_for("keyframes") is not None


def _check_pictures(pipeline: VideoPipeline) -> None:
    if takes_pictures(pipeline):
        return
    reason = pipeline.can.refusals.get("keyframes", "This model takes no pictures.").format(name="keyframes")
    raise ConfigError(f"{reason} To continue its videos, use the strategy 'latent'.")


def check_long(request: Request, at_once: int, piece_frames: int) -> None:
    """Whether a video can be made in segments, as far as its request tells.

    Args:
        request: with the number of frames.
        at_once: frames that its model makes at once by default.
        piece_frames: frames that its VAE decodes together.

    Raises:
        ConfigError: conditions that a long video cannot have.
        ShapeError: as `plan_segments`.
    """
    asked = request.segments or Segments()
    _check_request(request)
    _, first, last = _ends(request)
    plan_segments(
        request.shape.num_frames,
        asked.frames or at_once,
        _overlap(asked, piece_frames),
        piece_frames,
        known_multiple=piece_frames if asked.strategy == "latent" else 1,
        has_first_keyframe=first is not None,
        has_last_keyframe=last is not None,
        held_frames=1,
    )


def _ends(request: Request) -> tuple[Condition | None, Shown | None, Shown | None]:
    """The condition that pins pictures, and those for the first and the last frame."""
    keyframes = next((each for each in request.conditions if each.kind == "keyframes"), None)
    pictures = dict(getattr(keyframes, "pictures", {}))
    first, last = pictures.pop(0, None), pictures.pop(-1, None)
    if pictures:
        raise ConfigError(f"A long video can have keyframes 0 and -1; given {', '.join(map(str, pictures))} too.")
    return keyframes, first, last


def _overlap(asked: Segments, piece_frames: int) -> int:
    usual = max(_OVERLAP_FRAMES, piece_frames) if asked.strategy == "latent" else _OVERLAP_FRAMES
    return usual if asked.overlap is None else asked.overlap


def _check_request(request: Request) -> None:
    kinds = [each.kind for each in request.conditions]
    if kinds.count("keyframes") > 1:
        raise ConfigError("There are two conditions of the kind keyframes; put all pictures into one.")
    if "source" in kinds:
        raise ConfigError("A source video cannot be longer than the model makes at once; ask for fewer frames.")
    if foreign := sorted(each.names()[0] for each in request.conditions if each.of_one_call):
        raise ConfigError(
            f"A long video is made in segments, to which {', '.join(foreign)} cannot apply. Leave it out."
        )
    if not isinstance(request.prompt, str):
        raise ConfigError("A long video is one video of one prompt; give a prompt as text, and make one at a time.")
    if isinstance(request.motion.strength, list):
        raise ConfigError("A long video is made in segments of one motion strength; give one number.")
