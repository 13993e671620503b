"""Loaded models, kept for the next request."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch import nn

from muybridge.checkpoints.quiet_loading import quiet_loading
from muybridge.pipelines import VideoPipeline
from muybridge.pipelines.load import load_choice
from muybridge.pipelines.placing import Wish
from muybridge.pipelines.wishes import wishes_of
from muybridge.request import ModelChoice
from muybridge.weights.files import WEIGHT_SUFFIXES


@dataclass(frozen=True, eq=False)
class _Warm:
    choice: ModelChoice
    wish: Wish
    pipeline: VideoPipeline
    num_bytes: int


class WarmModels:
    """Models by all that is put into them but LoRAs, which are put in and taken out again for each request.

    A model that was fitted into memory is loaded anew for a video that may need more than it was fitted for, and one
    whose layers are optimized is kept with its LoRAs.
    """

    def __init__(self, budget: int | None = None) -> None:
        """Without a model.

        Args:
            budget: bytes that the weights of all models may take together; the one that was asked for last stays,
                however large it is. By default half the memory of the machine, and on a card nothing: one model at a
                time, for which all of it is free.
        """
        self._budget = budget
        self._models: dict[str, _Warm] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The models, from the one used last."""
        return tuple(dict.fromkeys(warm.choice.model for warm in reversed(self._models.values())))

    @contextlib.contextmanager
    def model(self, choice: ModelChoice, wish: Wish) -> Iterator[VideoPipeline]:
        """A model with its LoRAs, which are gone when the block ends.

        Raises:
            MuybridgeError: as `load_choice`; nothing new is kept then.
        """
        bare = choice.model_copy(update={"loras": {}})
        warm = self._take(bare, wish) or self._take(choice, wish)
        if warm is None:
            warm = self._load(bare, choice, wish)
        if warm.choice.loras == choice.loras:
            yield warm.pipeline
            return
        try:
            with quiet_loading():
                for path, weight in choice.loras.items():
                    warm.pipeline.load_lora_weights(path, weight=weight)
            yield warm.pipeline
        finally:
            warm.pipeline.unload_lora_weights()

    def unload(self) -> None:
        """Let go of all models."""
        self._models.clear()
        _free()

    def _take(self, choice: ModelChoice, wish: Wish) -> _Warm | None:
        key = _key(choice, wish)
        warm = self._models.pop(key, None)
        if warm is None:
            return None
        if not _is_enough(warm, wish):
            del warm
            _free()
            return None
        self._models[key] = warm  # as the one used last
        return warm

    def _load(self, bare: ModelChoice, choice: ModelChoice, wish: Wish) -> _Warm:
        is_on_card = torch.device(wish.device or "cpu").type != "cpu"
        usual = 0 if is_on_card else psutil.virtual_memory().total // 2
        budget = usual if self._budget is None else self._budget
        wanted = choice if choice.speed else bare
        self._make_room(budget - _bytes_on_disk(wanted), num_kept=0)
        with quiet_loading():
            pipeline = load_choice(wanted, wish)
        warm = _Warm(wanted, wish, pipeline, _weight_bytes(pipeline))
        self._models[_key(wanted, wish)] = warm
        self._make_room(budget, num_kept=1)
        return warm

    def _make_room(self, budget: int, num_kept: int) -> None:
        """Let go of models, from that used longest ago on, until the rest takes no more than a budget."""
        total, is_freed = sum(warm.num_bytes for warm in self._models.values()), False
        for key, warm in list(self._models.items())[: len(self._models) - num_kept]:
            if total <= budget:
                break
            total -= warm.num_bytes
            del self._models[key]
            is_freed = True
        if is_freed:
            _free()


def _key(choice: ModelChoice, wish: Wish) -> str:
    """Of everything that decides what is loaded, but for the video that it has to fit."""
    return f"{choice.model_dump_json()} {wish.dtype} {wish.memory} {wish.device}"


def _is_enough(warm: _Warm, wish: Wish) -> bool:
    """Whether a model that was fitted into memory fits with this video too."""
    placement = warm.pipeline.placement
    if placement is None or placement.shape is None or wish == warm.wish:
        return True
    if wish.controls != warm.wish.controls or wish.profile != warm.wish.profile or wish.shape is None:
        return False
    asked = (wish.shape.num_frames, wish.shape.height, wish.shape.width)
    return all(size is not None and size <= planned for size, planned in zip(asked, placement.shape, strict=True))


def _weight_bytes(pipeline: Any) -> int:
    networks = [part for part in pipeline.components.values() if isinstance(part, nn.Module)]
    tensors = {id(each): each for part in networks for each in [*part.parameters(), *part.buffers()]}
    return sum(each.nbytes for each in tensors.values())


def _bytes_on_disk(choice: ModelChoice) -> int:
    """About what a model that is to be loaded will take."""
    place = wishes_of(choice).place
    files = [place] if place.is_file() else [each for each in place.rglob("*") if each.suffix in WEIGHT_SUFFIXES]
    return sum(each.stat().st_size for each in files if each.is_file())


def _free() -> None:
    # Networks refer to themselves, by their hooks.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
