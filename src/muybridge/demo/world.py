"""The vocabulary of the toy world: what can be in a scene, how it is said, and what is never trained on.

A scene is one coloured shape doing one thing in front of one background. `sample_scenes` draws scenes,
`caption` says them in one of several phrasings, `HELD_OUT_TRIPLES` lists the combinations that no training
sample ever shows, so that an evaluation on them measures composition and not memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from muybridge.errors import ConfigError

SHAPES = ("circle", "square", "triangle", "ring", "heart")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (40, 170, 70),
    "blue": (50, 90, 220),
    "yellow": (235, 200, 40),
    "purple": (150, 60, 190),
    "orange": (240, 130, 30),
    "cyan": (40, 190, 210),
    "pink": (240, 120, 180),
}
MOTIONS = (
    "moving left",
    "moving right",
    "moving up",
    "moving down",
    "growing",
    "shrinking",
    "spinning",
    "still",
)
SIZES = ("normal", "large")
BACKGROUNDS: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "white": ((255, 255, 255), (255, 255, 255)),
    "black": ((0, 0, 0), (0, 0, 0)),
    "gray": ((128, 128, 128), (128, 128, 128)),
    "sky": ((150, 200, 245), (250, 225, 200)),
}
"""Colour of the top row and of the bottom row; rows between are blended linearly."""

ROTATION_SYMMETRIC = frozenset({"circle", "ring"})
"""Shapes on which spinning cannot be seen."""

_MOTION_PHRASES: dict[str, tuple[str, ...]] = {
    "moving left": ("moving left", "moving to the left", "going left"),
    "moving right": ("moving right", "moving to the right", "going right"),
    "moving up": ("moving up", "moving upwards", "going up"),
    "moving down": ("moving down", "moving downwards", "going down"),
    "growing": ("growing", "getting bigger"),
    "shrinking": ("shrinking", "getting smaller"),
    "spinning": ("spinning", "rotating"),
    "still": ("still", "standing still", "not moving"),
}


@dataclass(frozen=True)
class Scene:
    """What is in a clip, in words; every field is one of the names of this module."""

    shape: str
    colour: str
    motion: str
    size: str = "normal"
    background: str = "white"

    @property
    def triple(self) -> tuple[str, str, str]:
        """(shape, colour, motion): the unit in which combinations are held out."""
        return (self.shape, self.colour, self.motion)


def valid_triples() -> list[tuple[str, str, str]]:
    """All (shape, colour, motion) that can be told apart: no spinning circles or rings (304 triples)."""
    return [
        (shape, colour, motion)
        for shape in SHAPES
        for colour in COLOURS
        for motion in MOTIONS
        if not (motion == "spinning" and shape in ROTATION_SYMMETRIC)
    ]


def _is_held_out(triple: tuple[str, str, str]) -> bool:
    # 3 is coprime to the number of colours, so each (shape, motion) loses exactly one colour.
    shape, colour, motion = triple
    return (SHAPES.index(shape) + 3 * list(COLOURS).index(colour) + 5 * MOTIONS.index(motion)) % 8 == 0


HELD_OUT_TRIPLES: tuple[tuple[str, str, str], ...] = tuple(t for t in valid_triples() if _is_held_out(t))
"""38 combinations no training sample shows; each pair of shape and motion is missing in exactly one colour."""

TRAINING_TRIPLES: tuple[tuple[str, str, str], ...] = tuple(t for t in valid_triples() if not _is_held_out(t))

_LARGE_SHARE = 0.4
_MOST_TIMES = 100


def oversampled(times: Mapping[str, int]) -> tuple[tuple[str, str, str], ...]:
    """`TRAINING_TRIPLES`, in which triples with certain words come several times.

    Args:
        times: how often triples with a shape, colour or motion come, 2 to 100 times; those with several of the words,
            as often as the largest number says.

    Raises:
        ConfigError: a word that is no shape, colour or motion, or another number.
    """
    known = (*SHAPES, *COLOURS, *MOTIONS)
    for word, number in times.items():
        if word not in known:
            raise ConfigError(f"oversample knows no {word!r}; there are {', '.join(known)}.")
        if not 2 <= number <= _MOST_TIMES:
            raise ConfigError(f"oversample has {word!r} {number} times; give a whole number from 2 to {_MOST_TIMES}.")
    return tuple(triple for triple in TRAINING_TRIPLES for _ in range(max(times.get(word, 1) for word in triple)))


def sample_scenes(
    count: int,
    rng: np.random.Generator,
    triples: tuple[tuple[str, str, str], ...] = TRAINING_TRIPLES,
) -> list[Scene]:
    """Draw scenes with uniformly random triples and backgrounds; two in five are large."""
    chosen = rng.integers(len(triples), size=count)
    large = rng.random(count) < _LARGE_SHARE
    backgrounds = rng.integers(len(BACKGROUNDS), size=count)
    names = list(BACKGROUNDS)
    return [
        Scene(*triples[t], size=SIZES[int(is_large)], background=names[b])
        for t, is_large, b in zip(chosen, large, backgrounds, strict=True)
    ]


def full_caption(scene: Scene) -> str:
    """The caption that names everything, in the plainest phrasing."""
    return plain_caption(scene)


def plain_caption(
    scene: Scene, with_colour: bool = True, with_motion: bool = True, with_background: bool = True
) -> str:
    """The plainest phrasing, without what is not to be said."""
    subject = _subject(scene, with_colour)
    motion = f" {scene.motion}" if with_motion else ""
    place = f" on a {scene.background} background" if with_background else ""
    return f"{_article(subject)} {subject}{motion}{place}"


def _subject(scene: Scene, with_colour: bool = True) -> str:
    words = ["large"] * (scene.size == "large") + [scene.colour] * with_colour + [scene.shape]
    return " ".join(words)


def _article(subject: str) -> str:
    return "an" if subject.startswith("orange") else "a"


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """Say a scene in a random phrasing, leaving some attributes out.

    Shape and size are always said truly (the word "large" or no word); colour and motion are left out one time in
    twelve, the background one time in four.
    """
    subject = _subject(scene, with_colour=rng.random() > 1 / 12)
    phrases = _MOTION_PHRASES[scene.motion]
    phrase = phrases[0] if rng.random() < 0.7 else phrases[rng.integers(len(phrases))]
    motion = phrase if rng.random() > 1 / 12 else ""
    background = scene.background if rng.random() > 1 / 4 else ""
    if background == "gray" and rng.random() < 0.3:
        background = "grey"
    text = f"{_article(subject)} {subject} {motion}".rstrip()
    style = rng.random()
    if style < 0.5:
        return f"{text} on a {background} background" if background else text
    if style < 0.8:
        parts = [subject, motion, f"{background} background" if background else ""]
        return ", ".join(part for part in parts if part)
    return f"on a {background} background, {text}" if background else text


def vocabulary() -> list[str]:
    """Every word a caption can contain, sorted; the tokenizer of the demo models is made from it."""
    words = {"a", "an", "on", "background", "large", "grey", ",", *SHAPES, *COLOURS, *BACKGROUNDS}
    for phrases in _MOTION_PHRASES.values():
        for phrase in phrases:
            words.update(phrase.split())
    return sorted(words)
