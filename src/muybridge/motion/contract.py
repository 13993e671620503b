"""What a motion module is: the one interface between an image backbone and anything that makes its frames move."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from muybridge.errors import ConfigError, ShapeError
from muybridge.motion.normalisation import NormScope
from muybridge.types import SettingsDict, SettingsView

ContextInput = Literal["timestep", "text"]
"""What a kind may read of the context besides positions, and whose width its weights then depend on."""
FrameOrder = Literal["equivariant", "ordered"]
"""Whether moving frames about moves the result about in the same way, or changes it."""


@dataclass(frozen=True)
class MotionContext:
    """What a motion module may know besides the features.

    Attributes:
        frame_positions: `[f]`, the absolute index of each frame in the video; float, so that it can be stretched.
        timestep_embedding: `[b, d]`, the backbone's embedding of the noise level, or None where it has none.
        encoder_hidden_states: `[b, n, d]`, the text states as the backbone's own attention sees them, or None.
        strength: how much of the module's contribution is added, one number or `[f]`, one for each frame; 0 leaves
            the image model's features untouched.
        motion_condition: `[b, d]`, a description of the motion wanted, or None. A kind that reads it has a setting
            `motion_condition_width`.
    """

    frame_positions: Tensor
    timestep_embedding: Tensor | None = None
    encoder_hidden_states: Tensor | None = None
    strength: float | Tensor = 1.0
    motion_condition: Tensor | None = None

    def required(self, name: str) -> Tensor:
        """A tensor of the context that a module cannot do without.

        Raises:
            ConfigError: the caller has not given it.
        """
        value = getattr(self, name)
        if value is None:
            raise ConfigError(f"This motion module needs {name}, and was given none; hand it to the backbone's call.")
        return value


@dataclass(frozen=True)
class MotionModuleConfig:
    """Base of every kind's settings; saved with the weights, so its fields must be plain values.

    Attributes:
        trained_frames: how many frames the weights have seen; more are allowed, with a warning. None for a kind
            that looks at each frame alone.
    """

    trained_frames: int | None = 32

    def to_dict(self) -> SettingsDict:
        """Plain values, as written to a config file."""
        return asdict(self)

    def with_changes(self, **changes: object) -> MotionModuleConfig:
        """A copy with other values."""
        return replace(self, **changes)


@dataclass(frozen=True)
class MotionSite:
    """A named place in a backbone that may hold a motion module.

    Attributes:
        name: of the place.
        width: channels of its features.
        timestep_width: channels of the backbone's timestep embedding; None where it has none.
        text_width: channels of the text states; None where it has none.
    """

    name: str
    width: int
    timestep_width: int | None = None
    text_width: int | None = None

    def context_widths(self, inputs: Iterable[ContextInput]) -> dict[str, int]:
        """The widths of the given inputs, by the names under which a module's constructor takes them.

        Raises:
            ConfigError: the backbone has no such input.
        """
        widths: dict[str, int] = {}
        for name in inputs:
            width = self.timestep_width if name == "timestep" else self.text_width
            if width is None:
                raise ConfigError(
                    f"The motion site {self.name!r} has no {name} width, which this kind needs; take the sites from "
                    "backbone.motion_sites()."
                )
            widths[f"{name}_width"] = width
        return widths


class MotionModule(nn.Module, ABC):
    """A network from the features of all frames to features of the same shape.

    Subclasses implement `motion`, what is added to the features; the sum is done here, once for all kinds.
    A fresh module must be the identity, that is, `motion` must return zeros; yet within two steps of training
    gradients must reach every parameter. Videos of one batch must not see each other.

    Attributes:
        kind: the name it is registered under; set by the registry.
        config_class: its settings, a frozen dataclass.
        context_inputs: what it reads of the context besides positions. For each of them its constructor takes a
            keyword (`timestep_width`, `text_width`) and hands it on to this class's constructor.
        supported_dtypes: of the features.
        frame_order: "equivariant" if frames in another order give the same results in that order, whatever their
            positions; "ordered" if the order counts.
        causal: whether what a frame becomes depends on itself and earlier frames only.
        strength: multiplies the strength of the call, at this site; `MotionAdapter.set_strength` sets it.
        site_name: where it sits, for messages.
    """

    kind: ClassVar[str] = ""
    config_class: ClassVar[type[MotionModuleConfig]] = MotionModuleConfig
    context_inputs: ClassVar[tuple[ContextInput, ...]] = ()
    supported_dtypes: tuple[torch.dtype, ...] = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
    frame_order: FrameOrder = "ordered"
    causal: bool = False
    strength: float = 1.0
    site_name: str = ""

    def __init__(self, config: MotionModuleConfig, width: int, **context_widths: int) -> None:
        """`width` is the number of channels of the site; `context_widths` those of the inputs that it declares."""
        super().__init__()
        self.config = config
        self.width = width
        self.context_widths = context_widths

    @classmethod
    def inputs_of(cls, config: MotionModuleConfig) -> tuple[ContextInput, ...]:  # noqa: ARG003, kinds may need it
        """What modules of this config read of the context; `context_inputs` unless the config decides."""
        return cls.context_inputs

    def set_norm_scope(self, scope: NormScope) -> None:
        """Take over the norm scope of a numeric preset, where the config has one."""
        if hasattr(self.config, "norm_scope"):
            self.config = self.config.with_changes(norm_scope=scope)

    @abstractmethod
    def motion(self, features: Tensor, context: MotionContext) -> Tensor:
        """What is to be added to `features [b, f, h, w, c]`: a new tensor of the same shape and dtype.

        `features` must not be changed in place. The strength is none of its business.
        """

    def forward(self, features: Tensor, context: MotionContext, change_only: bool = False) -> Tensor:
        """`features + strength * motion(features)`; strength 0 returns `features` itself.

        With `change_only` it returns what this module alone contributes, whatever the strength of the call.

        Raises:
            ShapeError: the module returned another shape than it was given.
            ConfigError: or another dtype, or does not support that of the features.
        """
        strength = self.strength if change_only else self._strength_in(context)
        if not isinstance(strength, Tensor) and strength == 0:
            return torch.zeros_like(features) if change_only else features
        change = self._checked(features, context)
        if change_only:
            return change if strength == 1 else change * strength
        if isinstance(strength, Tensor):
            strength = strength.to(change.dtype)[:, None, None, None]
            if torch.is_grad_enabled():
                return features + change * strength
            return change.mul_(strength).add_(features)
        if torch.is_grad_enabled():
            return torch.add(features, change, alpha=strength)
        if strength != 1:
            change.mul_(strength)
        return change.add_(features)

    def _strength_in(self, context: MotionContext) -> float | Tensor:
        if self.strength == 0:  # whatever that of the call is
            return 0.0
        return context.strength if self.strength == 1 else context.strength * self.strength

    def _checked(self, features: Tensor, context: MotionContext) -> Tensor:
        if features.dtype not in self.supported_dtypes:
            known = ", ".join(str(dtype) for dtype in self.supported_dtypes)
            raise ConfigError(f"{self._label()} does not work in {features.dtype}; supported: {known}.")
        change = self.motion(features, context)
        if change.shape != features.shape:
            raise ShapeError(
                f"{self._label()} returned {list(change.shape)} for features {list(features.shape)}; motion() must "
                "return the shape that it was given."
            )
        if change.dtype != features.dtype:
            if not torch.is_autocast_enabled(features.device.type):
                raise ConfigError(
                    f"{self._label()} returned {change.dtype} for features of {features.dtype}; motion() must return "
                    "the dtype that it was given."
                )
            change = change.to(features.dtype)
        return change

    def _label(self) -> str:
        return f"The motion module {self.kind or type(self).__name__!r} at {self.site_name or 'no site'}"


@dataclass(frozen=True)
class ModuleSpec:
    """How to build one module.

    Attributes:
        kind: its name in the registry.
        width: channels of its site.
        config: its settings as plain values.
        context_widths: of the context's inputs that it reads, as keywords of its constructor.
    """

    kind: str
    width: int
    config: SettingsView = field(default_factory=dict)
    context_widths: Mapping[str, int] = field(default_factory=dict)
