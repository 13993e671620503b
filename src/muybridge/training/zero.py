"""Gradients and the optimizer's state shared out between processes by DeepSpeed: ZeRO, stage 2.

Weights stay whole in every process. The state of a run is that of torch's AdamW, whole, so that it is read and written
by any number of processes, with DeepSpeed or without.

Source: Rajbhandari et al., "ZeRO" (2020), section 5.
"""

from __future__ import annotations

import importlib
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from muybridge.errors import ConfigError
from muybridge.training.config import TrainerConfig
from muybridge.training.optimizers import TrainingOptimizer
from muybridge.training.placement import Placement
from muybridge.types import SettingsDict

_NEVER = 10**9
_LARGEST_BUCKET = 500_000_000
_STEP, _SLOTS = "step", ("exp_avg", "exp_avg_sq")
"""What AdamW keeps for a parameter."""


class ZeroPlacement(Placement):
    """A method whole in every process, of whose gradients and optimizer's state each has a part."""

    saves_together = True

    def __init__(self, method: nn.Module, config: TrainerConfig, accelerator: Accelerator) -> None:
        """Move the method to its device.

        Raises:
            ConfigError: DeepSpeed cannot be imported.
        """
        self._library = _load()
        self._config = config
        self._engine: Any = None
        super().__init__(method, config, accelerator)

    def prepare(self, optimizer: TrainingOptimizer) -> TrainingOptimizer:
        """Give weights and the optimizer's state, as they are now, to DeepSpeed."""
        inner = optimizer.optimizers[0]
        groups = [list(group["params"]) for group in inner.param_groups]
        begun = {
            number: {name: value.cpu() for name, value in inner.state[parameter].items()}
            for number, parameter in enumerate(optimizer.parameters)
            if parameter in inner.state
        }
        inner.state.clear()
        bucket = min(_LARGEST_BUCKET, sum(parameter.numel() for group in groups for parameter in group))
        settings = {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": self._config.accumulate,
            "gradient_clipping": self._config.max_gradient_norm,
            "zero_optimization": {"stage": 2, "reduce_bucket_size": bucket},
            "steps_per_print": _NEVER,
        }
        with _quiet():
            self._engine = self._library.initialize(
                model=self.method, optimizer=inner, config=settings, dist_init_required=False
            )[0]
        gather = self._library.utils.safe_get_full_optimizer_state
        shared_out = ZeroOptimizer(optimizer, groups, self._engine.step, gather, self._accelerator.is_main_process)
        shared_out.load_state_dict([{"state": begun}])
        return shared_out

    def backward(self, loss: Tensor, is_last: bool) -> None:
        """Add the gradients to this process' part."""
        with _quiet():
            self._engine.backward(loss, scale_wrt_gas=False)
            if not is_last:
                self._engine.step()  # which counts the batches, and changes nothing before the last

    def gradient_of(self, parameter: nn.Parameter) -> Tensor | None:
        """The average over all processes, which must all call this."""
        return self._library.utils.safe_get_full_grad(parameter)

    def update(self, optimizer: TrainingOptimizer, scaler: torch.amp.GradScaler, max_norm: float) -> float:
        """Clip, change the weights where the norm is finite, and drop the gradients."""
        with _quiet():
            optimizer.step()
        norm = float(self._engine.get_global_grad_norm())
        return norm if norm >= 0 else math.inf  # below 0 is its word for one that is not finite


class ZeroOptimizer(TrainingOptimizer):
    """torch's AdamW on the parts of this process.

    Its state is whole outside of it; all processes must ask for it.
    """

    def __init__(
        self,
        optimizer: TrainingOptimizer,
        parameters: Sequence[Sequence[nn.Parameter]],
        step: Callable[[], None],
        gather: Callable[[nn.Parameter, str], Tensor],
        keeps: bool,
    ) -> None:
        """Go on with the rates of `optimizer`.

        Args:
            optimizer: its parameters have been shared out.
            parameters: of its groups before that.
            step: of the engine.
            gather: what the optimizer keeps by a name for a parameter, from all processes.
            keeps: whether this process wants what is gathered.
        """
        self.optimizers = optimizer.optimizers
        self.groups, self.peak_rates = optimizer.groups, optimizer.peak_rates
        self._of_groups = parameters
        self._step, self._gather, self._keeps = step, gather, keeps

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What is trained, whole."""
        return [parameter for group in self._of_groups for parameter in group]

    def step(self) -> None:
        """Clip, update the parts of all processes, gather the weights, and drop the gradients.

        Where the norm of the gradients is not finite nothing changes.
        """
        self._step()

    def state_dict(self) -> list[SettingsDict]:
        """As torch's AdamW would give it, on the CPU, in the process that keeps it."""
        state: dict[int, SettingsDict] = {}
        groups = []
        for group, parameters in zip(self.groups, self._of_groups, strict=True):
            numbers = range(len(state), len(state) + len(parameters))
            step = self.optimizers[0].state[group["params"][0]][_STEP]
            for number, parameter in zip(numbers, parameters, strict=True):
                state[number] = {_STEP: step.clone(), **self._whole(parameter)}
            settings = {name: value for name, value in group.items() if name != "params"}
            groups.append({**settings, "params": list(numbers)})
        return [{"state": state, "param_groups": groups}]

    def load_state_dict(self, states: Sequence[SettingsDict]) -> None:
        """Go on from a state of torch's AdamW, of which this process takes its parts.

        A parameter of which nothing was kept begins anew, as DeepSpeed wants something of every part.
        """
        number = 0
        for group, parameters in zip(self.groups, self._of_groups, strict=True):
            own = [states[0]["state"].get(number + place, {}) for place in range(len(parameters))]
            number += len(parameters)
            part = group["params"][0]
            steps = [state[_STEP] for state in own if _STEP in state]
            kept = {name: torch.zeros_like(part) for name in _SLOTS}
            for parameter, state in zip(parameters, own, strict=True):
                self._put(parameter, state, kept)
            step = steps[0].clone() if steps else torch.zeros((), dtype=torch.float32)
            self.optimizers[0].state[part] = {_STEP: step, **kept}

    def _whole(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        found = {}
        for name in _SLOTS:
            value = self._gather(parameter, name)
            if self._keeps:
                found[name] = value.cpu()
        return found

    def _put(self, parameter: nn.Parameter, state: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> None:
        mapping: Any = getattr(parameter, "_hp_mapping", None)  # None where the part of this process has none of it
        if mapping is None:
            return
        here, there = mapping.hp_fragment_address, mapping.lp_fragment_address
        for name in _SLOTS:
            if name in state:
                piece = state[name].reshape(-1).narrow(0, there.start, there.numel)
                kept[name].narrow(0, here.start, here.numel).copy_(piece)


def _load() -> Any:
    try:
        library: Any = importlib.import_module("deepspeed")
    except ImportError as error:
        raise ConfigError(
            f"DeepSpeed is installed and cannot be imported ({error}); mend it, or say sharding: fsdp2."
        ) from error
    library.utils.logger.setLevel(logging.WARNING)
    return library


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.distributed\..*` is deprecated", FutureWarning)  # in its calls
        yield
