"""Training a LoRA: any diffusion method, with low-rank changes to some layers as all that learns."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muybridge.checkpoints.lora import AttachedLoras, Dialect, LoraChange, adaptable_layers, write_lora
from muybridge.errors import ConfigError
from muybridge.pipelines.family import LORA_LAYERS, LoraTargets
from muybridge.training.data import Batch
from muybridge.training.methods.denoise import DenoisingMethod, ImageDiffusionMethod
from muybridge.training.objective.diffusion import DiffusionObjective, Drawn
from muybridge.types import SettingsDict

DiffusionMethod = ImageDiffusionMethod | DenoisingMethod

TEXT_LAYERS: Mapping[str, str] = {
    "attention": r"(self_attn\.(q_proj|k_proj|v_proj|out_proj)|SelfAttention\.[qkvo])$",
    "linear": r"(self_attn|mlp|SelfAttention|DenseReluDense)\.",
}
"""Which layers of a text encoder learn: of CLIP and of T5, those of its attentions, or of its blocks as a whole."""

_NAME = "trained"


@dataclass(frozen=True)
class LoraShape:
    """How a LoRA is made.

    Attributes:
        rank: of every change.
        alpha: the change is scaled by alpha / rank; None for half the rank, as in EasyAnimate.
        dropout: share of the inputs of every change that are left out while it is trained.
        dora: whether the length of every row of the changed weights learns too (Liu et al., 2024).
        seed: of the first factors; the second begin at zero.
    """

    rank: int = 16
    alpha: float | None = None
    dropout: float = 0.0
    dora: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ConfigError: a rank below 1, an alpha that is not a finite number above 0, or a dropout of 1 or more.
        """
        if self.rank < 1 or not (math.isfinite(self.scaled_by) and self.scaled_by > 0):
            raise ConfigError(
                f"A LoRA needs a rank of at least 1 and an alpha above 0; given {self.rank} and {self.scaled_by}."
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must be at least 0 and below 1; given {self.dropout}.")

    @property
    def scaled_by(self) -> float:
        """Alpha."""
        return self.rank / 2 if self.alpha is None else self.alpha


@dataclass(frozen=True)
class LoraParts:
    """What of a model a LoRA changes.

    Attributes:
        backbone: which of its layers: a name of the family's `layers`, or a regular expression that the name of a
            layer must contain; None for none.
        text: likewise for each text encoder by name, with the names of `TEXT_LAYERS`.
        rates: for each part that is not trained at the run's rate, its share of it.
    """

    backbone: str | None = "spatial"
    text: Mapping[str, str] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)


class LoraMethod(nn.Module):
    """A diffusion method of which nothing but a LoRA of its networks is trained.

    Batches and losses are the method's. The networks' own weights stay bit for bit what they are.
    """

    def __init__(
        self,
        method: DiffusionMethod,
        parts: LoraParts | str = "spatial",
        shape: LoraShape | None = None,
        targets: LoraTargets | None = None,
    ) -> None:
        """Freeze `method` and put a LoRA into its networks, where it changes nothing until trained.

        Args:
            method: what is trained; everything of it is frozen.
            parts: what learns; layers of the denoising network alone may be given as they are.
            shape: of the LoRA; None for the defaults.
            targets: how LoRAs name the network and its layers; as in a U-Net if not given.

        Raises:
            ConfigError: a text encoder that there is not, or layers that match nothing or are no regular expression.
        """
        super().__init__()
        self.parts = LoraParts(parts) if isinstance(parts, str) else parts
        self.shape = shape or LoraShape()
        self.method = method.requires_grad_(False)
        self._targets = targets or LoraTargets()
        self._attached: dict[str, AttachedLoras] = {}
        generator = torch.Generator().manual_seed(self.shape.seed)
        for part, pattern in self._patterns().items():
            network = self._network(part)
            self._attached[part] = attached = AttachedLoras(network)
            attached.attach(_NAME, _fresh(network, pattern, self.shape, generator))
            attached.weigh({_NAME: 1.0})
            attached.train(_NAME, self.shape.dropout)

    def _patterns(self) -> dict[str, re.Pattern[str]]:
        backbone, text = self.parts.backbone, self.parts.text
        found = {} if backbone is None else {"backbone": layer_pattern(backbone, self._targets.layers)}
        found |= {part: layer_pattern(layers, TEXT_LAYERS) for part, layers in text.items()}
        if not found:
            raise ConfigError("A LoRA must change something; name a part of the model.")
        return found

    def _network(self, part: str) -> nn.Module:
        network = getattr(self.method, part, None)
        if not isinstance(network, nn.Module):
            raise ConfigError(f"This model has no {part} that a LoRA could change; leave it out.")
        return network

    @property
    def rate_factors(self) -> dict[str, float]:
        """Shares of the run's learning rate, by the beginning of the parameters' names."""
        return {f"method.{part}.": rate for part, rate in self.parts.rates.items()}

    def train(self, mode: bool = True) -> LoraMethod:
        """Everything stays in evaluation mode but the LoRA itself."""
        super().train(False)
        for attached in self._attached.values():
            attached.begin_training(mode)
        self.training = mode
        return self

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """The method's losses.

        Of samples with `prior [b]` true the target is what the networks say without the LoRA, and `prior` among the
        losses says how far they are from it.
        """
        if not (self.training and self.shape.dropout):
            return self._loss(batch, generator)
        # What is left out must follow from the step, as everything does, for a run that goes on to be the same.
        seed = int(torch.randint(2**62, (1,), generator=generator))
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self._loss(batch, generator)

    def _loss(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        prior = batch.get("prior")
        if prior is None or not prior.any():
            return self.method(batch, generator)
        latents, told = self.encode(batch)
        drawn = self.objective.draw(latents, generator)
        before = self._said_before(batch, drawn, prior)
        drawn = replace(drawn, target=drawn.target.index_put((prior,), before.to(drawn.target)))
        output = self.predict(drawn, told)
        said = output.detach()[prior, : before.shape[1]].float()
        losses = self.objective.loss(drawn, output, batch.get("loss_weights"))
        return {**losses, "prior": F.mse_loss(said, before.float())}

    def _said_before(self, batch: Batch, drawn: Drawn, prior: Tensor) -> Tensor:
        """What the networks say without the LoRA about the samples that are marked."""
        marked = {
            name: value if name == "frame_positions" else value[prior]
            for name, value in batch.items()
            if isinstance(value, Tensor)  # not the names of files
        }
        with self.without(), torch.no_grad():
            _, told = self.encode({**marked, "latents": drawn.clean[prior]})
            shown = Drawn(drawn.clean[prior], drawn.timesteps[prior], drawn.noisy[prior], drawn.target[prior])
            return self.predict(shown, told)[:, : drawn.target.shape[1]]

    @property
    def objective(self) -> DiffusionObjective:
        """The method's."""
        return self.method.objective

    def encode(self, batch: Batch) -> tuple[Tensor, SettingsDict]:
        """As the method does."""
        return self.method.encode(batch)

    def predict(self, drawn: Drawn, told: SettingsDict) -> Tensor:
        """What the network says, with the LoRA."""
        return self.method.predict(drawn, told)

    @contextmanager
    def without(self) -> Iterator[None]:
        """While the block runs, the networks are what they are without the LoRA."""
        with ExitStack() as stack:
            for attached in self._attached.values():
                stack.enter_context(attached.hidden())
            yield

    def changes(self) -> dict[str, dict[str, LoraChange]]:
        """What the LoRA changes as it is now, by part and name of the layer."""
        return {part: attached.changes(_NAME) for part, attached in self._attached.items()}

    def save(
        self,
        path: str | os.PathLike[str],
        dialect: Dialect = "diffusers",
        metadata: Mapping[str, str] | None = None,
    ) -> Path:
        """Write the LoRA as it is now, as a `.safetensors` file that `load_lora_weights` of a pipeline reads.

        Raises:
            ConfigError: another ending of the file's name, an unknown dialect, or one that cannot express the LoRA.
            OutputError: the file cannot be written.
        """
        return write_lora(path, self.changes(), self._targets.root, dialect, metadata)

    def remove(self) -> None:
        """Take the LoRA out of the networks, which are then what they were."""
        for attached in self._attached.values():
            attached.remove([_NAME])


def layer_pattern(layers: str, known: Mapping[str, str] = LORA_LAYERS) -> re.Pattern[str]:
    """What the name of a layer must contain to learn: a name of `known`, or a regular expression as it is.

    Raises:
        ConfigError: no regular expression.
    """
    try:
        return re.compile(known.get(layers, layers))
    except re.error as error:
        raise ConfigError(
            f"{layers!r} is no regular expression ({error}); use one, or one of {', '.join(known)}."
        ) from error


def _fresh(
    network: nn.Module, pattern: re.Pattern[str], shape: LoraShape, generator: torch.Generator
) -> dict[str, LoraChange]:
    changes: dict[str, LoraChange] = {}
    for name, layer in adaptable_layers(network).items():
        size = layer.weight.shape
        if not pattern.search(name) or math.prod(size[2:]) != 1:
            continue
        down = torch.empty(shape.rank, *size[1:])
        nn.init.kaiming_uniform_(down, a=math.sqrt(5), generator=generator)
        up = torch.zeros(size[0], shape.rank, *size[2:])
        rows = layer.weight.detach().float().flatten(1).norm(dim=1) if shape.dora else None
        changes[name] = LoraChange(down, up, shape.scaled_by, rows)
    if not changes:
        raise ConfigError(
            f"No layer of this {type(network).__name__} matches {pattern.pattern!r}; use one of "
            f"{', '.join(LORA_LAYERS)}, or a regular expression for names of its linear layers."
        )
    return changes
