"""Kinds by name, and the presets of norm scopes by theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from muybridge.errors import ConfigError
from muybridge.motion import (
    NUMERIC_PRESETS,
    ModuleSpec,
    MotionContext,
    MotionModule,
    MotionModuleConfig,
    TemporalConfig,
    TemporalMotionModule,
    build_motion_module,
    motion_kinds,
    motion_module_class,
    numeric_preset,
    register_motion_module,
)
from muybridge.motion.registry import kind_of


@dataclass(frozen=True)
class ShiftConfig(MotionModuleConfig):
    """Settings of `Shift`."""

    by: float = 0.0


class Shift(MotionModule):
    """Adds a number."""

    config_class: ClassVar[type[MotionModuleConfig]] = ShiftConfig

    def motion(self, features: Tensor, context: MotionContext) -> Tensor:
        assert isinstance(self.config, ShiftConfig)
        return torch.full_like(features, self.config.by)


def test_a_kind_of_ones_own() -> None:
    assert register_motion_module("test-shift")(Shift) is Shift
    assert "test-shift" in motion_kinds()
    assert motion_module_class("test-shift") is Shift
    module = build_motion_module(ModuleSpec("test-shift", 4, {"by": 2.0}))
    assert kind_of(module) == "test-shift"
    features = torch.ones(1, 2, 1, 1, 4)
    with torch.no_grad():
        assert torch.equal(module(features, MotionContext(torch.arange(2), strength=0.5)), features + 1)


def test_registering_twice() -> None:
    register_motion_module("test-shift")(Shift)
    register_motion_module("test-shift")(Shift)  # the same class again, as when a module is imported anew
    with pytest.raises(ConfigError, match=r"'temporal' is already taken by TemporalMotionModule"):
        register_motion_module("temporal")(Shift)
    assert motion_module_class("temporal") is TemporalMotionModule


def test_unknown_kind_lists_the_known() -> None:
    with pytest.raises(ConfigError, match=r"'tempral'; did you mean 'temporal'\? Known kinds: .*temporal"):
        build_motion_module(ModuleSpec("tempral", 32))


def test_unknown_setting_is_named_with_the_known() -> None:
    with pytest.raises(ConfigError, match=r"'temporal' has no setting heads.*norm_groups.*num_heads"):
        build_motion_module(ModuleSpec("temporal", 32, {"heads": 8}))


def test_a_class_defined_anew_takes_its_own_place() -> None:
    def define() -> type[MotionModule]:
        @register_motion_module("test-anew")
        class Anew(Shift):
            pass

        return Anew

    old, new = define(), define()
    assert motion_module_class("test-anew") is new is not old


def test_a_class_has_one_name() -> None:
    register_motion_module("test-shift")(Shift)
    with pytest.raises(ConfigError, match=r"Shift is already registered as 'test-shift'"):
        register_motion_module("test-other-shift")(Shift)
    with pytest.raises(ConfigError, match=r"Only a subclass of MotionModule.*'test-number'"):
        register_motion_module("test-number")(5)  # type: ignore[type-var]


def test_unregistered_class() -> None:
    class Stranger(Shift):
        pass

    with pytest.raises(ConfigError, match=r"Stranger is not registered.*@register_motion_module"):
        kind_of(Stranger(ShiftConfig(), 4))


def test_config_as_plain_values() -> None:
    config = TemporalConfig(num_heads=4).with_changes(trained_frames=24)
    assert TemporalConfig(**config.to_dict()) == config == TemporalConfig(num_heads=4, trained_frames=24)


def test_presets() -> None:
    scopes = {name: (p.backbone_norm_scope, p.motion_norm_scope) for name, p in NUMERIC_PRESETS.items()}
    assert scopes == {
        "official-v1": ("video", "frame"),
        "official-v2": ("frame", "frame"),
        "official-v3": ("frame", "frame"),
        "easyanimate": ("frame", "frame"),
        "diffusers": ("frame", "video"),
    }
    assert numeric_preset("diffusers").name == "diffusers"


def test_unknown_preset_lists_the_known() -> None:
    with pytest.raises(ConfigError, match=r"'v9'. Known: official-v1, .*, easyanimate, diffusers"):
        numeric_preset("v9")
