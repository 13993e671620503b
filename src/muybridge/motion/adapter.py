"""Motion adapters: the motion modules for all sites of one kind of backbone, as one thing to save, load and attach."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from muybridge.errors import ConfigError
from muybridge.motion.composite import MixMotionModule
from muybridge.motion.contract import ModuleSpec, MotionModule, MotionModuleConfig, MotionSite
from muybridge.motion.numerics import NumericPreset, numeric_preset
from muybridge.motion.provenance import (
    FORMAT_VERSION,
    Origins,
    changed_origins,
    origins_of,
    require_format,
    require_kinds,
)
from muybridge.motion.reading import MotionPlan, plan_motion, precision_of_motion
from muybridge.motion.registry import build_motion_module, spec_for_site, spec_of
from muybridge.motion.sites import choose_by_pattern
from muybridge.types import SettingsDict, SettingsView
from muybridge.weights.files import read_weights
from muybridge.weights.loading import load_folder, load_strictly


class MotionAdapter(ModelMixin, ConfigMixin):
    """The motion modules of a backbone, apart from the backbone.

    Weight names are `site.parameter`, for example `down_blocks.0.motion_modules.1.proj_out.weight`. The modules stay
    the adapter's while attached, so training or moving either side is seen by the other.
    """

    _supports_gradient_checkpointing = False
    _skip_layerwise_casting_patterns = ["norm"]

    @register_to_config
    def __init__(
        self,
        modules_by_site: dict[str, SettingsDict],
        numerics: str = "official-v3",
        origins: Origins | None = None,
        format_version: int = FORMAT_VERSION,
    ) -> None:
        """Make fresh modules.

        Args:
            modules_by_site: per site the fields of `ModuleSpec`, as plain values so that they can be saved.
            numerics: the preset of norm scopes the weights were trained under, see `motion.numerics`; it decides
                over a `norm_scope` of the modules.
            origins: the packages that the kinds came from when the config was written.
            format_version: of that config.

        Raises:
            ConfigError: no sites, an unknown kind (says which package to install, where `origins` tells) or preset,
                settings that do not fit a site, or a config of a newer version.
        """
        super().__init__()
        require_format(format_version)
        if not modules_by_site:
            raise ConfigError("A motion adapter needs at least one site.")
        self._preset = numeric_preset(numerics)
        if origins:
            require_kinds(origins)
        try:
            specs = {name: ModuleSpec(**spec) for name, spec in modules_by_site.items()}
            self.sites = {name: MotionSite(name, spec.width, **spec.context_widths) for name, spec in specs.items()}
            for name, spec in specs.items():
                self._hold(name, build_motion_module(spec))
        except ConfigError as error:
            if origins and (note := changed_origins(origins)):
                raise ConfigError(f"{error}{note}") from error
            raise
        self._complete()

    @classmethod
    def for_sites(
        cls,
        sites: Iterable[MotionSite],
        kind: str = "temporal",
        config: MotionModuleConfig | SettingsView | None = None,
        numerics: str = "official-v3",
    ) -> MotionAdapter:
        """Fresh modules of one kind for the given sites; attached, they change nothing until trained.

        Raises:
            ConfigError: unknown kind or settings, or a site that lacks an input that the kind reads.
        """
        return cls({site.name: asdict(spec_for_site(site, kind, config)) for site in sites}, numerics=numerics)

    @classmethod
    def from_settings(cls, settings: SettingsView) -> MotionAdapter:
        """Fresh modules by what `settings` returned, as a backbone saves it with itself.

        Raises:
            ConfigError: as of the constructor.
        """
        require_format(settings.get("format_version", FORMAT_VERSION))
        return cls(**settings)

    @classmethod
    def of_modules(cls, modules: Mapping[str, MotionModule], numerics: str = "official-v3") -> MotionAdapter:
        """An adapter of modules that there are already, by site; they stay the same objects, weights and all.

        Raises:
            ConfigError: none, or one of a class that is not registered.
        """
        with torch.device("meta"):
            adapter = cls({name: asdict(spec_of(module)) for name, module in modules.items()}, numerics=numerics)
        for name, module in modules.items():
            adapter._hold(name, module)
        adapter._complete()
        return adapter

    @classmethod
    def mixed(cls, adapters: Sequence[MotionAdapter], weights: Sequence[float]) -> MotionAdapter:
        """Several adapters as one: at each site their modules side by side, weighted. Parameters are shared with them.

        A site that only some of them have gets the modules of those.

        Args:
            adapters: for the same backbone; each costs the time that it costs alone.
            weights: one each; 0 leaves an adapter out, and they need not sum to 1.

        Raises:
            ConfigError: not as many weights as adapters, or adapters of different widths or norm scopes.
        """
        if not adapters or len(adapters) != len(weights):
            raise ConfigError(f"Mixing needs a weight for each adapter; given {len(adapters)} and {len(weights)}.")
        first = adapters[0]
        for other in adapters[1:]:
            scopes, own = other.preset, first.preset
            if replace(scopes, name=own.name) != own:
                raise ConfigError(
                    f"Adapters of the presets {own.name} and {scopes.name} pool their norms differently; give one "
                    "the preset of the other with set_numerics before mixing."
                )
        parts: dict[str, list[tuple[MotionModule, float]]] = {}
        for adapter, weight in zip(adapters, weights, strict=True):
            for name, module in adapter.motion_modules():
                parts.setdefault(name, []).append((module, weight))
        for name, found in parts.items():
            if len(widths := {module.width for module, _ in found}) > 1:
                raise ConfigError(f"Adapters for different backbones cannot be mixed: {name} has widths {widths}.")
        mixtures = {
            name: MixMotionModule.of([module for module, _ in found], weights=[weight for _, weight in found])
            for name, found in parts.items()
        }
        return cls.of_modules(mixtures, first.numerics)

    @classmethod
    def from_single_file(
        cls,
        path: str | os.PathLike[str],
        numerics: str | None = None,
        num_heads: int = 8,
        variant: str | None = None,
        dtype: torch.dtype | None = torch.float32,
    ) -> MotionAdapter:
        """Read a motion module file of this machine, in any layout that `motion.reading.plan_motion` knows.

        `checkpoints.motion_files.read_motion` gives the same adapter, of folders and places on the hub too, and says
        how it is run.

        Args:
            path: the file.
            numerics: norm scopes to run under; by default those of the version found.
            num_heads: attention heads, which a file does not tell (8 in all published ones).
            variant: what it is, one of `motion.variants.VARIANTS`; by default as detected.
            dtype: of the weights; None leaves them as they are stored.

        Raises:
            CheckpointError: unreadable or unsafe file, no motion modules in it, or not a whole set of them.
            ConfigError: an unknown variant or preset, or heads that do not divide the widths.

        Warns:
            UserWarning: as of `plan_motion`.
        """
        name = Path(path).name
        plan = plan_motion(
            read_weights(path, precision_of_motion(dtype)),
            name,
            numerics=numerics,
            num_heads=num_heads,
            variant=variant,
        )
        return cls.of_plan(plan, name, dtype)

    @classmethod
    def of_plan(cls, plan: MotionPlan, source: str, dtype: torch.dtype | None = None) -> MotionAdapter:
        """The adapter that a plan describes, in evaluation mode; without `dtype` it shares the plan's tensors.

        Raises:
            CheckpointError: weights missing, left over, of other shapes, or not finite; the message names `source`.
            ConfigError: as of the constructor.
        """
        with torch.device("meta"):
            adapter = cls(plan.modules_by_site, numerics=plan.variant.numerics)
        state = {key: value if dtype is None else value.to(dtype) for key, value in plan.weights.items()}
        load_strictly(adapter, state, source, assign=True)
        return adapter.eval()

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str] | None, **kwargs: object
    ) -> MotionAdapter:
        """Load a folder written by `save_pretrained`.

        Raises:
            CheckpointError: missing, damaged or NaN-filled weights, or weights that do not fit the config.
        """
        return load_folder(super().from_pretrained, pretrained_model_name_or_path, cls.__name__, kwargs)

    @property
    def numerics(self) -> str:
        """Name of the preset of norm scopes."""
        return self._preset.name

    @property
    def preset(self) -> NumericPreset:
        """Norm scopes the adapter wants, in itself and in the backbone around it."""
        return self._preset

    @property
    def trained_frames(self) -> int | None:
        """The smallest number of frames that any module was trained on; None where every frame is looked at alone."""
        limits = [module.config.trained_frames for _, module in self.motion_modules()]
        limited = [limit for limit in limits if limit is not None]
        return min(limited) if limited else None

    @property
    def strengths(self) -> dict[str, float]:
        """What `set_strength` gave each site."""
        return {name: module.strength for name, module in self.motion_modules()}

    @property
    def is_silent(self) -> bool:
        """Whether the strength is 0 at every site, so that the backbone is its image model."""
        return not any(module.strength for _, module in self.motion_modules())

    def set_strength(self, strength: float | Mapping[str, float]) -> None:
        """Multiply the strength of every call, everywhere or by site; 0 leaves a site out altogether.

        It is not saved with the weights.

        Args:
            strength: for all sites; or by patterns of their names, such as `{"up_blocks.*": 0.5}`, where the first
                that fits decides. Sites that none fits have 1.

        Raises:
            ConfigError: a pattern without effect, or a strength that is not finite.
        """
        given = strength if isinstance(strength, Mapping) else {"*": strength}
        if wrong := [value for value in given.values() if not math.isfinite(value)]:
            raise ConfigError(f"A motion strength must be a finite number; given {wrong[0]}.")
        chosen = choose_by_pattern(self.sites, given)
        for name, module in self.motion_modules():
            module.strength = float(chosen.get(name, 1.0))

    def settings(self) -> SettingsDict:
        """The keyword arguments that build an adapter of the same modules, as plain values."""
        names = ("modules_by_site", "numerics", "origins", "format_version")
        return {name: self.config[name] for name in names}

    def motion_modules(self) -> Iterator[tuple[str, MotionModule]]:
        """Pairs of site name and module."""
        for name in self.sites:
            module = self.get_submodule(name)
            if not isinstance(module, MotionModule):
                raise ConfigError(f"{name} holds a {type(module).__name__}, not a motion module.")
            yield name, module

    def set_numerics(self, name: str) -> None:
        """Switch to another preset of norm scopes, in every module that has one; the weights stay."""
        self._preset = numeric_preset(name)
        self.register_to_config(numerics=name)
        self._complete()

    def _complete(self) -> None:
        specs = {}
        for name, module in self.motion_modules():
            module.set_norm_scope(self._preset.motion_norm_scope)
            specs[name] = asdict(spec_of(module))
            for part in module.modules():
                if isinstance(part, MotionModule):
                    part.site_name = name
        self.register_to_config(modules_by_site=specs, origins=origins_of(self.modules()))

    def _hold(self, name: str, module: MotionModule) -> None:
        holder: nn.Module = self
        *path, last = name.split(".")
        for part in path:
            if part not in holder._modules:
                _add_part(holder, part, nn.Module(), name)
            holder = holder.get_submodule(part)
        _add_part(holder, last, module, name)

    def forward(self, *_: object, **__: object) -> Tensor:
        """An adapter is not called; its modules are, by the backbone that holds them."""
        raise ConfigError("A motion adapter is not called itself; attach it with backbone.set_motion_adapter(adapter).")


def _add_part(holder: nn.Module, part: str, module: nn.Module, site: str) -> None:
    try:
        holder.add_module(part, module)
    except KeyError as error:  # empty, or the name of something that a module has already
        raise ConfigError(f"No motion site can be called {site!r}: {part!r} cannot be a part of the name.") from error
