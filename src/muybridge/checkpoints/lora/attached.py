"""The LoRA layers that sit in one network: put in through peft, weighed, fused, taken out without a trace."""

from __future__ import annotations

import contextlib
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from diffusers.hooks.group_offloading import _maybe_remove_and_reapply_group_offloading
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from muybridge.checkpoints.lora.matching import LoraChange
from muybridge.errors import ConfigError

_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


@dataclass(frozen=True)
class _Place:
    """Where a LoRA layer sits, or would if it were not fused."""

    name: str
    parent: nn.Module
    layer: LoraLayer

    @property
    def base(self) -> nn.Linear | nn.Conv2d:
        base: nn.Module = self.layer.get_base_layer()
        if not isinstance(base, (nn.Linear, nn.Conv2d)):
            raise ConfigError(f"{self.name} is a {type(base).__name__}; only linear and convolution layers fit here.")
        return base

    @property
    def acts(self) -> bool:
        """Whether any LoRA here is active."""
        return not self.layer.disable_adapters and any(name in self.layer.lora_A for name in self.layer.active_adapters)

    def show(self, module: nn.Module) -> None:
        """Let the network see `module` here."""
        setattr(self.parent, self.name.rpartition(".")[2], module)

    @property
    def wrapped(self) -> nn.Module:
        """The LoRA layer as a module, which every one that peft makes is."""
        return cast("nn.Module", self.layer)


class AttachedLoras:
    """All LoRAs of one network. The network's own weights are never written to, fused or not."""

    def __init__(self, network: nn.Module) -> None:
        """For a network that has none yet."""
        self.network = network
        self._places: list[_Place] = []
        self._own_weights: dict[str, nn.Parameter] = {}

    @property
    def is_fused(self) -> bool:
        """Whether the network computes with changed weights in place of LoRA layers."""
        return bool(self._own_weights)

    @property
    def is_empty(self) -> bool:
        """Whether there is none."""
        return not self._places

    def attach(self, name: str, changes: Mapping[str, LoraChange]) -> None:
        """Put LoRA layers around the layers of `changes`, in their precision and on their device.

        Raises:
            ConfigError: the weights are not here but fetched when needed, as under sequential offload; or the network
                has LoRAs from elsewhere.
        """
        absent = [layer for layer in changes if cast("Tensor", self.network.get_submodule(layer).weight).is_meta]
        if absent:
            raise ConfigError(
                f"The weights of {absent[0]} are not loaded now; load LoRAs before enable_sequential_cpu_offload()."
            )
        if not self._places and any(isinstance(module, LoraLayer) for module in self.network.modules()):
            raise ConfigError("This network has LoRAs that are not this pipeline's; take them out there first.")
        for place in self._places:
            place.show(place.wrapped)
        trainable = [(parameter, parameter.requires_grad) for parameter in self.network.parameters()]
        # peft warns of a second adapter; it is meant.
        known = vars(self.network).pop("peft_config", {})
        try:
            inject(self.network, name, changes)
            known |= vars(self.network)["peft_config"]
        finally:
            self.network.__dict__["peft_config"] = known
            found = list(_places(self.network))
            # What is not found there any more left with the motion adapter that it sits in.
            self._places = [place for place in self._places if place not in found] + found
            for parameter, wanted in trainable:  # peft freezes the network
                if parameter.requires_grad != wanted:
                    parameter.requires_grad_(wanted)
        _maybe_remove_and_reapply_group_offloading(self.network)

    def weigh(self, weights: Mapping[str, float], enabled: bool = True) -> None:
        """Let the LoRAs named act, each with its weight; others rest. `enabled` False lets all of them rest.

        Where none acts the network has its own layer back, and gives its own numbers at its own speed.
        """
        for place in self._places:
            place.layer.enable_adapters(enabled)
            place.layer.set_adapter(list(weights), inference_mode=True)
            for name, weight in weights.items():
                place.layer.set_scale(name, weight)
        self._show_acting()

    def remove(self, names: Collection[str]) -> None:
        """Take LoRAs out; a layer that has no other is the very module that it was."""
        for place in self._places:
            own = [name for name in names if name in place.layer.lora_A]
            place.layer.set_adapter([n for n in place.layer.active_adapters if n not in own], inference_mode=True)
            for name in own:
                place.layer.delete_adapter(name)
        configs = vars(self.network).get("peft_config", {})
        for name in names:
            configs.pop(name, None)
        if not configs:
            vars(self.network).pop("peft_config", None)
        self._show_acting()
        self._places = [place for place in self._places if place.layer.lora_A]
        _maybe_remove_and_reapply_group_offloading(self.network)

    def train(self, name: str, dropout: float = 0.0) -> list[nn.Parameter]:
        """Make one LoRA's factors trainable; `weigh` freezes them again.

        Args:
            name: of the LoRA.
            dropout: share of its inputs that are left out while its layers are in training mode.
        """
        factors: list[nn.Parameter] = []
        for place in self._places:
            layer = place.layer
            for holder in (layer.lora_A, layer.lora_B, layer.lora_magnitude_vector):
                if name in holder:
                    factors.append(holder[name].get_parameter("weight"))
            if dropout and name in layer.lora_A:
                layer.lora_dropout[name] = nn.Dropout(dropout)
        for factor in factors:
            factor.requires_grad_(True)
        return factors

    def begin_training(self, mode: bool = True) -> None:
        """Switch the LoRA layers, of which nothing but dropout behaves otherwise in training mode."""
        for place in self._places:
            place.wrapped.training = mode
            place.layer.lora_dropout.train(mode)

    def stray(self, sites: Collection[str], adapter: nn.Module) -> list[str]:
        """LoRA layers in motion modules (at `sites`) that are not of `adapter`."""
        own = set(adapter.modules())
        inside = [place for place in self._places if place.name.startswith(tuple(f"{site}." for site in sites))]
        return [place.name for place in inside if place.parent not in own]

    def fuse(self) -> None:
        """Compute with changed weights, without LoRA layers: as fast as without a LoRA. The own weights are kept.

        The sum is made in float32 and rounded once.

        Raises:
            ConfigError: a layer whose weights are quantised or not here; nothing is changed then.
        """
        acting = [place for place in self._places if place.acts]
        for place in acting:
            weight = place.base.weight
            if weight.is_meta or weight.dtype not in _DTYPES or type(weight) is not nn.Parameter:
                raise ConfigError(
                    f"{place.name} cannot be fused: its weights are quantised or not loaded now. Leave LoRAs unfused, "
                    "or fuse them before quantisation and offload."
                )
        for place in acting:
            own = place.base.get_parameter("weight")
            self._own_weights[place.name] = own
            place.base.weight = nn.Parameter(_changed(own, place.layer), requires_grad=own.requires_grad)
            place.show(place.base)
        _maybe_remove_and_reapply_group_offloading(self.network)

    def unfuse(self) -> None:
        """Put the own weights and the LoRA layers back; if the network was moved or converted, so are they."""
        for place in self._places:
            fused = place.base.weight
            place.wrapped.to(fused.device, fused.dtype)
            own = self._own_weights.get(place.name, fused)
            if (own.device, own.dtype) != (fused.device, fused.dtype):
                own = nn.Parameter(own.detach().to(fused.device, fused.dtype), requires_grad=own.requires_grad)
            place.base.weight = own
        self._own_weights = {}
        self._show_acting()
        _maybe_remove_and_reapply_group_offloading(self.network)

    def bake(self) -> None:
        """Make what is fused the network's own, and forget the LoRAs."""
        self._own_weights, self._places = {}, []
        vars(self.network).pop("peft_config", None)

    @contextlib.contextmanager
    def hidden(self) -> Iterator[None]:
        """Show the network without LoRA layers; what is fused stays so."""
        if self.is_fused:
            yield
            return
        for place in self._places:
            place.show(place.base)
        try:
            yield
        finally:
            self._show_acting()

    def changes(self, name: str) -> dict[str, LoraChange]:
        """What a LoRA changes, by name of the layer, without its weight."""
        return {
            place.name: LoraChange(
                *_factors(place.layer, name), place.layer.lora_alpha[name], _magnitude(place.layer, name)
            )
            for place in self._places
            if name in place.layer.lora_A
        }

    def _show_acting(self) -> None:
        for place in self._places:
            place.show(place.wrapped if place.acts else place.base)


def inject(network: nn.Module, name: str, changes: Mapping[str, LoraChange]) -> None:
    """Put LoRA layers around the layers of `changes`, in their precision and on their device, which may be "meta"."""
    inject_adapter_in_model(_config(changes), network, name, low_cpu_mem_usage=True)
    for place in _places(network):
        if name in place.layer.lora_A:
            _fill(place, name, changes[place.name])


def _places(network: nn.Module) -> Iterator[_Place]:
    for name, module in network.named_modules():
        if isinstance(module, LoraLayer):
            yield _Place(name, network.get_submodule(name.rpartition(".")[0]), module)


def _config(changes: Mapping[str, LoraChange]) -> LoraConfig:
    """Peft's settings that hit exactly these layers; ranks and alphas that differ are one pattern for each value."""
    ranks = {name: change.rank for name, change in changes.items()}
    alphas = {name: change.alpha for name, change in changes.items()}
    rank, alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, alphas))
    return LoraConfig(
        r=int(rank),
        lora_alpha=alpha,  # pyright: ignore[reportArgumentType]  # fractions occur, and peft only divides it
        target_modules=_any_of(changes),
        rank_pattern=_patterns(ranks, rank),
        alpha_pattern=_patterns(alphas, alpha),
        inference_mode=True,
        use_dora=any(change.magnitude is not None for change in changes.values()),
    )


def _patterns(values: Mapping[str, float], usual: float) -> dict:
    names = defaultdict(list)
    for name, value in values.items():
        if value != usual:
            names[value].append(name)
    return {f"^{_any_of(some)}": value for value, some in names.items()}


def _any_of(names: Collection[str]) -> str:
    return f"(?:{'|'.join(re.escape(name) for name in names)})"


def _fill(place: _Place, name: str, change: LoraChange) -> None:
    weight = place.base.weight
    # Factors in 8 bits would be useless; what computes with such weights does so in bfloat16 or more.
    dtype = weight.dtype if weight.dtype in _DTYPES else torch.bfloat16
    for holder, factor in ((place.layer.lora_A, change.down), (place.layer.lora_B, change.up)):
        holder[name].weight = nn.Parameter(factor.to(weight.device, dtype, copy=True), requires_grad=False)
    if change.magnitude is not None:
        # Where peft expects it: beside factors of a convolution with the axes of its output.
        shape = (1, -1, *(1,) * (weight.ndim - 2)) if weight.ndim > 2 else (-1,)
        value = change.magnitude.to(weight.device, dtype, copy=True).reshape(shape)
        place.layer.lora_magnitude_vector[name].weight = nn.Parameter(value, requires_grad=False)
    place.wrapped.train(place.base.training)


def _factors(layer: LoraLayer, name: str) -> tuple[Tensor, Tensor]:
    down, up = (holder[name].get_parameter("weight") for holder in (layer.lora_A, layer.lora_B))
    return down.detach(), up.detach()


def _magnitude(layer: LoraLayer, name: str) -> Tensor | None:
    if name not in layer.lora_magnitude_vector:
        return None
    return layer.lora_magnitude_vector[name].get_parameter("weight").detach().flatten()


@torch.no_grad()
def _changed(weight: Tensor, layer: LoraLayer) -> Tensor:
    dtype = torch.promote_types(weight.dtype, torch.float32)
    total = weight.to(dtype, copy=True)
    for name in layer.active_adapters:
        if name in layer.lora_A:
            down, up = (factor.to(weight.device, dtype).flatten(1) for factor in _factors(layer, name))
            magnitude = _magnitude(layer, name)
            if magnitude is None:
                total.view(len(up), -1).addmm_(up, down, alpha=layer.scaling[name])
            else:
                own = weight.to(dtype).flatten(1)
                changed = own.addmm(up, down, alpha=layer.scaling[name])
                rows = (magnitude.to(changed) / changed.norm(dim=1)).unsqueeze(1)
                total += (rows * changed - own).view_as(total)
    return total.to(weight.dtype)
