"""LoRAs named in a prompt, as in `<lora:style:0.8>`: they act with that weight for one call."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace

from muybridge.errors import ConfigError
from muybridge.pipelines.lora import LoraHost


class LoraTagHost(LoraHost):
    """LoRAs of a pipeline that prompts can name, by adapter name or by file without its ending."""

    def _named_loras(self, tags: Mapping[str, float]) -> dict[str, float]:
        """Weights by adapter name for the LoRAs that a prompt names.

        Raises:
            ConfigError: one that is not loaded, a name that several have, or LoRAs that are fused or switched off.
        """
        if not tags:
            return {}
        self._require_unfused("give them weights in a prompt")
        if self._loras and not self._loras_enabled:
            raise ConfigError(f"The prompt names the LoRA {next(iter(tags))}, and LoRA is off; enable_lora() first.")
        found: dict[str, float] = {}
        for tag, weight in tags.items():
            own = [tag] if tag in self._loras else [key for key, lora in self._loras.items() if lora.path.stem == tag]
            if not own:
                raise ConfigError(
                    f"The prompt names the LoRA {tag}; loaded: {', '.join(self._loras) or 'none'}. "
                    f"Load it with --lora {tag}.safetensors or pipe.load_lora_weights(file), or take <lora:{tag}> out; "
                    "--plain-prompt reads it as words."
                )
            if len(own) > 1 or own[0] in found:
                raise ConfigError(
                    f"The prompt names the LoRA {tag}, which may be any of {', '.join(own)} or is named twice; name "
                    "each once, by its adapter name."
                )
            found[own[0]] = weight
        return found

    @contextlib.contextmanager
    def _weighing(self, weights: Mapping[str, float]) -> Iterator[None]:
        """Let LoRAs act with other weights in the block; those not named act as they do."""
        before = self._loras
        try:
            self._set_named(
                {name: replace(before[name], active=True, weight=weight) for name, weight in weights.items()}
            )
            yield
        finally:
            self._set_named({name: before[name] for name in weights if name in self._loras})

    def _set_named(self, loras: Mapping) -> None:
        if loras:
            self._loras = {**self._loras, **loras}
            self._weigh_loras()
