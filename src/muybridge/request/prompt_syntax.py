"""Prompts as other programs write them: weights in brackets, breaks, LoRA tags, and names of embeddings.

The rules are those of AUTOMATIC1111's web UI ("Attention/emphasis" in its wiki), and `embedding:name` is ComfyUI's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from muybridge.errors import ConfigError


class Embedding(Protocol):
    """A loaded embedding, as far as prompts go."""

    @property
    def path(self) -> str:
        """The file it came from."""
        ...

    @property
    def name(self) -> str:
        """What prompts call it."""
        ...

    @property
    def vectors(self) -> Any:
        """For each text encoder, `[n, d]`."""
        ...


_STEP = 1.1
"""What a pair of brackets without a number multiplies or divides by."""
_NUMBER = r"[+-]?(?:\d{1,6}\.?\d*|\.\d+)"
_SPACE = r"(?:(?<!\s)\s+)?"
"""All of the space in front, or none; from the middle of it nothing begins."""
_TOKEN = re.compile(
    rf"\\(?P<escaped>[()\[\]\\])|(?P<open>[(\[])|:\s*(?P<number>{_NUMBER})\s*\)|(?P<close>[)\]])"
    rf"|{_SPACE}(?<!\w)(?P<break>BREAK)(?!\w)\s*"
)
_TAG = re.compile(rf"{_SPACE}<(?P<kind>lora|lyco|hypernet):(?P<name>[^<>:]+)(?P<rest>(?::[^<>]*)?)>")
_EMBEDDING = r"(?i:(?<!\w)embedding):(?P<said>[^\s,;:()\[\]]*[^\s,;:()\[\].!?])"
_ENDING = re.compile(r"\.(?:pt|bin|safetensors)$", re.IGNORECASE)
_READ_AS_WORDS = {
    "prompt editing": re.compile(rf"(?<!\\)\[[^\[\]]*:\s*{_NUMBER}\s*\]"),
    "alternating words": re.compile(r"(?<!\\)\[[^\[\]]*\|[^\[\]]*\]"),
    "a choice of words": re.compile(r"\{[^{}]*\|[^{}]*\}"),
    "a composition of prompts": re.compile(r"(?<!\w)AND(?!\w)"),
}
"""Syntax of other programs that means nothing here."""


@dataclass(frozen=True)
class Piece:
    """Words with one weight, or an embedding.

    Attributes:
        text: the words, or the name that the embedding was called by.
        weight: what the states of its tokens are multiplied with.
        embedding: whose vectors stand in place of tokens, or None.
    """

    text: str
    weight: float = 1.0
    embedding: Embedding | None = None


@dataclass(frozen=True)
class ParsedPrompt:
    """What a prompt says.

    Attributes:
        parts: pieces from break to break; the last one is not empty, unless it is the only one.
        loras: weights of the LoRAs that it names.
        notes: what in it does nothing, in sentences for the user.
    """

    parts: tuple[tuple[Piece, ...], ...]
    loras: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def pieces(self) -> Iterator[Piece]:
        """All of them, across breaks."""
        return (piece for part in self.parts for piece in part)


def plain_prompt(text: str) -> ParsedPrompt:
    """A prompt without syntax: every character is one of its words'."""
    return ParsedPrompt(((Piece(text),),))


def parse_prompt(text: str) -> ParsedPrompt:
    r"""Read a prompt with its syntax.

    `(words)` weighs by 1.1, `[words]` by 1 / 1.1, `(words:1.3)` by 1.3; inside each other they multiply. `BREAK` begins
    a new chunk, `<lora:name:0.8>` gives a LoRA its weight. A backslash takes a bracket's meaning away. A bracket
    without its partner is a character like any other.

    Raises:
        ConfigError: a tag that cannot be carried out.
    """
    words, loras = _take_tags(text)
    tokens = list(_tokens(words))
    weights = _weights(tokens)
    parts: list[list[Piece]] = [[]]
    for index, (kind, token) in enumerate(tokens):
        weight = weights[index]
        if kind == "break":
            parts.append([])
        elif weight is None:
            continue  # a bracket that has its partner
        elif parts[-1] and parts[-1][-1].weight == weight:
            parts[-1][-1] = replace(parts[-1][-1], text=parts[-1][-1].text + token)
        else:
            parts[-1].append(Piece(token, weight))
    notes = [
        f"{match[0]!r} in the prompt is {what} in other programs; there is none here, and it is read as words. Write "
        "what is meant, or leave it out."
        for what, pattern in _READ_AS_WORDS.items()
        if (match := pattern.search(words))
    ]
    if len(parts) > 1 and not _says_something(parts[-1]):
        notes.append("The BREAK at the end of the prompt has nothing behind it and does nothing; leave it out.")
        while len(parts) > 1 and not _says_something(parts[-1]):
            del parts[-1]
    return ParsedPrompt(tuple(tuple(part) or (Piece(""),) for part in parts), loras, tuple(notes))


def has_syntax(text: str) -> bool:
    """Whether a prompt means something else than its plain words, a name of an embedding not counted."""
    try:
        parsed = parse_prompt(text)
    except ConfigError:
        return True
    return parsed.parts != plain_prompt(text).parts or bool(re.search(_EMBEDDING, text))


def with_embeddings(prompt: ParsedPrompt, known: Mapping[str, Embedding] | None) -> ParsedPrompt:
    """The prompt with embeddings where their names stand, in letters of either case.

    Args:
        prompt: as parsed.
        known: embeddings by each name that they have, in small letters; None for models that take none.

    Raises:
        ConfigError: `embedding:name` of one that is not there.
    """
    names = sorted(known or (), key=len, reverse=True)
    bare = "|".join(map(_whole, names))
    pattern = re.compile(f"{_EMBEDDING}|(?P<bare>{bare})" if bare else _EMBEDDING, re.IGNORECASE)
    parts = tuple(tuple(each for piece in part for each in _split(piece, pattern, known)) for part in prompt.parts)
    return replace(prompt, parts=parts)


def _whole(name: str) -> str:
    """A pattern of a name that is not part of a longer word."""
    before, after = (r"(?<!\w)" if name[0].isalnum() else "", r"(?!\w)" if name[-1].isalnum() else "")
    return f"{before}{re.escape(name)}{after}"


def _split(piece: Piece, pattern: re.Pattern[str], known: Mapping[str, Embedding] | None) -> Iterator[Piece]:
    end, found = 0, False
    for match in pattern.finditer(piece.text):
        said = match["said"]
        name = match[0] if said is None else said
        embedding = (known or {}).get(name.lower()) or (known or {}).get(_ENDING.sub("", name.lower()))
        if embedding is None:
            raise ConfigError(_unknown_embedding(name, known))
        found = True
        if before := piece.text[end : match.start()].strip():
            yield replace(piece, text=before)
        yield replace(piece, text=name, embedding=embedding)
        end = match.end()
    if not found:
        yield piece
    elif after := piece.text[end:].strip():
        yield replace(piece, text=after)


def _unknown_embedding(name: str, known: Mapping[str, Embedding] | None) -> str:
    if known is None:
        return f"The prompt names embedding:{name}, and this model takes no embeddings; leave that out."
    loaded = ", ".join(sorted({each.name for each in known.values()})) or "none"
    return (
        f"The prompt names embedding:{name}, and there is no such embedding; loaded: {loaded}. Load it with "
        "--embedding FILE or pipe.load_embedding(file), or leave it out."
    )


def _take_tags(text: str) -> tuple[str, dict[str, float]]:
    loras: dict[str, float] = {}
    for match in _TAG.finditer(text):
        if match["kind"] == "hypernet":
            raise ConfigError(f"{match[0].strip()} in the prompt: hypernetworks are not supported; leave it out.")
        name = match["name"].strip()
        weight = _tag_weight(match[0].strip(), match["rest"].split(":")[1:])
        if loras.setdefault(name, weight) != weight:
            raise ConfigError(f"The prompt gives the LoRA {name} two weights, {loras[name]} and {weight}; give one.")
    return _TAG.sub("", text), loras


def _tag_weight(tag: str, values: Sequence[str]) -> float:
    """The weight in a tag; for text encoder and backbone alike, where it names both."""
    plain = [re.sub(r"^(?:te|unet)=", "", value.strip()) for value in values]
    if not all(re.fullmatch(_NUMBER, value) for value in plain):
        raise ConfigError(f"{tag} in the prompt: the weight of a LoRA is a number, as in <lora:name:0.8>.")
    weights = {float(value) for value in plain} or {1.0}
    if len(weights) > 1:
        raise ConfigError(f"{tag} in the prompt: a LoRA has one weight for all parts of a model; give one number.")
    return weights.pop()


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    """Kinds and characters: words, brackets, breaks. Of an escape, words without the backslash."""
    end = 0
    for match in _TOKEN.finditer(text):
        if match.start() > end:
            yield "words", text[end : match.start()]
        kind = match.lastgroup or ""
        yield ("words", match["escaped"]) if kind == "escaped" else (kind, match[0])
        end = match.end()
    if end < len(text):
        yield "words", text[end:]


def _weights(tokens: Sequence[tuple[str, str]]) -> list[float | None]:
    """The weight of each token; None for brackets that have their partner, and for breaks."""
    weights: list[float | None] = [None if kind == "break" else 1.0 for kind, _ in tokens]
    opened: dict[str, list[int]] = {"(": [], "[": []}
    for index, (kind, token) in enumerate(tokens):
        if kind == "open":
            opened[token].append(index)
        if kind not in ("close", "number") or not opened["[" if token == "]" else "("]:
            continue
        start = opened["[" if token == "]" else "("].pop()
        factor = float(token[1:-1]) if kind == "number" else 1 / _STEP if token == "]" else _STEP
        weights[start : index + 1] = [None if w is None else w * factor for w in weights[start : index + 1]]
        weights[start] = weights[index] = None
    return weights


def _says_something(part: Sequence[Piece]) -> bool:
    return any(piece.text.strip() for piece in part)
