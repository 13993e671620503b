"""Putting motion modules into a model that exists, and taking them out again without a trace."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from torch import nn

from muybridge.errors import ConfigError
from muybridge.motion.adapter import MotionAdapter
from muybridge.motion.composite import ComposeMotionModule, CompositeMotionModule, MixMotionModule
from muybridge.motion.contract import MotionModule, MotionModuleConfig, MotionSite
from muybridge.motion.host import MotionHost
from muybridge.motion.registry import build_motion_module, kind_of, motion_module_class, spec_for_site
from muybridge.motion.sites import choose_by_pattern
from muybridge.types import SettingsView

IntegrationMode = Literal["add", "replace", "after"]
Settings = MotionModuleConfig | SettingsView | None
KindChoice = str | type[MotionModule] | tuple[str | type[MotionModule], Settings]
"""A kind by name or class, alone or with its settings."""
_BESIDE: dict[str, type[CompositeMotionModule]] = {"add": MixMotionModule, "after": ComposeMotionModule}
_NETWORKS = ("backbone", "unet", "transformer")


@dataclass(frozen=True)
class MotionIntegration:
    """What `integrate_motion` has done.

    Attributes:
        model: to use from now on: the one given, or the video model made of an image model.
        adapter: all motion modules of the model now; save this.
        sites: from the sites that were given a module to the kind of that module.
        num_parameters: added.
        num_bytes: that they take.
    """

    model: Any
    adapter: MotionAdapter
    sites: dict[str, str]
    num_parameters: int
    num_bytes: int
    _host: MotionHost
    _given: object
    _previous: MotionAdapter | None
    _strengths: dict[str, float]

    def remove(self) -> Any:
        """Undo it: the adapter, settings and strengths of before are back. Returns the model that was given.

        Raises:
            ConfigError: it is undone already, or other modules have been put in since; undo those first.
        """
        if self._host.motion_adapter is not self.adapter:
            raise ConfigError(
                "The motion modules of this model have been changed since; undo the later changes first. "
                "What is undone already cannot be undone again."
            )
        if self._previous is None:
            getattr(self.model, "remove_motion_adapter", self._host.remove_motion_adapter)()
        else:
            # The model may have been moved in the meantime.
            nn.Module.to(self._previous, self._host.device, self._host.dtype)
            self._previous.set_numerics(self._previous.numerics)
            self._previous.set_strength(self._strengths)
            _attach(self.model, self._host, self._previous)
        return self._given

    def __str__(self) -> str:
        """One line for people."""
        kinds = ", ".join(sorted(set(self.sites.values())))
        size = f"{self.num_parameters:,} parameters, {self.num_bytes / 2**20:.1f} MiB"
        return f"{kinds} at {len(self.sites)} of {len(self._host.motion_sites())} motion sites: {size}"


def integrate_motion(
    model: object,
    motion: str | type[MotionModule] | MotionModule | Mapping[str, KindChoice],
    sites: str | Sequence[str] | None = None,
    mode: IntegrationMode = "add",
    config: Settings = None,
    given: object = None,
) -> MotionIntegration:
    """Give motion modules to a backbone, or to the backbone of a pipeline. Fresh ones change nothing until trained.

    Args:
        model: a backbone with motion sites, or anything that has one as its `backbone`, `unet` or `transformer`.
        motion: a kind by name or class; a module, for a single site; or kinds by patterns of sites, where the first
            that fits decides: `{"mid_block.*": "low_rank", "*": ("temporal", {"num_heads": 4})}`.
        sites: patterns of the sites meant, such as `up_blocks.*`; all if not given.
        mode: what to do where there is a module already. "add" lets both see the same features and adds what both
            make of them, "after" lets the new one see what the old one has made, "replace" takes the old one out.
        config: settings of the kind, where `motion` is one.
        given: what `remove` returns, where that is not `model`.

    Raises:
        ConfigError: a model without motion sites, an unknown kind or mode, settings that do not fit, a pattern
            without effect, or settings given twice. The model is then as before.
    """
    host = find_host(model)
    if mode not in ("add", "replace", "after"):
        raise ConfigError(f"mode must be one of add, replace, after; given {mode!r}.")
    new = _make_modules(host.motion_sites(), motion, sites, config)
    for module in new.values():
        nn.Module.to(module, host.device, host.dtype)
        module.train(host.training)
    previous = host.motion_adapter
    present = {} if previous is None else dict(previous.motion_modules())
    together = {name: _beside(mode, present.get(name), module) for name, module in new.items()}
    numerics = "official-v3" if previous is None else previous.numerics
    adapter = MotionAdapter.of_modules({**present, **together}, numerics)
    integration = MotionIntegration(
        model=model,
        adapter=adapter,
        sites={name: kind_of(module) for name, module in new.items()},
        num_parameters=sum(p.numel() for module in new.values() for p in module.parameters()),
        num_bytes=sum(p.numel() * p.element_size() for module in new.values() for p in module.parameters()),
        _host=host,
        _given=model if given is None else given,
        _previous=previous,
        _strengths={} if previous is None else previous.strengths,
    )
    _attach(model, host, adapter)
    return integration


def find_host(model: object) -> MotionHost:
    """The backbone of a model, or the model itself where it is one.

    Raises:
        ConfigError: it has none with motion sites.
    """
    found = [model, *(getattr(model, name, None) for name in _NETWORKS)]
    for network in found:
        if isinstance(network, MotionHost):
            return network
    inside = next((network for network in found[1:] if network is not None), None)
    hint = f", and inside it is a {type(inside).__name__}" if inside is not None else ""
    raise ConfigError(
        f"A {type(model).__name__} has no motion sites{hint}. Motion goes into a UNet3DConditionModel, a "
        "Transformer3DModel, an image model that one of them can be made of, or a pipeline around one."
    )


def _attach(model: object, host: MotionHost, adapter: MotionAdapter) -> None:
    # A pipeline keeps the adapter among its parts too.
    attach: Callable[[MotionAdapter], None] = getattr(model, "set_motion_adapter", host.set_motion_adapter)
    attach(adapter)


def _beside(mode: IntegrationMode, present: MotionModule | None, new: MotionModule) -> MotionModule:
    if present is None or mode == "replace":
        return new
    return _BESIDE[mode].of([present, new]).train(new.training)


def _make_modules(
    own: Mapping[str, MotionSite],
    motion: str | type[MotionModule] | MotionModule | Mapping[str, KindChoice],
    sites: str | Sequence[str] | None,
    config: Settings,
) -> dict[str, MotionModule]:
    if isinstance(motion, Mapping):
        if sites is not None or config is not None:
            raise ConfigError("Kinds by site name their sites and settings themselves; leave sites and config out.")
        return {name: _build(own[name], choice) for name, choice in choose_by_pattern(own, motion).items()}
    patterns = ["*"] if sites is None else [sites] if isinstance(sites, str) else list(sites)
    if not patterns:
        raise ConfigError("sites is empty; leave it out for all sites.")
    chosen = choose_by_pattern(own, dict.fromkeys(patterns))
    if isinstance(motion, MotionModule):
        return {_single_site(motion, chosen, own, config): motion}
    return {name: _build(own[name], (motion, config)) for name in chosen}


def _build(site: MotionSite, choice: KindChoice) -> MotionModule:
    kind, config = choice if isinstance(choice, tuple) else (choice, None)
    name = kind if isinstance(kind, str) else _registered_name(kind)
    return build_motion_module(spec_for_site(site, name, config))


def _registered_name(kind: object) -> str:
    name = vars(kind).get("kind") if isinstance(kind, type) and issubclass(kind, MotionModule) else None
    if not name or motion_module_class(name) is not kind:
        raise ConfigError(f"{kind!r} is no registered motion module; decorate it with @register_motion_module(kind).")
    return cast("str", name)


def _single_site(module: MotionModule, chosen: SettingsView, own: Mapping[str, MotionSite], config: Settings) -> str:
    if config is not None:
        raise ConfigError("A module has its settings; leave config out.")
    if len(chosen) != 1:
        raise ConfigError(
            f"A module can sit at one site, and {len(chosen)} are meant; name one in sites, or give the kind."
        )
    (name,) = chosen
    if module.width != own[name].width:
        raise ConfigError(f"The site {name} has {own[name].width} channels; the module given has {module.width}.")
    return name
