"""A model in a folder that writes, through transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muybridge.data.preparation.captioning.conversation import Answer, Turn, plain
from muybridge.data.preparation.captioning.model_folder import best_device, load_from_folder
from muybridge.errors import NoAnswerError

if TYPE_CHECKING:
    from transformers import Pipeline


class LocalWriter:
    """A `Writer` in a folder: a model that takes pictures, or one of text alone."""

    def __init__(self, folder: Path, takes_pictures: bool, most_tokens: int = 256, device: str | None = None) -> None:
        """Load it.

        Args:
            folder: of the model, its tokenizer, and what it makes of pictures.
            takes_pictures: or text alone.
            most_tokens: of an answer.
            device: to run it on; a GPU where there is one, if not given.

        Raises:
            CheckpointError: it is no such model, or has no template for conversations.
        """
        task = "image-text-to-text" if takes_pictures else "text-generation"
        self._takes_pictures = takes_pictures
        self._most_tokens = most_tokens
        self._pipe: Any = load_from_folder(lambda: _load(task, folder, device), folder, f"a model for {task}")

    def answer(self, turns: Sequence[Turn]) -> Answer:
        """Answer, each time with the likeliest next word.

        Raises:
            NoAnswerError: it answers nothing.
        """
        chat = [self._turn(turn) for turn in turns]
        settings: dict[str, Any] = {"max_new_tokens": self._most_tokens, "do_sample": False}
        if self._takes_pictures:
            found = self._pipe(text=chat, return_full_text=False, generate_kwargs=settings)
        else:
            found = self._pipe(chat, return_full_text=False, **settings)
        text = plain(str(found[0]["generated_text"]))
        if not text:
            raise NoAnswerError("The model answers nothing.")
        return Answer(text, is_cut=self._count(text) >= self._most_tokens - 1)

    def _turn(self, turn: Turn) -> dict[str, Any]:
        if not self._takes_pictures:
            return {"role": turn.role, "content": turn.text}
        pictures = [{"type": "image", "image": picture} for picture in turn.pictures]
        return {"role": turn.role, "content": [*pictures, {"type": "text", "text": turn.text}]}

    def _count(self, text: str) -> int:
        return len(self._pipe.tokenizer(text, add_special_tokens=False)["input_ids"])


def _load(task: str, folder: Path, device: str | None) -> Pipeline:
    from transformers import pipeline

    pipe: Any = pipeline(task, model=str(folder), device=best_device(device), dtype="auto")  # type: ignore[call-overload]
    template = getattr(pipe.processor, "chat_template", None) or getattr(pipe.tokenizer, "chat_template", None)
    if not template:
        raise ValueError("it has no chat template, and so no way to be asked")
    return pipe
