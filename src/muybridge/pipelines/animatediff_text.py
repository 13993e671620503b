"""What an AnimateDiff video is told by text, from the arguments of a call to conditions of the U-Net."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, PreTrainedTokenizerBase

from muybridge.checkpoints.embeddings import Embedding
from muybridge.conditioning import EncodedPrompts, check_travel, encode_prompts
from muybridge.conditioning.picture_sizes import PictureSizes
from muybridge.conditioning.text_pair import encode_prompts_pair, with_zero_negatives
from muybridge.errors import ConfigError, ShapeError
from muybridge.pipelines.base import check_prompts, prompt_list
from muybridge.pipelines.prompts import Texts, read_texts

Prompt = str | Sequence[str] | Mapping[int, str]


@dataclass(frozen=True, eq=False)
class GivenStates:
    """The arguments of the same names: text states made elsewhere, in place of prompts."""

    prompt_embeds: Tensor | None
    negative_prompt_embeds: Tensor | None
    pooled_prompt_embeds: Tensor | None = None
    negative_pooled_prompt_embeds: Tensor | None = None

    def encoded(self) -> EncodedPrompts | None:
        """The states, or None where there are none."""
        if self.prompt_embeds is None:
            return None
        return EncodedPrompts(
            self.prompt_embeds,
            self.negative_prompt_embeds,
            positive_pooled=self.pooled_prompt_embeds,
            negative_pooled=self.negative_pooled_prompt_embeds,
        )

    def check_pooled(self, width: int | None, guided: bool) -> None:
        """Whether each prompt's vector is there exactly where it has an effect.

        Args:
            width: of the vector that Stable Diffusion XL takes; None for models that take none.
            guided: whether there is guidance.

        Raises:
            ConfigError: a vector where it has no effect.
            ShapeError: none where it is needed, or of another shape.
        """
        pooled = {
            "pooled_prompt_embeds": self.pooled_prompt_embeds,
            "negative_pooled_prompt_embeds": self.negative_pooled_prompt_embeds,
        }
        given = [name for name, value in pooled.items() if value is not None]
        if given and width is None:
            raise ConfigError(f"{given[0]}: only Stable Diffusion XL takes pooled text states; leave them out.")
        if given and self.prompt_embeds is None:
            raise ConfigError(f"{given[0]} goes with prompt_embeds; give both, or neither.")
        if not guided and pooled.pop("negative_pooled_prompt_embeds") is not None:
            raise ConfigError("negative_pooled_prompt_embeds has no effect at guidance_scale 1; leave it out.")
        if width is None or self.prompt_embeds is None:
            return
        wanted = [len(self.prompt_embeds), width]
        for name, value in pooled.items():
            if value is None or list(value.shape) != wanted:
                found = "none" if value is None else list(value.shape)
                raise ShapeError(f"With prompt_embeds, {name} must be {wanted} for this model; given {found}.")


@dataclass(frozen=True, eq=False)
class Words:
    """The text of a call, checked.

    Attributes:
        prompts: one or more, or None where states are given.
        frames: where the prompts are, in a video that travels from each to the next; None where each has its videos.
        given: states in place of prompts, or None.
    """

    prompts: list[str] | None
    frames: list[int] | None
    given: EncodedPrompts | None

    def texts(self, negative: str | Sequence[str] | None, is_plain: bool, embeddings: Mapping[str, Embedding]) -> Texts:
        """The prompts with their negatives, read; see `read_texts`."""
        return read_texts(self.prompts, negative, is_plain, embeddings, one_video=self.frames is not None)

    @property
    def record(self) -> list[Any] | None:
        """The prompt of each video, for its request."""
        if self.prompts is None or self.frames is None:
            return self.prompts
        return [dict(zip(self.frames, self.prompts, strict=True))]


def read_words(
    prompt: Prompt | None,
    negative_prompt: str | Sequence[str] | None,
    states: GivenStates,
    num_frames: int,
    guided: bool,
    pooled_width: int | None,
) -> Words:
    """Check what a call says by text.

    Raises:
        ConfigError: neither prompts nor states, both, or something that would have no effect.
        ShapeError: a prompt for a frame outside the video, or states that do not go together.
    """
    travel = prompt if isinstance(prompt, Mapping) else None
    if travel is not None:
        check_travel(travel, num_frames)
        if negative_prompt is not None and not isinstance(negative_prompt, str):
            raise ConfigError("Prompts by frame have one negative prompt for all; give one.")
    prompts = list(prompt.values()) if isinstance(prompt, Mapping) else prompt_list(prompt)
    given = states.encoded()
    check_prompts(prompts, negative_prompt, given, states.negative_prompt_embeds, guided)
    states.check_pooled(pooled_width, guided)
    return Words(prompts, None if travel is None else list(travel), given)


def encode_texts(
    texts: Texts,
    first: tuple[PreTrainedTokenizerBase, CLIPTextModel],
    second: tuple[PreTrainedTokenizerBase, CLIPTextModelWithProjection] | None,
    guided: bool,
    has_zeros: bool,
) -> EncodedPrompts:
    """Text states of the prompts, and where there is guidance of their negatives.

    Args:
        texts: of the call.
        first: tokenizer and text encoder.
        second: likewise, of Stable Diffusion XL.
        guided: whether there is guidance.
        has_zeros: whether with two encoders the states are zeros where no negative is given.
    """
    zeros = second is not None and guided and texts.negative is None and has_zeros
    negatives = texts.negatives() if guided and not zeros else None
    if second is None:
        return encode_prompts(*first, texts.prompts, negatives)
    encoded = encode_prompts_pair((first[0], second[0]), (first[1], second[1]), texts.prompts, negatives)
    return with_zero_negatives(encoded) if zeros else encoded


@dataclass(frozen=True, eq=False)
class TextConditions:
    """Conditions of the U-Net by name, each `[b, ...]`.

    Attributes:
        positive: of what is wanted.
        negative: of what is not, or None where guidance is off.
    """

    positive: dict[str, Tensor]
    negative: dict[str, Tensor] | None

    @property
    def count(self) -> int:
        """How many videos are made."""
        return len(self.positive["encoder_hidden_states"])


def text_conditions(encoded: EncodedPrompts, sizes: tuple[PictureSizes, PictureSizes]) -> TextConditions:
    """What the U-Net is told: the states, and where there is a vector of each prompt, that and the sizes too."""
    positive = _branch(encoded.positive, encoded.positive_pooled, sizes[0])
    if encoded.negative is None:
        return TextConditions(positive, None)
    return TextConditions(positive, _branch(encoded.negative, encoded.negative_pooled, sizes[1]))


def _branch(states: Tensor, pooled: Tensor | None, sizes: PictureSizes) -> dict[str, Tensor]:
    found = {"encoder_hidden_states": states}
    if pooled is not None:
        found |= {"text_embeds": pooled, "time_ids": sizes.ids(len(states)).to(states.device)}
    return found
