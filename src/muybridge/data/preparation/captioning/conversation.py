"""What is asked of a model and what it answers, whoever it is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from PIL import Image

_THOUGHT = re.compile(r"\A\s*<think>.*?(</think>|\Z)", re.DOTALL)


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation.

    Attributes:
        role: whose it is.
        text: what is said.
        pictures: shown before it.
    """

    role: Literal["user", "assistant"]
    text: str
    pictures: tuple[Image.Image, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What a model answers.

    Attributes:
        text: without what it thought aloud before.
        is_cut: whether it had no room to end.
    """

    text: str
    is_cut: bool = False


class Writer(Protocol):
    """A model that answers, always the same to the same."""

    def answer(self, turns: Sequence[Turn]) -> Answer:
        """Answer the last turn of a conversation.

        Raises:
            NoAnswerError: it cannot, this time.
            ConfigError: it never will.
        """
        ...


def plain(text: str) -> str:
    """An answer without what a model thought aloud, and without spaces around it."""
    return _THOUGHT.sub("", text).strip()
