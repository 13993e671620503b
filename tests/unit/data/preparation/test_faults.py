from __future__ import annotations

from pathlib import Path

import pytest

from muybridge.data.preparation.captioning.faults import caption_of_json, count_words, look_at_caption
from muybridge.data.preparation.captioning.prompts import shipped_prompt
from muybridge.data.preparation.stages.check_captions import CheckCaptions, CheckCaptionsSettings
from muybridge.data.record import Record


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "empty"),
        (" ...\n", "empty"),
        ("The video shows a cat on a wall.", "opening"),
        ("In this short clip, we see a cat.", "opening"),
        ("This image features two dogs.", "opening"),
        ("The scene opens with a cat that jumps.", "opening"),
        ("  “The footage depicts a cat.”", "opening"),
        ("A sequence of frames showing a cat.", "opening"),
        ("Sure! A cat jumps over a wall.", "chat"),
        ("Here is the rewritten caption: a cat.", "chat"),
        ("Caption: A cat jumps.", "chat"),
        ("I'm sorry, but I cannot help with that.", "refusal"),
        ("As an AI language model, I have no eyes.", "refusal"),
        ("A cat. Please provide the video.", "refusal"),
        ('{"caption": "A cat."}', "markup"),
        ("```\nA cat.\n```", "markup"),
        ("- a cat\n- a wall", "markup"),
        ("<s> A cat jumps <|im_end|>", "markup"),
        ("## A cat", "markup"),
    ],
)
def test_what_programs_say_is_found(text: str, fault: str) -> None:
    assert fault in look_at_caption(text).faults


@pytest.mark.parametrize(
    "text",
    [
        "A cat jumps over a wall.",
        "A man watches a video on a phone; the picture on it flickers.",
        "The photographer shows a print to a child.",
        "A scenic view of hills.",
        "A clipper sails along the coast.",
        "Videographers stand on a pier.",
        "Two dogs, one sorry-looking, wait at a door. A sign says: no pictures.",
        "A 1920s street - trams, horses and carts - in the rain.",
        "Ein Hund läuft über die Straße. 一只猫跳过墙。",
        "OK signs are held up by the crowd.",
    ],
)
def test_what_people_write_is_let_through(text: str) -> None:
    assert look_at_caption(text).faults == ()


def test_repeated_text_is_measured() -> None:
    assert look_at_caption("A cat jumps over a wall and runs away.").repeated == 0
    assert look_at_caption("the cat jumps over it " * 12).repeated > 0.8


def test_words_of_other_scripts_are_counted() -> None:
    assert count_words("a dog's life, well-known") == 4
    assert count_words("一只猫跳过墙") == 3


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        ('{"caption": "A  cat\\n jumps."}', "A cat jumps."),
        ('```json\n{"caption": "A cat."}\n```', "A cat."),
        ('Sure: {"caption": "A cat."}', None),
        ('{"caption": "A cat."} Enjoy!', None),
        ('{"caption": ""}', None),
        ('{"caption": 3}', None),
        (r'{"caption": "A \ud800 cat."}', None),
        ('{"text": "A cat."}', None),
        ('{"caption": "A cat.", "more": 1}', None),
        ("A cat.", None),
        ("{" * 100_000, None),
        ("", None),
    ],
)
def test_only_the_json_that_was_asked_for_is_an_answer(text: str, caption: str | None) -> None:
    assert caption_of_json(text) == caption


def rule_of(text: str, **settings: object) -> str | None:
    stage = CheckCaptions(CheckCaptionsSettings.model_validate(settings))
    (record,) = stage.run(Record("x", "a.mp4", "video", text), Path())
    verdict = stage.verdict(record)
    return None if verdict is None else verdict.rule


def test_rules_of_captions() -> None:
    assert rule_of("A cat jumps over a wall.") is None
    assert rule_of("A cat.") == "caption-length"
    assert rule_of("A cat.", min_words=1) is None
    assert rule_of("word " * 300) == "caption-length"
    assert rule_of("the cat jumps over it " * 12) == "caption-repeats"
    assert rule_of("The video shows a cat on a wall.") == "caption-opening"
    assert rule_of("The video shows a cat on a wall.", openings=True) is None
    assert rule_of("") is None
    assert rule_of("", need_caption=True) == "caption-empty"


def test_our_prompts_ask_for_what_the_rules_want() -> None:
    for line in shipped_prompt("rewrite").splitlines():
        if line.startswith('{"caption": "A'):
            caption = caption_of_json(line)
            assert caption is not None
            assert look_at_caption(caption).faults == ()
