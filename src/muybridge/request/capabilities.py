"""What a model can do, known before a step is run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from muybridge.errors import ConfigError


@dataclass(frozen=True)
class Capabilities:
    """What a model can be asked for.

    Attributes:
        model: what it is, at the start of a sentence, as in "An AnimateDiff model".
        instead: what could do what this one cannot, as in "an EasyAnimate model".
        takes: names of what only some models can do, such as "residuals"; conditions say which they need.
        settings: settings of a request that only some models have, such as "profile".
        refusals: for some of what it does not take, a better reason than that.
        source_strength: how far a source video is changed where nobody says.
        source_always: whether a source video shows through even where all noise levels are run through.
        is_continued: whether a video longer than is made at once is made in segments where nobody says how.
        pooled_width: width of the vector of a prompt that the model is told; None for models that are told none.
    """

    model: str
    instead: str
    takes: frozenset[str]
    settings: frozenset[str] = frozenset()
    refusals: Mapping[str, str] = field(default_factory=dict)
    source_strength: float = 0.8
    source_always: bool = True
    is_continued: bool = False
    pooled_width: int | None = None

    def require(self, needs: Collection[str], name: str) -> None:
        """Whether the model can do all of `needs`, for something called `name`.

        Raises:
            ConfigError: it cannot.
        """
        for need in sorted(needs):
            if need in self.takes:
                continue
            if need in self.refusals:
                raise ConfigError(self.refusals[need].format(name=name))
            raise ConfigError(f"{self.model} has no {name}; leave out, or use {self.instead}.")

    def require_settings(self, names: Collection[str]) -> None:
        """Whether the model has settings of these names.

        Raises:
            ConfigError: not all of them.
        """
        if foreign := sorted(set(names) - self.settings):
            raise ConfigError(f"{self.model} has no {', '.join(foreign)}; leave out, or use {self.instead}.")
