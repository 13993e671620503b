"""The request to generate."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from muybridge.errors import ConfigError
from muybridge.request import GenerateRequest
from muybridge.request.generate_request import repeated

EMBEDDED = {
    "motion_adapter": None,
    "model": "demo/animatediff",
    "prompt": "a red circle",
    "negative_prompt": None,
    "plain_prompt": False,
    "num_frames": 4,
    "height": 64,
    "width": 32,
    "num_inference_steps": 3,
    "guidance_scale": 2.0,
    "scheduler": None,
    "eta": 0.0,
    "motion_strength": 0.5,
    "fps": 12.0,
    "seed": 5,
    "dtype": "float32",
    "versions": {"muybridge": "0.1.0"},
    "interrupted": False,
    "unrecorded": [],
}


def test_a_prompt_is_enough():
    request = GenerateRequest.from_flat({"prompt": "a red circle"})

    assert request.model.model == "demo/animatediff"
    assert request.shape.num_frames is None  # the pipeline's default
    assert request.sampling.seed is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "prompt: is missing. Give one"),
        ({"prompt": {}}, "prompt: must not be empty"),
        ({"num_frames": 0}, r"num_frames: .*1 \(given 0\)"),
        ({"num_frames": "many"}, "num_frames"),
        ({"width": -8}, "width"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"guidance_scale": -1}, "guidance_scale"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"fps": 0}, "fps"),
        ({"motion_strength": float("nan")}, "motion.strength"),
        ({"colour": "red"}, "no argument 'colour'"),
        ({"keyframe": {0: "a.png"}}, "did you mean 'keyframes'"),
        ({"fps": 0, "eta": 3}, "shape.fps.*; sampling.eta"),
    ],
)
def test_what_is_wrong_is_named(values, message):
    given = values if not values or "prompt" in values else {"prompt": "a red circle", **values}

    with pytest.raises(ConfigError, match=message) as caught:
        GenerateRequest.from_flat(given)

    assert "\n" not in str(caught.value)


def test_requests_do_not_change():
    request = GenerateRequest.from_flat({"prompt": "a red circle"})

    with pytest.raises(ValidationError, match="frozen"):
        request.seed = 1  # pyright: ignore[reportAttributeAccessIssue]


def test_the_request_of_a_file_is_repeated_whole():
    request = repeated(EMBEDDED)

    assert request.plain() == {
        "model": {"model": "demo/animatediff", "dtype": "float32"},
        "prompt": "a red circle",
        "shape": {"num_frames": 4, "height": 64, "width": 32, "fps": 12.0},
        "sampling": {"seed": 5, "num_inference_steps": 3, "guidance_scale": 2.0},
        "motion": {"strength": 0.5},
    }


def test_changes_go_over_what_the_file_says():
    request = repeated(EMBEDDED, {"seed": 6, "model": "other"})

    assert (request.sampling.seed, request.model.model, request.shape.fps) == (6, "other", 12.0)


def test_where_the_rest_of_one_model_comes_from_says_nothing_of_another():
    embedded = {**EMBEDDED, "model": "one.safetensors", "parts_from": "sd15"}

    assert repeated(embedded, {"seed": 6}).model.parts_from == "sd15"
    assert repeated(embedded, {"model": "other"}).model.parts_from is None
    changed = repeated(embedded, {"model": "two.safetensors", "parts_from": "mine"})
    assert changed.model.parts_from == "mine"


@pytest.mark.parametrize(
    ("embedded", "message"),
    [
        ({**EMBEDDED, "model": None}, "--model"),
        ({**EMBEDDED, "prompt": None}, "prompt"),
        ({**EMBEDDED, "prompt": ["a", "b"]}, "prompt"),
        ({**EMBEDDED, "num_frames": "x"}, "num_frames"),
        ({**EMBEDDED, "unrecorded": ["latents"]}, "latents"),
        ({"something": "else"}, "model"),
    ],
)
def test_a_file_that_cannot_be_repeated_says_why(embedded, message):
    with pytest.raises(ConfigError, match=message):
        repeated(embedded)


def test_what_the_file_lacks_can_be_given():
    request = repeated({**EMBEDDED, "model": None, "prompt": None}, {"model": "m", "prompt": "p"})

    assert (request.model.model, request.prompt) == ("m", "p")


@pytest.mark.parametrize(
    ("change", "reason"), [({"interrupted": True}, "interrupted"), ({"dtype": "bfloat16"}, "bfloat16")]
)
def test_what_cannot_be_repeated_exactly_is_refused(change, reason):
    with pytest.raises(ConfigError, match=reason):
        repeated(EMBEDDED | change)


def test_a_new_size_takes_the_place_of_fitting_and_fitting_that_of_a_size():
    fitted = {"model": "demo/easyanimate", "prompt": "x", "keyframes": {"0": "a.png"}, "fit": 64}
    sized = {**fitted, "fit": None, "width": 64, "height": 48}

    request = repeated(fitted, {"width": 32, "height": 48})
    assert (request.shape.fit, request.shape.width, request.shape.height) == (None, 32, 48)
    request = repeated(sized, {"fit": 128})
    assert (request.shape.fit, request.shape.width, request.shape.height) == (128, None, None)


@pytest.mark.parametrize(
    ("embedded", "changes", "is_plain"),
    [
        ({"prompt": "a (red:1.2) circle"}, {}, True),
        ({"prompt": "a red circle"}, {}, False),
        ({"prompt": "a", "negative_prompt": "(bad)"}, {"prompt": "b"}, True),
        ({"prompt": "a (b)"}, {"prompt": "(c)"}, False),
        ({"prompt": "a (b)"}, {"plain_prompt": False}, False),
        ({"prompt": {"0": "a", "8": "a BREAK b"}}, {}, True),
        ({"prompt": "a embedding:b"}, {}, True),
        ({"prompt": "a (b)", "plain_prompt": False}, {}, False),
        ({"prompt": "a b", "plain_prompt": True}, {"prompt": "(c)"}, True),
    ],
)
def test_words_from_before_there_was_syntax_stay_words(embedded, changes, is_plain):
    """A record that does not say how its words are read is from when they were all plain."""
    request = repeated({"model": "m", **embedded}, changes)
    assert request.plain_prompt is is_plain
    assert request.reads_syntax is (not is_plain and "(" in str(request.prompt))


def test_empty_prompts_are_prompts():
    assert GenerateRequest.from_flat({"prompt": ""}).prompt == ""
    assert GenerateRequest.from_flat({"prompt": {0: "", 8: "a"}}).prompt == {0: "", 8: "a"}
    assert repeated({"model": "m", "prompt": "", "negative_prompt": ""}).negative_prompt == ""
