"""The syntax of prompts."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

from muybridge.checkpoints.embeddings import Embedding
from muybridge.errors import ConfigError
from muybridge.request.prompt_syntax import has_syntax, parse_prompt, plain_prompt, with_embeddings


def parts(text: str) -> list[list[tuple[str, float]]]:
    return [[(piece.text, piece.weight) for piece in part] for part in parse_prompt(text).parts]


def approx(value: float) -> Any:
    return pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("an (important) word", [("an ", 1), ("important", approx(1.1)), (" word", 1)]),
        ("((word))", [("word", approx(1.21))]),
        ("[word]", [("word", approx(1 / 1.1))]),
        ("(word:1.3)", [("word", 1.3)]),
        ("(word: .5 )", [("word", 0.5)]),
        ("(word:-1)", [("word", -1.0)]),
        ("(a (b:2) [c]:0.5)", [("a ", 0.5), ("b", 1.0), (" ", 0.5), ("c", approx(0.5 / 1.1))]),
        ("(unnecessary)(brackets)", [("unnecessarybrackets", approx(1.1))]),
        ("(a:b)", [("a:b", approx(1.1))]),
        ("(a:1.2.3)", [("a:1.2.3", approx(1.1))]),
        (r"\(literal\] \\ (a\):2)", [(r"(literal] \ ", 1), ("a)", 2.0)]),
        ("([a)]", [("a", 1.0)]),
    ],
)
def test_weights(text: str, expected: list[tuple[str, Any]]) -> None:
    assert parts(text) == [expected]


@pytest.mark.parametrize(
    "text", ["", "a cat", "(unbalanced", "(a:1.2", "a :) and ;] or :(", "a]", r"a\b", "12:30", "a: 1.2 b", "RGB <3"]
)
def test_what_has_no_partner_is_words(text: str) -> None:
    assert parse_prompt(text).parts == plain_prompt(text).parts
    assert not has_syntax(text)


@pytest.mark.parametrize("text", ["a (cat:1.0)", "a [(cat)]"])
def test_a_weight_of_one_leaves_the_words(text: str) -> None:
    assert parts(text) == [[("a cat", 1)]]
    assert has_syntax(text)


def test_breaks() -> None:
    assert parts("a BREAK b") == [[("a", 1)], [("b", 1)]]
    assert parts("(a BREAK b:2) c") == [[("a", 2.0)], [("b", 2.0), (" c", 1)]]
    assert parts("BREAK a") == [[("", 1)], [("a", 1)]]
    assert parts("BREAKFAST in a TEABREAK") == [[("BREAKFAST in a TEABREAK", 1)]]
    last = parse_prompt("a cat BREAK")
    assert last.parts == plain_prompt("a cat").parts
    assert "BREAK" in last.notes[0]


def test_long_prompts_are_read_at_once() -> None:
    start = time.process_time()
    for text in (" " * 50_000, "(" * 5_000, "a:" * 20_000, "<lora:" * 5_000, "embedding:" * 5_000):
        parse_prompt(text)
        with_embeddings(plain_prompt(text.replace("embedding:", "embedding")), {})
    assert time.process_time() - start < 2


def test_tags_of_loras_are_no_words() -> None:
    found = parse_prompt("a cat <lora:ink, wash:0.8> (asleep <lyco:b>:1.2)<lora:c:0.5:0.5>")
    assert found.loras == {"ink, wash": 0.8, "b": 1.0, "c": 0.5}
    assert "".join(piece.text for piece in found.pieces) == "a cat asleep"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<lora:a:x>", "weight of a LoRA is a number"),
        ("<lora:a:te=0.5:unet=1>", "one weight for all parts"),
        ("<lora:a:1> <lora:a:0.5>", "two weights"),
        ("<hypernet:a:1>", "hypernetworks are not supported"),
    ],
)
def test_tags_that_cannot_be_carried_out(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_prompt(text)
    assert has_syntax(text)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a [cat:dog:0.5]", "prompt editing"),
        ("a [cat|dog]", "alternating words"),
        ("a {cat|dog}", "choice of words"),
        ("a cat AND a dog", "composition of prompts"),
    ],
)
def test_syntax_that_is_not_known_is_said(text: str, what: str) -> None:
    (note,) = parse_prompt(text).notes
    assert what in note


@pytest.mark.parametrize("text", ["a [cat] and {a dog}", r"a \[cat|dog\]", "SAND, [a: b]"])
def test_what_only_looks_like_it_is_not(text: str) -> None:
    assert not parse_prompt(text).notes


def embedding(name: str, token: str | None = None) -> Embedding:
    return Embedding(name, (torch.zeros(2, 4),), token, f"{name}.pt")


def test_embeddings_stand_where_their_names_do() -> None:
    easy, toy = embedding("EasyNegative"), embedding("learned_embeds", "<toy>")
    known = {"easynegative": easy, "learned_embeds": toy, "<toy>": toy}

    def split(text: str) -> list[tuple[str, float, Any]]:
        return [
            (piece.text, piece.weight, piece.embedding) for piece in with_embeddings(parse_prompt(text), known).pieces
        ]

    assert split("bad, EASYnegative") == [("bad,", 1, None), ("EASYnegative", 1, easy)]
    assert split("(embedding:EasyNegative:1.2), x") == [("EasyNegative", 1.2, easy), (", x", 1, None)]
    assert split("a<toy>.") == [("a", 1, None), ("<toy>", 1, toy), (".", 1, None)]
    assert split("embedding:easynegative.pt.")[0] == ("easynegative.pt", 1, easy)
    assert split("EasyNegatives uneasynegative") == [("EasyNegatives uneasynegative", 1, None)]


def test_an_embedding_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"embedding:easy.*loaded: none.*--embedding"):
        with_embeddings(parse_prompt("embedding:easy"), {})
    with pytest.raises(ConfigError, match="takes no embeddings"):
        with_embeddings(parse_prompt("embedding:easy"), None)
