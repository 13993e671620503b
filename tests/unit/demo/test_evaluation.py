"""How the obedience of a model of the toy world is scored."""

from __future__ import annotations

import numpy as np

from muybridge.demo import evaluation, render, world
from muybridge.demo.measure import measure_clip
from muybridge.demo.world import Scene


def test_scenes_go_through_all_held_out_combinations():
    scenes = evaluation.held_out_scenes(2 * len(world.HELD_OUT_TRIPLES), seed=1)

    assert [scene.triple for scene in scenes] == [*world.HELD_OUT_TRIPLES, *world.HELD_OUT_TRIPLES]
    assert {scene.size for scene in scenes} == set(world.SIZES)
    assert {scene.background for scene in scenes} == set(world.BACKGROUNDS)
    assert scenes == evaluation.held_out_scenes(len(scenes), seed=1)
    assert scenes != evaluation.held_out_scenes(len(scenes), seed=2)


def test_scenes_of_some_motions_go_through_all_of_theirs():
    wanted = [triple for triple in world.HELD_OUT_TRIPLES if triple[2] in ("still", "spinning")]

    scenes = evaluation.held_out_scenes(len(wanted) + 1, seed=1, motions=("still", "spinning"))

    assert [scene.triple for scene in scenes] == [*wanted, wanted[0]]


def test_renders_score_full_marks_and_others_do_not():
    scenes = evaluation.held_out_scenes(12, seed=2)
    measured = [measure_clip(clip) for clip in evaluation.true_clips(scenes, seed=2)]

    right = evaluation.score(scenes, measured)
    swapped = evaluation.score([*scenes[1:], scenes[0]], measured)

    assert right["all_correct"] == 1
    assert {name: right[name] for name in ("shape", "colour", "motion", "size", "background")} == {
        "shape": 1,
        "colour": 1,
        "motion": 1,
        "size": 1,
        "background": 1,
    }
    assert right["background_flicker"] < 0.5
    assert swapped["all_correct"] < 0.2


def test_a_clip_counts_as_correct_only_in_all_attributes():
    scenes = [Scene("circle", "red", "still"), Scene("square", "blue", "still")]
    measured = [measure_clip(clip) for clip in evaluation.true_clips(scenes, seed=3)]
    asked = [Scene("circle", "green", "still"), Scene("ring", "blue", "still")]

    scored = evaluation.score(asked, measured)

    assert (scored["shape"], scored["colour"], scored["all_correct"]) == (0.5, 0.5, 0)


def test_the_breakdown_is_by_what_was_asked_for():
    scenes = [Scene("circle", "red", "still"), Scene("circle", "red", "growing"), Scene("heart", "red", "still")]
    measured = [measure_clip(clip) for clip in evaluation.true_clips(scenes, seed=4)]
    asked = [scenes[0], Scene("circle", "red", "still"), scenes[2]]

    table = evaluation.breakdown(asked, measured)

    assert table == {"shape": {"circle": 1.0, "heart": 1.0}, "motion": {"still": 0.667}}


def test_clips_are_generated_from_full_captions_in_batches():
    scenes = evaluation.held_out_scenes(5, seed=5)
    truth = evaluation.true_clips(scenes, seed=5)
    calls: list[tuple[list[str], list[int]]] = []
    steps: list[tuple[int, int]] = []

    def generate(prompts: list[str], seeds: list[int]) -> np.ndarray:
        calls.append((prompts, seeds))
        return truth[[seed - 100 for seed in seeds]]

    measured, clips = evaluation.evaluate_clips(scenes, generate, 100, lambda *step: steps.append(step), batch_size=2)

    assert [seeds for _, seeds in calls] == [[100, 101], [102, 103], [104]]
    assert [prompt for prompts, _ in calls for prompt in prompts] == [world.full_caption(s) for s in scenes]
    assert steps == [(2, 5), (4, 5), (5, 5)]
    assert np.array_equal(clips, truth)
    assert evaluation.score(scenes, measured)["all_correct"] == 1


def test_the_contact_sheet_shows_rows_of_frames():
    clips = evaluation.true_clips(evaluation.held_out_scenes(3, seed=6), seed=6)

    sheet = evaluation.contact_sheet(clips, rows=2, columns=4)

    size = render.FRAME_SIZE
    assert sheet.shape == (2 * size, 4 * size, 3)
    assert np.array_equal(sheet[:size, :size], clips[0, 0])
    assert np.array_equal(sheet[size:, -size:], clips[1, -1])
    assert evaluation.contact_sheet(clips[:, :1]).shape == (3 * size, size, 3)


def test_the_contact_sheet_marks_what_was_given():
    clips = evaluation.true_clips(evaluation.held_out_scenes(2, seed=6), seed=6)
    given = np.zeros(clips.shape[:2], bool)
    given[1, [0, 15]] = True

    plain, marked = evaluation.contact_sheet(clips), evaluation.contact_sheet(clips, given=given)

    size = render.FRAME_SIZE
    changed = (plain != marked).any(axis=2)
    assert marked.dtype == np.uint8
    assert not changed[:size].any()
    assert not changed[size:, size:-size].any()
    for frame in (marked[size:, :size], marked[size:, -size:]):
        assert (frame[[0, 1, -1, -2]] == (255, 0, 255)).all()
        assert (frame[:, [0, 1, -1, -2]] == (255, 0, 255)).all()
    assert not changed[size + 2 : -2, 2 : size - 2].any()
