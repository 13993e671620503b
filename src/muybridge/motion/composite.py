"""The kinds `compose` and `mix`: several motion modules at one site, one after the other or side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from muybridge.errors import ConfigError
from muybridge.motion.contract import ContextInput, ModuleSpec, MotionContext, MotionModule, MotionModuleConfig
from muybridge.motion.normalisation import NormScope
from muybridge.motion.registry import (
    build_motion_module,
    make_config,
    motion_module_class,
    register_motion_module,
    spec_of,
)
from muybridge.types import SettingsDict, SettingsView


@dataclass(frozen=True)
class ComposeConfig(MotionModuleConfig):
    """Settings of the kind `compose`.

    Attributes:
        modules: the parts in order, each a kind or `{"kind": ..., "config": {...}}`.
        trained_frames: the smallest of the parts'; not a setting.

    Raises:
        ConfigError: no parts, or one that is unknown or has settings that it does not know.
    """

    trained_frames: int | None = field(init=False, default=None)
    modules: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.modules, str) or not self.modules:
            raise ConfigError(
                'Several motion modules at a site are given as modules: ["temporal", "timestep_film"], or with '
                'settings as {"kind": "temporal", "config": {"num_heads": 4}}.'
            )
        parts = tuple(_part(given) for given in self.modules)
        limits = [config.trained_frames for config in map(_config_of, parts) if config.trained_frames is not None]
        object.__setattr__(self, "modules", parts)
        object.__setattr__(self, "trained_frames", min(limits, default=None))

    def to_dict(self) -> SettingsDict:
        """Plain values, without what follows from the parts."""
        values = super().to_dict()
        del values["trained_frames"]
        return values


@dataclass(frozen=True)
class MixConfig(ComposeConfig):
    """Settings of the kind `mix`.

    Attributes:
        weights: of the parts; all 1 if not given. They need not sum to 1.

    Raises:
        ConfigError: not one finite weight for each part.
    """

    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        weights = tuple(float(weight) for weight in self.weights) or (1.0,) * len(self.modules)
        if len(weights) != len(self.modules) or not all(map(math.isfinite, weights)):
            raise ConfigError(
                f"A mixture of {len(self.modules)} modules needs as many finite weights; given {weights}."
            )
        object.__setattr__(self, "weights", weights)


def _part(given: object) -> SettingsDict:
    part = SettingsDict(kind=given) if isinstance(given, str) else given
    if not isinstance(part, Mapping) or not {"kind"} <= part.keys() <= {"kind", "config"}:
        raise ConfigError(f'A part is a kind or {{"kind": ..., "config": {{...}}}}; given {given!r}.')
    return {"kind": part["kind"], "config": make_config(part["kind"], part.get("config") or {}).to_dict()}


def _config_of(part: SettingsView) -> MotionModuleConfig:
    return make_config(part["kind"], part["config"])


class CompositeMotionModule(MotionModule):
    """Motion modules at one site that act as one. It promises about the order of frames what all of them promise."""

    config: ComposeConfig

    def __init__(self, config: ComposeConfig, width: int, **context_widths: int) -> None:
        """Fresh parts."""
        super().__init__(config, width, **context_widths)
        specs = (ModuleSpec(part["kind"], width, part["config"], context_widths) for part in config.modules)
        self._take([build_motion_module(spec) for spec in specs])

    @classmethod
    def of(cls, modules: Sequence[MotionModule], **settings: object) -> CompositeMotionModule:
        """Around modules that there are already, which stay what they are. All must have one width.

        Raises:
            ConfigError: a part of a class that is not registered, or settings that the kind does not have.
        """
        specs = [spec_of(module) for module in modules]
        config = {"modules": [{"kind": spec.kind, "config": spec.config} for spec in specs], **settings}
        context_widths = {name: width for spec in specs for name, width in spec.context_widths.items()}
        with torch.device("meta"):
            made = build_motion_module(ModuleSpec(cls.kind, specs[0].width, config, context_widths))
        composite = cast("CompositeMotionModule", made)
        composite._take(modules)
        return composite

    def _take(self, modules: Sequence[MotionModule]) -> None:
        self.parts = nn.ModuleList(modules)
        self.frame_order = "equivariant" if all(m.frame_order == "equivariant" for m in modules) else "ordered"
        self.causal = all(module.causal for module in modules)
        self.supported_dtypes = tuple(
            dtype for dtype in MotionModule.supported_dtypes if all(dtype in m.supported_dtypes for m in modules)
        )

    @classmethod
    def inputs_of(cls, config: MotionModuleConfig) -> tuple[ContextInput, ...]:
        """All that any part reads."""
        parts = cast("ComposeConfig", config).modules
        inputs = (motion_module_class(part["kind"]).inputs_of(_config_of(part)) for part in parts)
        return tuple(dict.fromkeys(name for of_part in inputs for name in of_part))

    def set_norm_scope(self, scope: NormScope) -> None:
        """In every part that has one."""
        parts = []
        for part in self.parts:
            module = cast("MotionModule", part)
            module.set_norm_scope(scope)
            spec = spec_of(module)
            parts.append({"kind": spec.kind, "config": spec.config})
        self.config = cast("ComposeConfig", self.config.with_changes(modules=tuple(parts)))


@register_motion_module("compose")
class ComposeMotionModule(CompositeMotionModule):
    """Modules one after the other: each sees what those before it have made of the features."""

    config_class: ClassVar[type[MotionModuleConfig]] = ComposeConfig

    def motion(self, features: Tensor, context: MotionContext) -> Tensor:
        """The sum of what the parts add to `[b, f, h, w, c]`."""
        change = self.parts[0](features, context, change_only=True)
        for part in self.parts[1:]:
            more = part(features + change, context, change_only=True)
            change = change + more if torch.is_grad_enabled() else change.add_(more)
        return change


@register_motion_module("mix")
class MixMotionModule(CompositeMotionModule):
    """Modules side by side: all see the same features, and what they add is weighted and summed."""

    config_class: ClassVar[type[MotionModuleConfig]] = MixConfig

    def motion(self, features: Tensor, context: MotionContext) -> Tensor:
        """The weighted sum of what the parts add to `[b, f, h, w, c]`; parts of weight 0 are not run."""
        total: Tensor | None = None
        for part, weight in zip(self.parts, cast("MixConfig", self.config).weights, strict=True):
            if weight == 0:
                continue
            change = part(features, context, change_only=True)
            if total is None:
                total = change if weight == 1 else change * weight
            elif torch.is_grad_enabled():
                total = torch.add(total, change, alpha=weight)
            else:
                total.add_(change, alpha=weight)
        return torch.zeros_like(features) if total is None else total
