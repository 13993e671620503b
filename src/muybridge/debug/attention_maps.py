"""Which frame looks at which: the attention of motion modules, averaged over everything but frames."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import torch
from safetensors.torch import save_file
from torch import Tensor

from muybridge.debug.calls import ModuleCall, ModuleObserver
from muybridge.debug.drawing import heat_map, save_picture
from muybridge.debug.modules import Target, modules_of, nearest_names, select_modules
from muybridge.errors import ConfigError
from muybridge.files.atomic import new_file
from muybridge.motion import MotionModule
from muybridge.motion.attention import Attention, AttentionProcessor

_SCORES_AT_ONCE = 2**24


class AttentionMaps(ModuleObserver):
    """A context that looks at queries and keys of every attention in the chosen motion modules.

    >>> with AttentionMaps(pipe) as attention:
    ...     pipe("a red circle moving left", seed=1)
    >>> attention.save("maps")

    The weights are computed once more beside the model's own attention, in float32; the model's results stay the same.
    """

    def __init__(self, target: Target, sites: str | Sequence[str] = "*", skip_other_lengths: bool = False) -> None:
        """Choose motion sites.

        Args:
            target: a network or a pipeline.
            sites: names of motion modules with `*` and `?`, one or several.
            skip_other_lengths: pass over calls with another number of frames than the first one, as training on clips
                of mixed lengths makes them; else such a call raises `ConfigError`.

        Raises:
            ConfigError: no motion module at all, none of that name (with the nearest), or none with an attention layer
                of `muybridge.motion.attention`.
        """
        motion = {name: each for name, each in modules_of(target).items() if isinstance(each, MotionModule)}
        if not motion:
            raise ConfigError("There is no motion module in this model, so no frame looks at another.")
        chosen = [name for name in select_modules(target, sites) if name in motion]
        if not chosen:
            raise ConfigError(f"{sites!r} matches no motion site. {nearest_names(str(sites), motion)}")
        if not any(isinstance(part, Attention) for name in chosen for part in motion[name].modules()):
            kinds = ", ".join(sorted({type(motion[name]).__name__ for name in chosen}))
            raise ConfigError(
                f"{kinds} has no attention between frames that could be seen; only attentions made of "
                "muybridge.motion.attention.Attention are. Leave the maps out, or look at other sites."
            )
        super().__init__(target, {name: motion[name] for name in chosen})
        self._skip_other_lengths = skip_other_lengths
        self._sums: dict[str, Tensor] = {}
        self._tokens: dict[str, int] = {}
        self._frames = 0
        self._attentions: list[tuple[Attention, AttentionProcessor]] = []

    def __enter__(self) -> Self:
        super().__enter__()
        self._sums, self._tokens = {}, {}
        for name, module in modules_of(self.target).items():
            site = next((site for site in self._names.values() if name.startswith(f"{site}.")), None)
            if site is not None and isinstance(module, Attention):
                self._attentions.append((module, module.processor))
                module.processor = cast("AttentionProcessor", _Listener(name, module.processor, self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        for attention, processor in self._attentions:
            attention.processor = processor
        self._attentions.clear()

    def before(self, call: ModuleCall) -> None:
        """Learn how many frames there are: a motion module is given features `[b, f, h, w, c]`."""
        self._frames = cast("Tensor", call.args[0]).shape[1]

    @property
    def maps(self) -> dict[str, Tensor]:
        """For each attention `[heads, f, f]`: row i is how frame i spreads its attention over frames; rows sum to 1.

        Averaged over places, batch and calls, so over guidance and steps too.

        Raises:
            ConfigError: nothing was seen: no motion module ran, at strength 0 for example.
        """
        if not self._sums:
            raise ConfigError(
                "No attention between frames was seen. Run the model inside the context, with motion_strength above 0."
            )
        return {name: (total / self._tokens[name]).float() for name, total in self._sums.items()}

    def save(self, folder: str | Path) -> list[Path]:
        """Write a png of each attention, averaged over its heads, and all maps as `attention.safetensors`.

        Raises:
            OutputError: the folder cannot be written.
        """
        folder, maps = Path(folder), self.maps
        paths = [save_picture(heat_map(each.mean(0), name), folder / f"{name}.png") for name, each in maps.items()]
        path = folder / "attention.safetensors"
        with new_file(path) as temporary:
            save_file({name: each.contiguous() for name, each in maps.items()}, temporary)
        return [*paths, path]

    def see(self, name: str, query: Tensor, key: Tensor) -> None:
        """Add an attention's weights, of `query` and `key` `[n, tokens, heads, head_dim]`.

        Tokens are the frames of one place, or, of many places, frames within places, as the built-in kinds have them.
        """
        frames = self._frames
        if query.shape[1] % frames or key.shape[1] % frames:
            return
        if name in self._sums and self._sums[name].shape[-1] != frames:
            if self._skip_other_lengths:
                return
            raise ConfigError(f"{name} was run with {frames} frames after another number; use a context for each.")
        total = _frame_weights(query.detach(), key.detach(), frames)
        self._sums[name] = self._sums.get(name, 0) + total
        self._tokens[name] = self._tokens.get(name, 0) + query.shape[0] * query.shape[1] // frames


class _Listener:
    """In the place of an attention's processor; everything else of it is asked for as ever."""

    _name: str
    _inner: AttentionProcessor
    _maps: AttentionMaps

    def __init__(self, name: str, processor: AttentionProcessor, maps: AttentionMaps) -> None:
        vars(self).update(_name=name, _inner=processor, _maps=maps)

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        self._maps.see(self._name, query, key)
        return self._inner(query, key, value, mask)

    def __reduce_ex__(self, protocol: object) -> tuple[object, ...]:
        # A model that is copied or pickled inside the context takes the processor along, and nobody who listens.
        return copy.copy, (self._inner,)

    def __getattr__(self, name: str) -> object:
        if "_inner" not in vars(self):
            raise AttributeError(name)
        return getattr(self._inner, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._inner, name, value)


def _frame_weights(query: Tensor, key: Tensor, frames: int) -> Tensor:
    """Sum over everything but heads and frames of who looks at whom, `[heads, f, f]` in float64."""
    heads, width = query.shape[2:]
    total = torch.zeros(heads, frames, frames, dtype=torch.float64)
    batches = max(1, _SCORES_AT_ONCE // (heads * query.shape[1] * key.shape[1]))
    # A multiple of the frames, so that every piece begins with frame 0.
    rows = max(1, _SCORES_AT_ONCE // (heads * key.shape[1] * frames)) * frames
    for queries, keys in zip(query.split(batches), key.split(batches), strict=True):
        keys_by_head = keys.float().permute(0, 2, 3, 1)
        for piece in queries.split(rows, dim=1):
            scores = piece.float().transpose(1, 2) @ keys_by_head * width**-0.5
            weights = scores.softmax(dim=-1).unflatten(-1, (-1, frames)).sum(-2)
            total += weights.unflatten(-2, (-1, frames)).sum(dim=(0, 2), dtype=torch.float64).cpu()
    return total
