"""What several processes share out between them, as settings say it."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

from accelerate import Accelerator
from torch import nn

from muybridge.errors import ConfigError
from muybridge.training.config import TrainerConfig
from muybridge.training.optimizers import OptimizerName
from muybridge.training.placement import Placement, ShardedPlacement
from muybridge.training.zero import ZeroPlacement

SHARDABLE_OPTIMIZERS: Mapping[str, tuple[OptimizerName, ...]] = {"fsdp2": ("muon", "adamw"), "deepspeed": ("adamw",)}


def place(method: nn.Module, config: TrainerConfig, accelerator: Accelerator) -> Placement:
    """Put the weights of a method where the settings say. In one process there is nothing to share out.

    Raises:
        ConfigError: a method that cannot be shared out so.
    """
    if config.sharding == "none" or accelerator.num_processes == 1:
        return Placement(method, config, accelerator)
    check_parameters(method, config)
    if config.sharding == "fsdp2":
        return ShardedPlacement(method, config, accelerator)
    return ZeroPlacement(method, config, accelerator)


def check_parameters(method: nn.Module, config: TrainerConfig) -> None:
    """Whether the parameters of a method can be shared out.

    Raises:
        ConfigError: one is a single number, which neither FSDP2 nor DeepSpeed takes.
    """
    if single := [name for name, parameter in method.named_parameters() if parameter.ndim == 0]:
        raise ConfigError(
            f"sharding {config.sharding} takes no parameters that are single numbers, as {single[0]} is; leave "
            "sharding out of this stage."
        )


def check_sharding(config: TrainerConfig) -> None:
    """Whether the other settings go with how the weights are shared out.

    Raises:
        ConfigError: they do not.
    """
    if config.sharding == "none":
        return
    if config.sharding not in SHARDABLE_OPTIMIZERS:
        raise ConfigError(f"sharding is none, {' or '.join(SHARDABLE_OPTIMIZERS)}; given {config.sharding}.")
    if config.sharding == "deepspeed" and importlib.util.find_spec("deepspeed") is None:
        raise ConfigError(
            "sharding deepspeed needs DeepSpeed: pip install 'muybridge[deepspeed]'. Without it there is fsdp2, which "
            "shares out the weights too."
        )
    possible = SHARDABLE_OPTIMIZERS[config.sharding]
    if config.optimizer.name not in possible:
        raise ConfigError(
            f"sharding {config.sharding} goes with the optimizer {' or '.join(possible)}; given "
            f"{config.optimizer.name}."
        )
    if config.sharding == "deepspeed" and "gradients" in config.debug:
        raise ConfigError(
            "debug: gradients does not see gradients that DeepSpeed shares out; say sharding: fsdp2, or leave it out."
        )
    if config.mixed_precision == "fp16":
        raise ConfigError(
            f"sharding {config.sharding} goes with mixed_precision bf16 or no; fp16 scales the loss by what one "
            "process alone sees."
        )
