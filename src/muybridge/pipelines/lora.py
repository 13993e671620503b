"""LoRAs of a pipeline: load, mix, switch, fuse, save. What pipelines inherit of it is all that users call."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from diffusers import DiffusionPipeline
from torch import nn

from muybridge.checkpoints.lora import (
    ALPHA_MODES,
    AlphaMode,
    AttachedLoras,
    Dialect,
    match_lora,
    read_lora,
    write_lora,
)
from muybridge.errors import ConfigError
from muybridge.motion import MotionAdapter, MotionHost
from muybridge.pipelines.family import Family
from muybridge.pipelines.lora_outlines import TEXT_ENCODERS


@dataclass(frozen=True)
class LoadedLora:
    """A LoRA of a pipeline.

    Attributes:
        path: the file it came from.
        weight: what its change is multiplied with.
        active: whether it is among those that act.
        alpha_mode: how its alphas were read.
    """

    path: Path
    weight: float
    active: bool
    alpha_mode: AlphaMode


class LoraHost(DiffusionPipeline):
    """LoRAs for the backbone and the text encoders of a pipeline, several at once, each with a weight.

    The model's own weights stay as they are whatever is loaded, mixed or fused; without its LoRAs the pipeline is bit
    for bit what it was.
    """

    family: ClassVar[Family]

    def __init__(self) -> None:
        """Without LoRAs."""
        super().__init__()
        self._loras: dict[str, LoadedLora] = {}
        self._attached_loras: dict[str, AttachedLoras] = {}
        self._loras_enabled = True

    def load_lora_weights(
        self,
        path: str | os.PathLike[str],
        adapter_name: str | None = None,
        weight: float = 1.0,
        lora_alpha_mode: AlphaMode = "kohya",
    ) -> str:
        """Load a LoRA beside those there are; it acts at once.

        Read are the dialects of kohya (Stable Diffusion's and EasyAnimate's), diffusers, peft and AnimateDiff (motion
        LoRAs, the domain adapter of version 3), from `.safetensors`, from pickles (no code in them is run), or from
        the folder that peft or diffusers wrote.

        Args:
            path: file or folder.
            adapter_name: what to call it; by default after the file.
            weight: what its change is multiplied with.
            lora_alpha_mode: "kohya" scales by alpha / rank where the file has alphas; "official" passes alphas over, as
                AnimateDiff's own program does.

        Returns:
            Its name.

        Raises:
            CheckpointError: a file that cannot be read, is no LoRA, holds NaN, is for another architecture, or has
                layers that this model does not have; nothing is loaded then.
            ConfigError: a name in use, a weight that is not a number, or LoRAs that are fused now.
        """
        self._require_unfused("load another")
        _require_weights([weight])
        self._check_alpha_mode(lora_alpha_mode)
        name = self._new_name(path, adapter_name)
        networks = self._lora_networks()
        changes = match_lora(Path(path), read_lora(path), networks, lora_alpha_mode)
        try:
            for part, own in changes.items():
                attached = self._attached_loras.setdefault(part, AttachedLoras(networks[part]))
                attached.attach(name, own)
        except BaseException:
            self._remove_loras([name])
            raise
        self._loras[name] = LoadedLora(Path(path), weight, active=True, alpha_mode=lora_alpha_mode)
        self._loras_enabled = True
        self._weigh_loras()
        return name

    def set_adapters(
        self, adapter_names: str | Sequence[str], adapter_weights: float | Sequence[float] | None = None
    ) -> None:
        """Let exactly these LoRAs act, the rest rest; LoRA is switched on if it was off.

        Args:
            adapter_names: one or more of those loaded.
            adapter_weights: one for all, or one for each; by default each keeps the weight it has.

        Raises:
            ConfigError: an unknown name, a name given twice, another number of weights, or LoRAs that are fused now.
        """
        self._require_unfused("change their weights")
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        self._require_known(names)
        if adapter_weights is None:
            weights = [self._loras[name].weight for name in names]
        elif isinstance(adapter_weights, (int, float)):
            weights = [float(adapter_weights)] * len(names)
        else:
            weights = list(adapter_weights)
        if len(set(names)) != len(names) or len(weights) != len(names):
            raise ConfigError(f"Give each LoRA once, with one weight; given {names} and {weights}.")
        _require_weights(weights)
        chosen = dict(zip(names, weights, strict=True))
        # In the order given, which is the order of their sum.
        order = [*names, *(name for name in self._loras if name not in chosen)]
        self._loras = {
            name: replace(self._loras[name], active=name in chosen, weight=chosen.get(name, self._loras[name].weight))
            for name in order
        }
        self._loras_enabled = True
        self._weigh_loras()

    def get_active_adapters(self) -> list[str]:
        """The LoRAs that act now, by name; none while LoRA is switched off."""
        return [name for name, lora in self._loras.items() if lora.active] if self._loras_enabled else []

    def get_list_adapters(self) -> dict[str, list[str]]:
        """The LoRAs loaded, by the part that they change: "backbone", "text_encoder" and so on."""
        found = {
            part: [name for name in self._loras if attached.changes(name)]
            for part, attached in self._attached_loras.items()
        }
        return {part: names for part, names in found.items() if names}

    def disable_lora(self) -> None:
        """Switch all LoRAs off until `enable_lora`; they stay loaded.

        Raises:
            ConfigError: none is loaded, or they are fused now.
        """
        self._switch_loras(False)

    def enable_lora(self) -> None:
        """Switch LoRAs on again after `disable_lora`.

        Raises:
            ConfigError: none is loaded, or they are fused now.
        """
        self._switch_loras(True)

    def fuse_lora(self) -> None:
        """Compute with changed weights in place of LoRA layers: the same video, as fast as without a LoRA.

        The model's own weights are kept beside the changed ones, so `unfuse_lora` gives them back bit for bit.

        Raises:
            ConfigError: no LoRA acts, they are fused already, or a layer is quantised.
        """
        self._require_unfused("fuse them again")
        if not self.get_active_adapters():
            raise ConfigError("No LoRA acts that could be fused; load one, or enable_lora().")
        try:
            for attached in self._attached_loras.values():
                attached.fuse()
        except BaseException:
            self._unfuse_loras()
            raise

    def unfuse_lora(self) -> None:
        """Undo `fuse_lora`; the LoRAs act as before.

        Raises:
            ConfigError: nothing is fused.
        """
        if not self._loras_fused:
            raise ConfigError("No LoRA is fused.")
        self._unfuse_loras()

    def bake_lora(self) -> None:
        """Make what is fused the model's own for good, and forget the LoRAs; then `save_pretrained` writes it.

        Raises:
            ConfigError: nothing is fused.
        """
        if not self._loras_fused:
            raise ConfigError("Call fuse_lora() first; what is fused can be made the model's own.")
        for attached in self._attached_loras.values():
            attached.bake()
        self._loras, self._attached_loras = {}, {}
        self.model_name = None  # it is another model now

    def unload_lora_weights(self, adapter_names: str | Sequence[str] | None = None) -> None:
        """Take LoRAs out, all or those named; what is fused is unfused. Without any, the model is what it was.

        Raises:
            ConfigError: an unknown name.
        """
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names or self._loras)
        self._require_known(names)
        self._unfuse_loras()
        self._remove_loras(names)
        self._loras = {name: lora for name, lora in self._loras.items() if name not in names}
        self._weigh_loras()

    def save_lora_weights(
        self, path: str | os.PathLike[str], adapter_name: str | None = None, dialect: Dialect = "diffusers"
    ) -> Path:
        """Write one LoRA as a `.safetensors` file, in the precision that it has here; its weight is not part of it.

        Args:
            path: of the file, which is replaced if there is one.
            adapter_name: which; may be left out where only one is loaded.
            dialect: "diffusers", which peft reads too, "kohya", which kohya's scripts and EasyAnimate read, or
                "original", as AnimateDiff publishes LoRAs of attentions.

        Raises:
            ConfigError: no such LoRA, none named of several, another ending than `.safetensors`, an unknown dialect.
            OutputError: the file cannot be written.
        """
        if adapter_name is None and len(self._loras) != 1:
            raise ConfigError(f"Name the LoRA to save; loaded: {', '.join(self._loras) or 'none'}.")
        name = next(iter(self._loras)) if adapter_name is None else adapter_name
        self._require_known([name])
        found = {part: attached.changes(name) for part, attached in self._attached_loras.items()}
        changes = {part: own for part, own in found.items() if own}
        return write_lora(path, changes, self.family.lora.root, dialect)

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        safe_serialization: bool = True,
        variant: str | None = None,
        max_shard_size: int | str | None = None,
        push_to_hub: bool = False,
        use_flashpack: bool = False,
        **kwargs: Any,
    ) -> None:
        """Write the pipeline's folder, without its LoRAs.

        Raises:
            ConfigError: LoRAs are fused, so that the folder would hold other weights than the model's own.
        """
        if self._loras_fused:
            raise ConfigError(
                "LoRAs are fused into the weights now. To save the model as it was, unfuse_lora() first; to save it "
                "changed for good, bake_lora() first."
            )
        with self._without_loras():
            super().save_pretrained(
                save_directory, safe_serialization, variant, max_shard_size, push_to_hub, use_flashpack, **kwargs
            )

    @property
    def lora_settings(self) -> dict[str, float] | None:
        """The files of the LoRAs that act and their weights, for the record of a video; None without any."""
        active = self.get_active_adapters()
        return {str(self._loras[name].path): self._loras[name].weight for name in active} or None

    @property
    def has_unrecorded_lora(self) -> bool:
        """Whether `lora_settings` does not tell all: alphas were passed over, or a file acts twice."""
        active = [self._loras[name] for name in self.get_active_adapters()]
        official = any(lora.alpha_mode != "kohya" for lora in active)
        return official or len({lora.path for lora in active}) < len(active)

    def check_motion_loras(self, adapter: MotionAdapter) -> None:
        """Whether `adapter` may take the place of the present one: not while that one has LoRAs in it.

        Raises:
            ConfigError: it has; they would act no more, and go away with it.
        """
        attached = self._attached_loras.get("backbone")
        if attached is None or not isinstance(attached.network, MotionHost):
            return
        if stray := attached.stray(attached.network.motion_sites(), adapter):
            raise ConfigError(
                f"LoRAs sit in {len(stray)} layers of the present motion adapter, first {stray[0]}; "
                "unload_lora_weights() before it is replaced."
            )

    @contextlib.contextmanager
    def _without_loras(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for attached in self._attached_loras.values():
                stack.enter_context(attached.hidden())
            yield

    @property
    def _loras_fused(self) -> bool:
        return any(attached.is_fused for attached in self._attached_loras.values())

    def _lora_networks(self) -> dict[str, nn.Module]:
        texts = {name: getattr(self, name, None) for name in TEXT_ENCODERS}
        found = {"backbone": getattr(self, "backbone", None), **texts}
        networks = {part: network for part, network in found.items() if isinstance(network, nn.Module)}
        for part, attached in self._attached_loras.items():
            if networks.get(part) is not attached.network:
                raise ConfigError(f"The {part} was replaced while LoRAs were loaded; unload_lora_weights() first.")
        return networks

    def _check_alpha_mode(self, mode: str) -> None:
        if mode not in ALPHA_MODES:
            raise ConfigError(f"lora_alpha_mode must be one of {ALPHA_MODES}; given {mode!r}.")
        if (refusal := self.family.lora.refusals.get(mode)) is not None:
            raise ConfigError(refusal)

    def _new_name(self, path: str | os.PathLike[str], given: str | None) -> str:
        if given is None:
            stem = re.sub(r"\W+", "_", Path(path).stem).strip("_") or "lora"
            names = (stem if count == 0 else f"{stem}_{count}" for count in range(len(self._loras) + 2))
            return next(name for name in names if name not in self._loras and not hasattr(nn.ModuleDict, name))
        if given in self._loras:
            raise ConfigError(f"There is a LoRA called {given!r} already; choose another name.")
        if not given or "." in given or hasattr(nn.ModuleDict, given):
            raise ConfigError(f"A LoRA cannot be called {given!r}; use letters, digits and '_'.")
        return given

    def _weigh_loras(self) -> None:
        weights = {name: lora.weight for name, lora in self._loras.items() if lora.active}
        for attached in self._attached_loras.values():
            attached.weigh(weights, self._loras_enabled)

    def _switch_loras(self, enabled: bool) -> None:
        self._require_unfused("switch them")
        if not self._loras:
            raise ConfigError("No LoRA is loaded.")
        self._loras_enabled = enabled
        self._weigh_loras()

    def _unfuse_loras(self) -> None:
        for attached in self._attached_loras.values():
            if attached.is_fused:
                attached.unfuse()

    def _remove_loras(self, names: Sequence[str]) -> None:
        for attached in self._attached_loras.values():
            attached.remove(names)
        self._attached_loras = {part: each for part, each in self._attached_loras.items() if not each.is_empty}

    def _require_unfused(self, wish: str) -> None:
        if self._loras_fused:
            raise ConfigError(f"LoRAs are fused into the weights now; unfuse_lora() first to {wish}.")

    def _require_known(self, names: Sequence[str]) -> None:
        if unknown := [name for name in names if name not in self._loras]:
            raise ConfigError(f"There is no LoRA {', '.join(unknown)}; loaded: {', '.join(self._loras) or 'none'}.")


def _require_weights(weights: Sequence[float]) -> None:
    for weight in weights:
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not math.isfinite(weight):
            raise ConfigError(f"The weight of a LoRA must be a finite number; given {weight!r}.")
