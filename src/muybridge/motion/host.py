"""Backbones as hosts of motion modules: sites, attaching, and the context of a forward pass."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence

import torch
from diffusers import ConfigMixin, ModelMixin
from torch import Tensor

from muybridge.errors import ConfigError, ShapeError
from muybridge.motion.adapter import MotionAdapter
from muybridge.motion.contract import MotionContext, MotionModule, MotionSite
from muybridge.motion.normalisation import NormScope


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
            f"{site.name} ({problem})"
            for site in adapter.sites.values()
            if (problem := _misfit(site, own.get(site.name))) is not None
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

    def save_config(self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: object) -> None:
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
        strength: float | Sequence[float] | Tensor,
        motion_condition: Tensor | None = None,
    ) -> MotionContext:
        """What the motion modules of one forward pass are told; positions default to 0, 1, 2 and so on.

        Warns when there are more frames than the attached weights have seen.

        Args:
            num_frames: of the features.
            frame_positions: `[f]`, or None.
            timestep_embedding: `[b, d]`.
            encoder_hidden_states: `[b, n, d]`.
            strength: one number, or one for each frame. Numbers that are all the same are taken as one; a tensor is
                used without looking at it, so that nothing waits for its device.
            motion_condition: `[b, d]`, for modules that take one.

        Raises:
            ShapeError: `frame_positions` or `strength` are not one number a frame, or `motion_condition` is not one
                vector a video.
            ConfigError: a `motion_condition` that no module reads.
        """
        like = timestep_embedding
        if frame_positions is None:
            frame_positions = torch.arange(num_frames, device=like.device, dtype=torch.float32)
        if frame_positions.shape != (num_frames,):
            raise ShapeError(f"frame_positions must be [{num_frames}]; given {tuple(frame_positions.shape)}.")
        adapter = self._attached_adapter
        trained = None if adapter is None else adapter.trained_frames
        if trained is not None and num_frames > trained:
            warnings.warn(
                f"{num_frames} frames at once, but these motion modules were trained on {trained}; "
                "motion may drift or dissolve.",
                stacklevel=3,
            )
        if motion_condition is not None:
            self._check_condition(motion_condition, len(like))
        return MotionContext(
            frame_positions.to(like.device),
            timestep_embedding,
            encoder_hidden_states,
            _strength_of_frames(strength, num_frames, like),
            motion_condition,
        )

    def backbone_norm_scope(self, context: MotionContext) -> NormScope:
        """Over which pixels the backbone's own norms run: without motion it is the image model, whatever the preset."""
        adapter = self._attached_adapter
        if adapter is None or adapter.preset.backbone_norm_scope == "frame":
            return "frame"
        silent = not isinstance(context.strength, Tensor) and context.strength == 0
        return "frame" if silent or adapter.is_silent else adapter.preset.backbone_norm_scope

    def _check_condition(self, condition: Tensor, batch: int) -> None:
        adapter = self._attached_adapter
        modules = [] if adapter is None else [m for m in adapter.modules() if isinstance(m, MotionModule)]
        if not any(getattr(module.config, "motion_condition_width", None) for module in modules):
            raise ConfigError("No motion module here reads a motion_condition; leave it out.")
        if condition.ndim != 2 or len(condition) != batch:
            raise ShapeError(f"motion_condition must be [{batch}, d], one a video; given {list(condition.shape)}.")

    def _put(self, name: str, module: MotionModule | None) -> None:
        parent, index = name.rsplit(".", 1)
        self.get_submodule(parent).add_module(index, module)


def _misfit(site: MotionSite, own: MotionSite | None) -> str | None:
    if own is None:
        return f"{site.width} channels; here no such site"
    if site.width != own.width:
        return f"{site.width} channels; here {own.width}"
    for name in ("timestep_width", "text_width"):
        wanted, found = getattr(site, name), getattr(own, name)
        if wanted not in (None, found):  # None: its module does not read that
            return f"{name} {wanted}; here {found}"
    return None


def _strength_of_frames(strength: float | Sequence[float] | Tensor, num_frames: int, like: Tensor) -> float | Tensor:
    if not isinstance(strength, (Tensor, Sequence)):
        return float(strength)
    if not isinstance(strength, Tensor):
        if len(strength) == num_frames and len(set(strength)) == 1:
            return float(strength[0])
        strength = torch.tensor(strength, dtype=torch.float32)
    if strength.shape != (num_frames,):
        raise ShapeError(f"motion_strength must be one number or [{num_frames}]; given {list(strength.shape)}.")
    return strength.to(like.device, like.dtype)
