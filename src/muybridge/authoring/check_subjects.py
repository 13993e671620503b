"""What motion modules are checked on: a site of each backbone at tiny size, and features and context that fit it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from muybridge.backbones.dit import Transformer3DModel
from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.errors import ConfigError
from muybridge.motion import MotionAdapter, MotionContext, MotionHost, MotionModule, MotionSite
from muybridge.motion.registry import build_motion_module, spec_for_site
from muybridge.types import SettingsView

Status = Literal["passed", "failed", "not applicable", "reported"]

TEXT_WIDTH = 32
_TEXT_TOKENS = 5
_CHANNELS = 4


@dataclass(frozen=True)
class Finding:
    """What one check has found at one place: how it went, and a sentence with the figures."""

    status: Status
    detail: str


def judged(good: bool, detail: str) -> Finding:
    """Passed or failed."""
    return Finding("passed" if good else "failed", detail)


def not_applicable(detail: str) -> Finding:
    """Nothing to judge, and why."""
    return Finding("not applicable", detail)


@dataclass(frozen=True, eq=False)
class Call:
    """What a motion module is called with: `features [b, f, h, w, c]` and the context of the same videos."""

    features: Tensor
    context: MotionContext

    def rows(self, indices: Sequence[int]) -> Call:
        """The call with these videos of the batch, in this order."""
        own = {name: value[list(indices)] for name, value in self._of_videos().items()}
        return Call(self.features[list(indices)], replace(self.context, **own))

    def reordered(self, frames: Sequence[int]) -> Call:
        """The call with the frames in another order, while the positions stay where they are."""
        return replace(self, features=self.features[:, list(frames)])

    def to(self, dtype: torch.dtype) -> Call:
        """In another precision; positions stay float32, as backbones give them."""
        own = {name: value.to(dtype) for name, value in self._of_videos().items()}
        return Call(self.features.to(dtype), replace(self.context, **own))

    def empty_on(self, device: str) -> Call:
        """A call of the same shapes on another device; what is in it is not defined."""
        own = {name: _empty_like(value, device) for name, value in self._of_videos().items()}
        positions = _empty_like(self.context.frame_positions, device)
        return Call(_empty_like(self.features, device), replace(self.context, frame_positions=positions, **own))

    def change(self, module: MotionModule) -> Tensor:
        """What `module.motion` returns for a copy of the features, so that calls cannot spoil each other."""
        return module.motion(self.features.clone(), self.context)

    def _of_videos(self) -> dict[str, Tensor]:
        names = ("timestep_embedding", "encoder_hidden_states", "motion_condition")
        found = {name: getattr(self.context, name) for name in names}
        return {name: value for name, value in found.items() if value is not None}


def _empty_like(tensor: Tensor, device: str) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=device)


@dataclass(frozen=True, eq=False)
class Subject:
    """A kind under examination, at one site of one backbone.

    Attributes:
        label: of the backbone, for people.
        host: the backbone, at tiny size and with empty sites.
        site: one of its places.
        kind: a registered name.
        config: its settings as plain values.
    """

    label: str
    host: MotionHost
    site: MotionSite
    kind: str
    config: SettingsView

    def fresh(self, seed: int = 0) -> MotionModule:
        """A module as training begins with it, in evaluation mode."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build_motion_module(spec_for_site(self.site, self.kind, self.config)).eval()

    def awake(self, dtype: torch.dtype = torch.float32) -> MotionModule:
        """A module that does something: noise is added to all weights, as a fresh one is the identity."""
        module = self.fresh()
        add_noise(module)
        nn.Module.to(module, dtype)
        return module

    def call(
        self,
        module: MotionModule,
        batch: int = 1,
        frames: int = 4,
        size: tuple[int, int] = (2, 3),
        first_frame: int = 0,
    ) -> Call:
        """A call in float32 with random features and context of `batch` different videos."""
        generator = torch.Generator().manual_seed(7)

        def noise(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator)

        condition = condition_width(module)
        context = MotionContext(
            frame_positions=torch.arange(frames, dtype=torch.float32) + first_frame,
            timestep_embedding=noise(batch, self.site.timestep_width or 1),
            encoder_hidden_states=noise(batch, _TEXT_TOKENS, self.site.text_width or 1),
            motion_condition=noise(batch, condition) if condition else None,
        )
        return Call(noise(batch, frames, *size, self.site.width), context)

    def adapter(self) -> MotionAdapter:
        """Awake modules of the kind for all sites of the backbone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            adapter = MotionAdapter.for_sites(self.host.motion_sites().values(), self.kind, self.config)
        add_noise(adapter)
        return adapter.eval()

    def predict(self, adapter: MotionAdapter, frames: int) -> Tensor:
        """The prediction of the whole backbone with `adapter` in its sites, for noise of so many frames."""
        generator = torch.Generator().manual_seed(frames)
        noise = torch.randn(1, _CHANNELS, frames, 4, 4, generator=generator)
        text = torch.randn(1, _TEXT_TOKENS, TEXT_WIDTH, generator=generator)
        width = condition_width(adapter)
        condition = torch.randn(1, width, generator=generator) if width else None
        self.host.set_motion_adapter(adapter)
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")  # more frames than trained are among what is checked
                network: Any = self.host
                return network(noise, torch.tensor([500]), text, motion_condition=condition).sample
        finally:
            self.host.remove_motion_adapter()


def condition_width(module: nn.Module) -> int:
    """Channels of the `motion_condition` that a module or a part of it reads; 0 if none does."""
    parts = (part for part in module.modules() if isinstance(part, MotionModule))
    return max((getattr(part.config, "motion_condition_width", None) or 0 for part in parts), default=0)


def add_noise(module: nn.Module) -> None:
    """Noise on every weight, of a size that keeps the spread of what passes through a layer."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            spread = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.2
            parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter) * spread)


def make_subjects(kind: str, config: SettingsView) -> list[Subject]:
    """A kind at the first site of a tiny U-Net (32 channels) and of a tiny transformer (64 channels)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        hosts: dict[str, MotionHost] = {"U-Net": _unet(), "transformer": _transformer()}
    return [
        Subject(label, host.eval(), next(iter(host.motion_sites().values())), kind, config)
        for label, host in hosts.items()
    ]


def _unet() -> UNet3DConditionModel:
    return UNet3DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def _transformer() -> Transformer3DModel:
    return Transformer3DModel(
        num_attention_heads=2,
        attention_head_dim=32,
        in_channels=_CHANNELS,
        latent_channels=_CHANNELS,
        out_channels=_CHANNELS,
        num_layers=4,
        sample_size=8,
        caption_channels=TEXT_WIDTH,
        clip_channels=None,
    )


def apart(first: Tensor, second: Tensor) -> float:
    """The largest difference as a share of the largest value of `first`; infinite where anything is not finite."""
    if not (first.isfinite().all() and second.isfinite().all()):
        return float("inf")
    scale = max(float(first.abs().max()), 1e-12)
    return float((first - second).abs().max()) / scale


def registered_name(module_class: Any) -> str:
    """The kind that a class is registered as.

    Raises:
        ConfigError: it is no motion module, or not registered.
    """
    if not (isinstance(module_class, type) and issubclass(module_class, MotionModule)):
        raise ConfigError(f"{module_class!r} is no motion module; subclass MotionModule.")
    kind = vars(module_class).get("kind")
    if not kind:
        raise ConfigError(
            f"{module_class.__qualname__} is not registered; decorate it with @register_motion_module(kind)."
        )
    return kind
