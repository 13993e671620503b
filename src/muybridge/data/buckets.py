"""Which size and number of frames each clip is trained at, such that clips of one bucket fill batches."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from muybridge.data.record import Record, Refusal
from muybridge.errors import ConfigError
from muybridge.types import VideoShape

Short = Literal["drop", "slow", "image"]
Size = tuple[int, int]
"""(height, width)."""

RATIOS = (1.0, 5 / 4, 4 / 3, 3 / 2, 16 / 9, 2.0, 21 / 9)
"""Of the longer side by the shorter one."""
_EDGE_S = 1e-3  # what rounding to milliseconds does to a duration


@dataclass(frozen=True)
class BucketSettings:
    """What clips are to be made to.

    Attributes:
        num_frames: numbers of frames that the model takes.
        fps: frames per second that they are taken at.
        sizes: heights and widths to choose from.
        short: what becomes of a video too short for the least number of frames: it is dropped, its frames are taken
            closer together so that it moves slower, or one frame of it becomes a picture.
        upscale: how much a clip may be enlarged.
        least: clips that a bucket should have; those of smaller ones go to a neighbour, if that costs little.
        most_crop: share of a picture that this may cost.
    """

    num_frames: tuple[int, ...]
    fps: float
    sizes: tuple[Size, ...]
    short: Short = "drop"
    upscale: float = 1.2
    least: int = 4
    most_crop: float = 0.15


@dataclass(frozen=True)
class Clip:
    """A record with what it is trained as.

    Attributes:
        record: of the clip.
        shape: frames, height and width.
        spacing_s: seconds from frame to frame in its file.
        source: number of the set that it is from.
    """

    record: Record
    shape: VideoShape
    spacing_s: float
    source: int = 0

    @property
    def crop_loss(self) -> float:
        """Share of its picture that is cut off."""
        return crop_loss(_size_of(self.record), (self.shape.height, self.shape.width))


@dataclass(frozen=True)
class BucketPlan:
    """Clips by what they are trained as.

    Attributes:
        buckets: of each number of frames, height and width; each has at least one clip.
        refusals: records that fit none.
        notes: numbers of frames that no clip lasts for, buckets that were merged, and those that stay small, in words.
    """

    buckets: dict[VideoShape, tuple[Clip, ...]]
    refusals: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def clips(self) -> list[Clip]:
        """Those of all buckets."""
        return list(itertools.chain.from_iterable(self.buckets.values()))


def size_table(area: int, multiple: int) -> tuple[Size, ...]:
    """Sizes of about `area` pixels in the usual aspect ratios, upright and lying, with sides that are multiples.

    Raises:
        ConfigError: there is no such size of at least one multiple a side.
    """
    if multiple < 1 or area < multiple * multiple:
        raise ConfigError(
            f"An area of {area} pixels has no sides that are multiples of {multiple}; give at least {multiple**2}."
        )
    ratios = sorted({ratio**sign for ratio in RATIOS for sign in (1, -1)})
    return tuple(dict.fromkeys(_nearest_size(area, ratio, multiple) for ratio in ratios))


def _nearest_size(area: int, ratio: float, multiple: int) -> Size:
    height, width = math.sqrt(area / ratio), math.sqrt(area * ratio)
    return max(1, round(height / multiple)) * multiple, max(1, round(width / multiple)) * multiple


def crop_loss(size: Size, target: Size) -> float:
    """Share of a picture of `size` that is cut off where it has to cover `target`."""
    ratio = (size[1] / size[0]) / (target[1] / target[0])
    return 1 - min(ratio, 1 / ratio)


def plan_buckets(sets: Sequence[Iterable[Record]], settings: BucketSettings) -> BucketPlan:
    """Give each probed record of each set its bucket.

    Raises:
        ConfigError: settings that no clip could meet.
    """
    if not settings.num_frames or min(settings.num_frames) < 1 or settings.fps <= 0 or not settings.sizes:
        raise ConfigError(f"There must be numbers of frames from 1 on, fps above 0, and a size; given {settings}.")
    placed = [place(record, settings, number) for number, records in enumerate(sets) for record in records]
    buckets: dict[VideoShape, list[Clip]] = {}
    for clip in placed:
        if isinstance(clip, Clip):
            buckets.setdefault(clip.shape, []).append(clip)
    notes = [*_never_filled(buckets, settings), *_merge(buckets, settings)]
    ordered = {shape: tuple(buckets[shape]) for shape in sorted(buckets, key=_order)}
    return BucketPlan(ordered, tuple(clip for clip in placed if isinstance(clip, Refusal)), tuple(notes))


def place(record: Record, settings: BucketSettings, source: int = 0) -> Clip | Refusal:
    """The nearest of the sizes by the logarithm of its ratio, and as many frames as the record lasts for."""
    if record.width is None or record.height is None:
        return Refusal(record.name, "its size is not known; probe it first", "not-probed")
    size = _nearest(_size_of(record), settings.sizes)
    if (factor := _enlarged(record, size)) > settings.upscale:
        return Refusal(
            record.name,
            f"{record.width}x{record.height} would be enlarged {factor:.3g} times to {shown_size(size)}; "
            f"{settings.upscale:g} times is allowed",
            "too-small",
        )
    timing = _timing(record, settings)
    if isinstance(timing, Refusal):
        return timing
    num_frames, spacing_s = timing
    return Clip(record, VideoShape(num_frames, *size), spacing_s, source)


def _timing(record: Record, settings: BucketSettings) -> tuple[int, float] | Refusal:
    spacing_s = 1 / settings.fps
    if record.kind == "image":
        return 1, spacing_s
    duration = record.duration_s or 0.0
    lasting = [count for count in settings.num_frames if (count - 1) * spacing_s < duration - _EDGE_S]
    if lasting:
        return max(lasting), spacing_s
    least = min(settings.num_frames)
    if settings.short == "image":
        return 1, spacing_s
    if settings.short == "slow" and (record.frames or 0) >= least:
        return least, duration / least
    has = f"{duration:.4g} s, {record.frames} frames" if settings.short == "slow" else f"{duration:.4g} s"
    needed = f"{least} frames at {settings.fps:g} a second take {_lasts(least, settings):.4g} s"
    return Refusal(record.name, f"it lasts {has}; {needed}", "too-short")


def _never_filled(buckets: Mapping[VideoShape, Sequence[Clip]], settings: BucketSettings) -> list[str]:
    """What is asked for and no clip lasts for; where there are no videos, or too short ones, that is said of these."""
    videos = [clip.record for clips in buckets.values() for clip in clips if clip.record.kind == "video"]
    longest = max((video.duration_s or 0.0 for video in videos), default=None)
    if longest is None:
        return []
    there = {shape.num_frames for shape in buckets}
    needed = {count: _lasts(count, settings) for count in sorted(set(settings.num_frames) - there)}
    if not (lacking := [count for count, seconds in needed.items() if seconds > longest]):
        return []
    *others, last = map(str, lacking)
    counts, more = (f"{', '.join(others)} and {last}", " and more") if others else (last, "")
    return [
        f"no clip is trained with {counts} frames: at {settings.fps:g} a second they need "
        f"{needed[lacking[0]]:.4g} s{more}, and the longest clip lasts {longest:.4g} s"
    ]


def _lasts(num_frames: int, settings: BucketSettings) -> float:
    """Seconds that a clip must last for so many frames."""
    return (num_frames - 1) / settings.fps + _EDGE_S


def shown_size(size: Size) -> str:
    """As people write it, the width first."""
    return f"{size[1]}x{size[0]}"


def shown_shape(shape: VideoShape) -> str:
    """A bucket's name."""
    return f"{shape.width}x{shape.height}x{shape.num_frames}"


def _size_of(record: Record) -> Size:
    return record.height or 1, record.width or 1


def _enlarged(record: Record, size: Size) -> float:
    height, width = _size_of(record)
    return max(size[0] / height, size[1] / width)


def _nearest(size: Size, sizes: Iterable[Size]) -> Size:
    return min(sizes, key=lambda target: abs(math.log(size[1] / size[0] * target[0] / target[1])))


def _order(shape: VideoShape) -> tuple[int, int, int]:
    return shape.num_frames, shape.width, shape.height


def _merge(buckets: dict[VideoShape, list[Clip]], settings: BucketSettings) -> list[str]:
    """Empty small buckets into neighbours, the smallest first; says what was done, and what could not be."""
    notes: list[str] = []
    stuck: set[VideoShape] = set()
    while small := [s for s in buckets if len(buckets[s]) < settings.least and s not in stuck]:
        shape = min(small, key=lambda small: (len(buckets[small]), _order(small)))
        clips = buckets[shape]
        count = f"{len(clips)} {'clip' if len(clips) == 1 else 'clips'}"
        target = _neighbour(shape, clips, buckets, settings)
        if target is None:
            stuck.add(shape)
            continue
        buckets[target] += [replace(clip, shape=target) for clip in clips]
        del buckets[shape]
        loss = sum(clip.crop_loss for clip in buckets[target][-len(clips) :]) / len(clips)
        notes.append(f"{count} of {shown_shape(shape)} joined {shown_shape(target)}, which cuts {loss:.0%} off")
    for shape in sorted(stuck & buckets.keys(), key=_order):
        if len(buckets[shape]) < settings.least:
            notes.append(
                f"{shown_shape(shape)} has only {len(buckets[shape])} of the {settings.least} clips that it should "
                "have, and no neighbour: its batches repeat them"
            )
    return notes


def _neighbour(
    shape: VideoShape, clips: list[Clip], buckets: dict[VideoShape, list[Clip]], settings: BucketSettings
) -> VideoShape | None:
    def cost(target: VideoShape) -> float:
        size = (target.height, target.width)
        if any(_enlarged(clip.record, size) > settings.upscale for clip in clips):
            return 1.0
        return max(crop_loss(_size_of(clip.record), size) for clip in clips)

    others = [other for other in buckets if other != shape and other.num_frames == shape.num_frames]
    best = min(others, key=lambda other: (cost(other), _order(other)), default=None)
    return best if best is not None and cost(best) < settings.most_crop else None
