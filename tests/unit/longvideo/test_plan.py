"""Plans of long videos."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from muybridge.errors import ConfigError, ShapeError
from muybridge.longvideo import Segment, plan_segments


def original(num_frames: int, partial: int, overlap: int) -> tuple[int, list[tuple[int, int, bool]]]:
    """EasyAnimate's loop: the length it comes to, and start, frames and end picture of each piece."""
    begin, length, pieces = 0, 0, []
    last = begin + partial
    while begin < num_frames:
        if last >= num_frames:
            frames = (num_frames - begin) // 8 * 8
            if frames <= 0:
                break
            has_end = True
        else:
            frames, has_end = partial, False
        pieces.append((begin, frames, has_end))
        length += frames - (overlap if length else 0)
        if last >= num_frames:
            break
        begin += partial - overlap
        last = begin + partial
    return length, pieces


@pytest.mark.parametrize("partial", [8, 16, 72])
@pytest.mark.parametrize("overlap", [1, 3, 4])
def test_reference_is_the_original_loop(partial: int, overlap: int) -> None:
    for num_frames in range(8, 240):
        length, pieces = original(num_frames, partial, overlap)
        segments = list(plan_segments(num_frames, partial, overlap, policy="reference"))
        assert [(s.start, s.num_frames) for s in segments] == [piece[:2] for piece in pieces]
        assert segments[-1].stop == length
        assert [s.num_known for s in segments] == [0] + [overlap] * (len(pieces) - 1)


def test_reference_keeps_the_last_keyframe_or_says_why_not() -> None:
    segments = list(plan_segments(144, 72, 4, policy="reference", has_last_keyframe=True))
    assert [s.has_last_keyframe for s in segments] == [False, False, True]
    assert (segments[-1].num_frames, segments[-1].stop) == (8, 144)
    # 72 + 3: what is left for the last picture is less than a segment, and the original drops it.
    assert original(75, 72, 4)[1] == [(0, 72, False)]
    with pytest.raises(ShapeError, match="nearest num_frames: 72 or 76"):
        plan_segments(75, 72, 4, policy="reference", has_last_keyframe=True)


def is_covered_once(segments: list[Segment]) -> bool:
    shown = 0
    for segment in segments:
        if segment.start + segment.add_start != shown or segment.num_added < 1:
            return False
        shown = segment.stop
    return True


@pytest.mark.parametrize(("frames", "overlap", "multiple"), [(16, 4, 8), (8, 7, 8), (8, 1, 1), (12, 6, 4), (9, 3, 9)])
@pytest.mark.parametrize("known_multiple", [1, 3])
@pytest.mark.parametrize("ends", list(itertools.product([False, True], repeat=2)))
def test_exact_has_every_frame_once(
    frames: int, overlap: int, multiple: int, known_multiple: int, ends: tuple[bool, bool]
) -> None:
    overlap = max(known_multiple, overlap // known_multiple * known_multiple)
    num_refused = 0
    for num_frames in range(1, 70):
        try:
            segments = list(plan_segments(num_frames, frames, overlap, multiple, known_multiple, "exact", *ends))
        except ShapeError:
            num_refused += 1
            continue
        assert segments[-1].stop == num_frames
        assert is_covered_once(segments)
        assert [s.index for s in segments] == list(range(len(segments)))
        assert all(s.num_frames % multiple == 0 and s.num_frames <= frames for s in segments)
        assert all(s.num_known % known_multiple == 0 and overlap <= s.num_known < s.num_frames for s in segments[1:])
        assert all(s.num_known == s.add_start for s in segments[1:])
        assert all(s.num_frames == s.add_stop == frames for s in segments[:-1])
        assert [s.has_first_keyframe for s in segments] == [ends[0]] + [False] * (len(segments) - 1)
        assert [s.has_last_keyframe for s in segments] == [False] * (len(segments) - 1) + [ends[1]]
        # A keyframe is never cut off.
        assert not segments[0].has_first_keyframe or segments[0].add_start == 0
        assert not segments[-1].has_last_keyframe or segments[-1].add_stop == segments[-1].num_frames
    # Every length works unless both ends of a short video, or its end and the latents, are fixed.
    assert (num_refused > 0) == (ends[1] and multiple > 1 and (ends[0] or known_multiple > 1))


def test_exact_grows_the_overlap_of_the_last_segment() -> None:
    _, last = plan_segments(101, 72, 4, 8)
    # 29 frames are missing after 72; with 4 known ones 33, so 40 are made, of which 11 are known.
    assert (last.start, last.num_frames, last.num_known, last.add_start, last.add_stop) == (61, 40, 11, 11, 40)


def test_exact_cuts_what_latents_do_not_allow() -> None:
    _, last = plan_segments(101, 72, 4, 8, known_multiple=4)
    # Of the 11 that could be known 8 are, and the other 3 are cut off.
    assert (last.start, last.num_frames, last.num_known, last.add_start, last.add_stop) == (64, 40, 8, 8, 37)
    with pytest.raises(ShapeError, match="nearest num_frames: 100 or 104"):
        plan_segments(101, 72, 4, 8, known_multiple=4, has_last_keyframe=True)


def test_a_short_video_is_one_segment() -> None:
    (only,) = plan_segments(20, 72, has_first_keyframe=True)
    assert (only.start, only.num_frames, only.add_start, only.add_stop) == (0, 24, 0, 20)
    (only,) = plan_segments(20, 72, has_last_keyframe=True)
    assert (only.start, only.num_frames, only.add_start, only.add_stop, only.stop) == (-4, 24, 4, 24, 20)
    with pytest.raises(ShapeError, match="nearest num_frames: 16 or 24"):
        plan_segments(20, 72, has_first_keyframe=True, has_last_keyframe=True)


def test_a_last_keyframe_has_room() -> None:
    for num_frames in range(73, 145):
        segments = list(plan_segments(num_frames, 72, 4, 8, has_last_keyframe=True, held_frames=3))
        assert is_covered_once(segments)
        assert segments[-1].stop == num_frames
        assert segments[-1].num_frames - segments[-1].num_known > 3
    # One frame is missing after 72: with the three before it, which the first segment gives up, it makes four.
    first, last = plan_segments(73, 72, 4, 8, has_last_keyframe=True, held_frames=3)
    assert (first.num_frames, first.add_stop, last.num_known, last.num_frames) == (72, 69, 4, 8)
    # In whole pieces of the VAE.
    first, last = plan_segments(80, 72, 8, 8, known_multiple=8, has_last_keyframe=True, held_frames=9)
    assert (first.add_stop, last.num_known, last.num_frames) == (64, 8, 24)


def test_both_ends_of_a_single_segment_have_room() -> None:
    assert len(list(plan_segments(8, 72, 4, 8, has_first_keyframe=True, has_last_keyframe=True, held_frames=3))) == 1
    with pytest.raises(ShapeError, match="nearest num_frames: 16"):
        plan_segments(8, 72, 4, 8, has_first_keyframe=True, has_last_keyframe=True, held_frames=4)
    with pytest.raises(ShapeError, match="held_frames must not be negative"):
        plan_segments(8, held_frames=-1)


@pytest.mark.parametrize("policy", ["exact", "reference"])
def test_without_end(policy: Any) -> None:
    endless = plan_segments(None, 16, 4, policy=policy, has_first_keyframe=True)
    segments = list(itertools.islice(endless, 1000))
    assert [s.start for s in segments] == list(range(0, 12_000, 12))
    assert is_covered_once(segments)
    # A video with an end begins like one without.
    assert segments[:-2] == list(plan_segments(segments[-1].stop, 16, 4, policy=policy, has_first_keyframe=True))[:-2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"segment_frames": 70}, "multiple of 8; given 70. The nearest is 72"),
        ({"segment_frames": 0}, "The nearest is 8"),
        ({"overlap_frames": 72}, "1 to 71, fewer than the 72 frames of a segment; given 72. The nearest is 71"),
        ({"overlap_frames": 0}, "The nearest is 1"),
        ({"overlap_frames": 5, "known_multiple": 4}, "multiple of 4; given 5. The nearest is 4"),
        ({"overlap_frames": 80, "known_multiple": 8}, "8 to 64, fewer than the 72 frames .*The nearest is 64"),
        ({"segment_frames": 8, "known_multiple": 8}, "more than 8, the fewest frames .*The nearest is 16"),
        ({"frame_multiple": 0}, "at least 1"),
        ({"num_frames": 0}, "nearest num_frames: 1"),
        ({"num_frames": -50}, "nearest num_frames: 1"),
        ({"num_frames": 7, "policy": "reference"}, "nearest num_frames: 8"),
    ],
)
def test_wrong_numbers(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        plan_segments(**{"num_frames": 200, **settings})


def test_settings_without_effect() -> None:
    with pytest.raises(ConfigError, match="known_multiple has no effect"):
        plan_segments(200, policy="reference", known_multiple=4)
    with pytest.raises(ConfigError, match="no last frame"):
        plan_segments(None, has_last_keyframe=True)
    with pytest.raises(ConfigError, match="exact, reference; given 'both'"):
        plan_segments(200, policy="both")  # type: ignore[arg-type]
