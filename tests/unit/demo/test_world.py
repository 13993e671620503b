"""What is in the toy world, how it is said, and what stays unseen."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pytest

from muybridge.demo import models, world
from muybridge.demo.world import Scene
from muybridge.errors import ConfigError

HELD_OUT_HASH = "ca4b0906e1d6f312a6a70ebc0b99f294b2cc0dd96e821c91cbd20ab247b18390"
MOTION_WORDS = {
    "left": "moving left",
    "right": "moving right",
    "up": "moving up",
    "upwards": "moving up",
    "down": "moving down",
    "downwards": "moving down",
    "growing": "growing",
    "bigger": "growing",
    "shrinking": "shrinking",
    "smaller": "shrinking",
    "spinning": "spinning",
    "rotating": "spinning",
    "still": "still",
    "not": "still",
}


def captions(count: int, seed: int) -> tuple[list[Scene], list[str]]:
    rng = np.random.default_rng(seed)
    scenes = world.sample_scenes(count, rng, tuple(world.valid_triples()))
    return scenes, [world.caption(scene, rng) for scene in scenes]


def words_of(text: str) -> list[str]:
    return text.replace(",", " ").split()


def test_held_out_triples_never_change():
    listed = "\n".join(" ".join(triple) for triple in world.HELD_OUT_TRIPLES)

    assert len(world.HELD_OUT_TRIPLES) == 38
    assert hashlib.sha256(listed.encode()).hexdigest() == HELD_OUT_HASH


def test_held_out_and_training_triples_share_out_what_is_valid():
    assert len(world.valid_triples()) == 304
    assert sorted(world.HELD_OUT_TRIPLES + world.TRAINING_TRIPLES) == sorted(world.valid_triples())


def test_each_shape_and_motion_loses_one_colour():
    pairs = {(shape, motion) for shape, _, motion in world.valid_triples()}

    assert Counter((shape, motion) for shape, _, motion in world.HELD_OUT_TRIPLES) == dict.fromkeys(pairs, 1)


@pytest.mark.parametrize("position", [0, 1, 2], ids=["shape", "colour", "motion"])
def test_every_word_is_trained_in_other_company(position):
    held_out = {triple[position] for triple in world.HELD_OUT_TRIPLES}

    assert held_out <= {triple[position] for triple in world.TRAINING_TRIPLES}


def test_oversampled_words_come_as_often_as_asked():
    counts = Counter(world.oversampled({"ring": 2, "spinning": 4, "red": 3}))

    assert counts.keys() == set(world.TRAINING_TRIPLES)
    assert counts["ring", "green", "still"] == 2
    assert counts["ring", "red", "still"] == 3
    assert counts["heart", "red", "spinning"] == 4
    assert counts["heart", "green", "still"] == 1
    assert world.oversampled({}) == world.TRAINING_TRIPLES


@pytest.mark.parametrize("times", [{"star": 2}, {"large": 2}, {"ring": 0}, {"ring": 1}, {"ring": 101}], ids=str)
def test_what_cannot_be_oversampled_is_refused(times):
    ((word, number),) = times.items()
    message = (
        f"knows no '{word}'" if word != "ring" else f"has 'ring' {number} times; give a whole number from 2 to 100"
    )
    with pytest.raises(ConfigError, match=message):
        world.oversampled(times)


def test_nothing_round_spins():
    assert not [t for t in world.valid_triples() if t[2] == "spinning" and t[0] in world.ROTATION_SYMMETRIC]


def test_samples_cover_the_training_triples_and_nothing_else():
    scenes = world.sample_scenes(6000, np.random.default_rng(0))

    assert {scene.triple for scene in scenes} == set(world.TRAINING_TRIPLES)
    assert {scene.background for scene in scenes} == set(world.BACKGROUNDS)
    assert np.mean([scene.size == "large" for scene in scenes]) == pytest.approx(0.4, abs=0.03)


def test_same_generator_same_scenes():
    draws = [world.sample_scenes(50, np.random.default_rng(seed)) for seed in (3, 3, 4)]

    assert draws[0] == draws[1]
    assert draws[0] != draws[2]


def test_captions_say_only_what_is_true():
    for scene, text in zip(*captions(3000, seed=1), strict=True):
        words = set(words_of(text.replace("grey", "gray")))
        assert words & set(world.SHAPES) == {scene.shape}
        assert ("large" in words) == (scene.size == "large")
        assert words & set(world.COLOURS) <= {scene.colour}
        assert words & set(world.BACKGROUNDS) <= {scene.background}
        assert {MOTION_WORDS[word] for word in words & set(MOTION_WORDS)} <= {scene.motion}


def test_captions_leave_attributes_out_as_often_as_promised():
    scenes, texts = captions(4000, seed=2)
    words = [set(words_of(text.replace("grey", "gray"))) for text in texts]
    told = {
        "colour": np.mean([scene.colour in found for scene, found in zip(scenes, words, strict=True)]),
        "motion": np.mean([bool(found & set(MOTION_WORDS)) for found in words]),
        "background": np.mean([scene.background in found for scene, found in zip(scenes, words, strict=True)]),
    }

    assert told == pytest.approx({"colour": 11 / 12, "motion": 11 / 12, "background": 3 / 4}, abs=0.03)


def test_a_scene_is_said_in_many_ways():
    rng = np.random.default_rng(5)
    scene = Scene("square", "orange", "moving up", "normal", "gray")

    texts = {world.caption(scene, rng) for _ in range(400)}

    assert len(texts) > 40
    assert {"moving up", "moving upwards", "going up"} == {
        phrase for phrase in ("moving up", "moving upwards", "going up") if any(phrase in text for text in texts)
    }
    assert any(text.startswith("on a gr") for text in texts)
    assert any(text.startswith("an orange square moving up") for text in texts)
    assert "orange square, moving up, grey background" in texts


def test_captions_are_cleanly_written():
    _, texts = captions(2000, seed=6)

    for text in texts:
        assert text == " ".join(text.split())
        assert not text.endswith(",")
        before = [words_of(text)[i + 1] for i, word in enumerate(words_of(text)[:-1]) if word == "an"]
        assert set(before) <= {"orange"}
        assert "a orange" not in text


def test_the_full_caption_names_everything():
    assert world.full_caption(Scene("heart", "pink", "still", "large", "sky")) == (
        "a large pink heart still on a sky background"
    )
    assert world.full_caption(Scene("ring", "orange", "growing")) == "an orange ring growing on a white background"


def test_every_word_is_in_the_vocabulary():
    _, texts = captions(3000, seed=7)
    plain = [world.full_caption(scene) for scene in world.sample_scenes(500, np.random.default_rng(8))]
    said = {word for text in [*texts, *plain] for word in words_of(text)}

    assert said == set(world.vocabulary()) - {","}
    assert world.vocabulary() == sorted(set(world.vocabulary()))


def test_the_tokenizer_knows_every_caption_and_never_cuts_one():
    tokenizer = models.make_tokenizer()
    _, texts = captions(500, seed=9)

    rows = tokenizer(texts).input_ids

    assert not [text for text, row in zip(texts, rows, strict=True) if tokenizer.unk_token_id in row]
    assert max(map(len, rows)) <= models.MAX_TOKENS
