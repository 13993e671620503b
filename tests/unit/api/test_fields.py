"""Fields of forms as clients write them."""

from __future__ import annotations

import pytest

from muybridge.api.errors import ApiError
from muybridge.api.fields import parse_json, tree

NO_TEXTS = (r'"\ud800"', r'{"\udfff": 1}', r'{"a": ["b", "\u0000"]}')


def test_brackets_name_entries_and_lists():
    found = tree(
        [
            ("prompt", "a cat"),
            ("lora[a.safetensors]", "0.8"),
            ("lora[b]", "1"),
            ("motion_strength[]", "1"),
            ("motion_strength[]", "0.5"),
            ("controls[][model]", "edges"),
            ("controls[][frames]", "x"),
            ("controls[][model]", "depth"),
        ]
    )
    assert found == {
        "prompt": "a cat",
        "lora": {"a.safetensors": "0.8", "b": "1"},
        "motion_strength": ["1", "0.5"],
        "controls": [{"model": "edges", "frames": "x"}, {"model": "depth"}],
    }


def test_json_in_a_field_is_read_but_not_in_a_prompt():
    found = tree([("lora", '{"a": 0.8}'), ("free_noise", "true"), ("prompt", "{a|b} [c]")])
    assert found == {"lora": {"a": 0.8}, "free_noise": True, "prompt": "{a|b} [c]"}


@pytest.mark.parametrize(
    "pairs",
    [
        [("prompt", "a"), ("prompt", "b")],
        [("lora", "{oops")],
        [("lora", "1"), ("lora[a]", "1")],
        [("a[b", "1")],
        [("[a]", "1")],
        [("", "1")],
        [("a" + "[b]" * 50, "1")],
        [("x[]", "1"), ("x[a]", "2")],
        [("prompt", "a\0b")],
        [("x\0", "1")],
    ],
)
def test_what_cannot_be_read_is_refused(pairs):
    with pytest.raises(ApiError) as caught:
        tree(pairs)
    assert caught.value.status == 400


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"a": NaN}', b"\xff\xfe\x00", *NO_TEXTS])
def test_what_is_no_json_is_refused(text):
    with pytest.raises(ApiError):
        parse_json(text, "lora")
