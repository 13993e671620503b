"""Motion adapters: the motion modules for all sites of one kind of backbone, as one thing to save, load and attach."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from muybridge.errors import CheckpointError, ConfigError, ShapeError
from muybridge.motion.contract import ModuleSpec, MotionContext, MotionModule, MotionModuleConfig, MotionSite
from muybridge.motion.keys import ORIGINAL_MOTION_KEYS, describe_motion_file
from muybridge.motion.numerics import NumericPreset, numeric_preset
from muybridge.motion.registry import build_motion_module, kind_of
from muybridge.weights.files import read_weights
from muybridge.weights.keymap import apply_key_map
from muybridge.weights.loading import load_folder, load_strictly


class MotionAdapter(ModelMixin, ConfigMixin):
    """The motion modules of a backbone, apart from the backbone.

    Weight names are `site.parameter`, for example `down_blocks.0.motion_modules.1.proj_out.weight`. The modules stay
    the adapter's while attached, so training or moving either side is seen by the other.
    """

    _supports_gradient_checkpointing = False
    _skip_layerwise_casting_patterns = ["norm"]

    @register_to_config
    def __init__(self, modules_by_site: dict[str, dict[str, Any]], numerics: str = "official-v3") -> None:
        """Make fresh modules.

        Args:
            modules_by_site: per site the fields of `ModuleSpec`, as plain values so that they can be saved.
            numerics: the preset of norm scopes the weights were trained under, see `motion.numerics`; it decides
                over a `norm_scope` of the modules.

        Raises:
            ConfigError: no sites, an unknown kind or preset, or settings that do not fit a site.
        """
        super().__init__()
        if not modules_by_site:
            raise ConfigError("A motion adapter needs at least one site.")
        self._preset = numeric_preset(numerics)
        self.sites = {name: MotionSite(name, spec["width"]) for name, spec in modules_by_site.items()}
        for name, spec in modules_by_site.items():
            self._hold(name, build_motion_module(ModuleSpec(**spec)))
        self._apply_motion_scope()

    @classmethod
    def for_sites(
        cls,
        sites: Iterable[MotionSite],
        kind: str = "temporal",
        config: MotionModuleConfig | None = None,
        numerics: str = "official-v3",
    ) -> MotionAdapter:
        """Fresh modules of one kind for the given sites; attached, they change nothing until trained."""
        values = config.to_dict() if config is not None else {}
        specs = {site.name: asdict(ModuleSpec(kind, site.width, values)) for site in sites}
        return cls(specs, numerics=numerics)

    @classmethod
    def from_single_file(
        cls, path: str | os.PathLike[str], numerics: str | None = None, num_heads: int = 8
    ) -> MotionAdapter:
        """Read a motion module file in the original's key names (`.ckpt`, `.pth` or `.safetensors`).

        Wrappers (`state_dict`), a leading `module.`, position tables and the weights of a whole U-Net around the
        motion modules are taken off. What the file is, is read from its keys and shapes.

        Args:
            path: the file.
            numerics: norm scopes to run under; by default those of the version found.
            num_heads: attention heads, which a file does not tell (8 in all published ones).

        Raises:
            CheckpointError: unreadable or unsafe file, no motion modules in it, or incomplete ones.
        """
        found = read_weights(path)
        state = apply_key_map(ORIGINAL_MOTION_KEYS, found)
        if not state:
            raise CheckpointError(
                f"{path} has no motion modules: none of its {len(found)} keys contains 'motion_modules.' "
                f"(first keys: {', '.join(list(found)[:3])})."
            )
        description = describe_motion_file(found, state, num_heads)
        adapter = cls(
            {name: asdict(spec) for name, spec in description.modules.items()},
            numerics=numerics or description.numerics,
        )
        load_strictly(adapter, state, str(path))
        return adapter

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str] | None, **kwargs: Any
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
    def trained_frames(self) -> int:
        """The smallest number of frames that any module was trained on."""
        return min(module.config.trained_frames for _, module in self.motion_modules())

    def settings(self) -> dict[str, Any]:
        """The keyword arguments that build an adapter of the same modules, as plain values."""
        return {"modules_by_site": self.config["modules_by_site"], "numerics": self.numerics}

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
        self._apply_motion_scope()

    def _apply_motion_scope(self) -> None:
        specs = {}
        for name, module in self.motion_modules():
            if hasattr(module.config, "norm_scope"):
                module.config = module.config.with_changes(norm_scope=self._preset.motion_norm_scope)
            specs[name] = asdict(ModuleSpec(kind_of(module), module.width, module.config.to_dict()))
        self.register_to_config(modules_by_site=specs)

    def _hold(self, name: str, module: MotionModule) -> None:
        holder: nn.Module = self
        *path, last = name.split(".")
        for part in path:
            if part not in holder._modules:
                _add_part(holder, part, nn.Module(), name)
            holder = holder.get_submodule(part)
        _add_part(holder, last, module, name)

    def forward(self, *_: Any, **__: Any) -> Tensor:
        """An adapter is not called; its modules are, by the backbone that holds them."""
        raise ConfigError("A motion adapter is not called itself; attach it with backbone.set_motion_adapter(adapter).")


def _add_part(holder: nn.Module, part: str, module: nn.Module, site: str) -> None:
    try:
        holder.add_module(part, module)
    except KeyError as error:  # empty, or the name of something that a module has already
        raise ConfigError(f"No motion site can be called {site!r}: {part!r} cannot be a part of the name.") from error


class MotionHost(ModelMixin, ConfigMixin):
    """Base of backbones: finds the sites, takes and gives back adapters, and makes the context of a forward pass."""

    _attached_adapter: MotionAdapter | None = None

    def motion_sites(self) -> dict[str, MotionSite]:
        """All sites of the backbone by name, occupied or not."""
        raise ConfigError(f"{type(self).__name__} declares no motion sites.")

    @property
    def motion_adapter(self) -> MotionAdapter | None:
        """The adapter whose modules sit in the sites, or None."""
        return self._attached_adapter

    def set_motion_adapter(self, adapter: MotionAdapter) -> None:
        """Put an adapter's modules into the sites, in place of any adapter attached before.

        Raises:
            ConfigError: the adapter is for another backbone; names the first sites that do not fit.
        """
        own = self.motion_sites()
        wrong = [
            f"{site.name} ({site.width} channels; here {own[site.name].width if site.name in own else 'no such site'})"
            for site in adapter.sites.values()
            if own.get(site.name) != site
        ]
        if wrong:
            raise ConfigError(
                f"This motion adapter is for another backbone: {len(wrong)} of its {len(adapter.sites)} sites do not "
                f"fit, first {'; '.join(wrong[:3])}. Use one made for these widths."
            )
        self.remove_motion_adapter()
        for name, module in adapter.motion_modules():
            self._put(name, module)
        object.__setattr__(self, "_attached_adapter", adapter)
        self.register_to_config(motion_adapter=adapter.settings())

    def remove_motion_adapter(self) -> MotionAdapter | None:
        """Take the modules out of the sites; the image model is left, frame by frame. Returns the adapter."""
        adapter = self._attached_adapter
        if adapter is not None:
            for name in adapter.sites:
                self._put(name, None)
            object.__setattr__(self, "_attached_adapter", None)
            self.register_to_config(motion_adapter=None)
        return adapter

    def save_config(self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any) -> None:
        """Write the config, with the settings that the attached adapter has now."""
        if self._attached_adapter is not None:
            self.register_to_config(motion_adapter=self._attached_adapter.settings())
        super().save_config(save_directory, push_to_hub, **kwargs)

    def motion_context(
        self,
        num_frames: int,
        frame_positions: Tensor | None,
        timestep_embedding: Tensor,
        encoder_hidden_states: Tensor,
        strength: float,
    ) -> MotionContext:
        """What the motion modules of one forward pass are told; positions default to 0, 1, 2 and so on.

        Warns when there are more frames than the attached weights have seen.

        Raises:
            ShapeError: `frame_positions` is not one number a frame.
        """
        device = timestep_embedding.device
        if frame_positions is None:
            frame_positions = torch.arange(num_frames, device=device, dtype=torch.float32)
        if frame_positions.shape != (num_frames,):
            raise ShapeError(f"frame_positions must be [{num_frames}]; given {tuple(frame_positions.shape)}.")
        adapter = self._attached_adapter
        if adapter is not None and num_frames > adapter.trained_frames:
            warnings.warn(
                f"{num_frames} frames at once, but these motion modules were trained on {adapter.trained_frames}; "
                "motion may drift or dissolve.",
                stacklevel=3,
            )
        return MotionContext(frame_positions.to(device), timestep_embedding, encoder_hidden_states, strength)

    def _put(self, name: str, module: MotionModule | None) -> None:
        parent, index = name.rsplit(".", 1)
        self.get_submodule(parent).add_module(index, module)
