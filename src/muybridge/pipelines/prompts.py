"""The texts of a call, read with their syntax."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from muybridge.errors import ConfigError
from muybridge.request.prompt_syntax import Embedding, ParsedPrompt, parse_prompt, plain_prompt, with_embeddings


@dataclass(frozen=True, eq=False)
class Texts:
    """Prompts and negatives of a call.

    Attributes:
        prompts: as parsed; none where text states are given.
        negative: one for all, one for each, or None.
        loras: weights of the LoRAs that they name.
    """

    prompts: list[ParsedPrompt]
    negative: list[ParsedPrompt] | None
    loras: Mapping[str, float]

    def negatives(self) -> list[ParsedPrompt]:
        """A negative for each prompt; empty where there is none."""
        given = [plain_prompt("")] if self.negative is None else self.negative
        return given * len(self.prompts) if len(given) == 1 else given

    @property
    def embeddings(self) -> dict[str, str] | None:
        """Files and names of the embeddings in them, for the record of a video; None without any."""
        found = [p.embedding for text in (*self.prompts, *(self.negative or ())) for p in text.pieces if p.embedding]
        return {each.path: each.name for each in found} or None


def read_texts(
    prompts: Sequence[str] | None,
    negative: str | Sequence[str] | None,
    is_plain: bool = False,
    embeddings: Mapping[str, Embedding] | None = None,
    one_video: bool = False,
) -> Texts:
    """Read the texts of a call; warns of what in them does nothing.

    Args:
        prompts: of a call, or None where it has text states.
        negative: likewise.
        is_plain: whether every character stands for itself.
        embeddings: those loaded, by each of their names in small letters; None for models that take none.
        one_video: whether the prompts follow each other in one video, so that a LoRA that one names is for all.

    Raises:
        ConfigError: a name that is not loaded, a tag that cannot be carried out, or one where it cannot act.
    """
    if prompts is None and is_plain:
        raise ConfigError("plain_prompt is about the prompt; with prompt_embeds leave it out.")
    negatives = [negative] if isinstance(negative, str) else negative
    read = plain_prompt if is_plain else partial(_read, embeddings=embeddings)
    positive = [read(text) for text in prompts or ()]
    texts = Texts(
        positive, None if negatives is None else [read(text) for text in negatives], _loras(positive, one_video)
    )
    if named := next((name for text in texts.negative or () for name in text.loras), None):
        raise ConfigError(
            f"The negative prompt names the LoRA {named}, which acts on the whole video; name it in the prompt."
        )
    for note in dict.fromkeys(note for text in (*positive, *(texts.negative or ())) for note in text.notes):
        warnings.warn(note, stacklevel=2)
    return texts


def _read(text: str, embeddings: Mapping[str, Embedding] | None) -> ParsedPrompt:
    return with_embeddings(parse_prompt(text), embeddings)


def _loras(prompts: Sequence[ParsedPrompt], one_video: bool) -> dict[str, float]:
    weights: dict[str, float] = {}
    for name, weight in (pair for prompt in prompts for pair in prompt.loras.items()):
        if weights.setdefault(name, weight) != weight:
            raise ConfigError(f"The prompts give the LoRA {name} several weights; all of a call share one.")
    if not one_video and any(prompt.loras != weights for prompt in prompts):
        raise ConfigError(
            f"Some of the prompts name the LoRA {next(iter(weights))} and others do not; all of a call share theirs. "
            "Make one call for each."
        )
    return weights
