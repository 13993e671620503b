"""Gradients and the optimizer's state shared out between processes by DeepSpeed: ZeRO, stage 2.

Weights stay whole in every process. The state of a run is that of torch's AdamW, whole, so that it is read and written
by any number of processes, with DeepSpeed or without.

Source: Rajbhandari et al., "ZeRO" (2020), section 5.
"""

from __future__ import annotations

import importlib
import logging
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from muybridge.training.config import TrainerConfig
from muybridge.training.optimizers import TrainingOptimizer
from muybridge.training.placement import Placement
from muybridge.types import SettingsDict

_NEVER = 10**9


class ZeroPlacement(Placement):
    """A method whole in every process, of whose gradients and optimizer's state each has a part."""

    saves_together = True

    def __init__(self, method: nn.Module, config: TrainerConfig, accelerator: Accelerator) -> None:
        """Move the method to its device."""
        if accelerator.device.type == "cpu":
            os.environ.setdefault("DS_ACCELERATOR", "cpu")  # it would look for others, and wonder
        warnings.filterwarnings("ignore", r"`torch\.distributed\..*` is deprecated", FutureWarning)  # in its calls
        self._library: Any = importlib.import_module("deepspeed")
        self._library.utils.logger.setLevel(logging.WARNING)
        self._config = config
        self._engine: Any = None
        super().__init__(method, config, accelerator)

    def prepare(self, optimizer: TrainingOptimizer) -> TrainingOptimizer:
        """Give weights and the optimizer's state, as they are now, to DeepSpeed."""
        states = optimizer.state_dict()
        inner = optimizer.optimizers[0]
        groups = [list(group["params"]) for group in inner.param_groups]
        inner.state.clear()
        settings = {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": self._config.accumulate,
            "gradient_clipping": self._config.max_gradient_norm,
            "zero_optimization": {"stage": 2},
            "steps_per_print": _NEVER,
        }
        self._engine = self._library.initialize(
            model=self.method, optimizer=inner, config=settings, dist_init_required=False
        )[0]
        shared_out = ZeroOptimizer(optimizer, groups, self._library.utils.safe_get_full_optimizer_state)
        shared_out.load_state_dict(states)
        return shared_out

    def backward(self, loss: Tensor, is_last: bool) -> None:
        """Add the gradients to this process' part."""
        self._engine.backward(loss, scale_wrt_gas=False)
        if not is_last:
            self._engine.step()  # which counts the batches, and changes nothing before the last

    def gradient_of(self, parameter: nn.Parameter) -> Tensor | None:
        """The average over all processes, which must all call this."""
        return self._library.utils.safe_get_full_grad(parameter)

    def update(self, optimizer: TrainingOptimizer, scaler: torch.amp.GradScaler, max_norm: float) -> float:
        """Clip, change the weights where the norm is finite, and drop the gradients."""
        self._engine.step()
        return float(self._engine.get_global_grad_norm())


class ZeroOptimizer(TrainingOptimizer):
    """torch's AdamW on the parts of this process.

    Its state is whole outside of it; all processes must ask for it.
    """

    def __init__(
        self,
        optimizer: TrainingOptimizer,
        parameters: Sequence[Sequence[nn.Parameter]],
        whole_state: Callable[[nn.Parameter, str], Tensor],
    ) -> None:
        """Go on with the rates of `optimizer`.

        Args:
            optimizer: its parameters have been shared out.
            parameters: of its groups before that.
            whole_state: gathers what the optimizer keeps by a name for a parameter.
        """
        self.optimizers = optimizer.optimizers
        self.groups, self.peak_rates = optimizer.groups, optimizer.peak_rates
        self._of_groups = parameters
        self._whole_state = whole_state

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What is trained, whole."""
        return [parameter for group in self._of_groups for parameter in group]

    def step(self) -> None:
        """Refused: the engine steps, see `ZeroPlacement.update`."""
        raise NotImplementedError("DeepSpeed steps by itself.")

    def state_dict(self) -> list[SettingsDict]:
        """As torch's AdamW would give it; on the CPU."""
        state: dict[int, SettingsDict] = {}
        groups = []
        for group, parameters in zip(self.groups, self._of_groups, strict=True):
            numbers = range(len(state), len(state) + len(parameters))
            slots = self._slots(group)
            for number, parameter in zip(numbers, parameters, strict=True):
                state[number] = {name: self._whole(parameter, name, value) for name, value in slots.items()}
            settings = {name: value for name, value in group.items() if name != "params"}
            groups.append({**settings, "params": list(numbers)})
        return [{"state": state if any(state.values()) else {}, "param_groups": groups}]

    def load_state_dict(self, states: Sequence[SettingsDict]) -> None:
        """Take over the parts of this process from a state as torch's AdamW gives it."""
        state: Mapping[int, SettingsDict] = states[0]["state"]
        numbered = iter(range(len(self.parameters)))
        for group, parameters in zip(self.groups, self._of_groups, strict=True):
            own = [state.get(next(numbered), {}) for _ in parameters]
            if any(own):
                self._take(group["params"][0], parameters, own)

    def _slots(self, group: SettingsDict) -> SettingsDict:
        return self.optimizers[0].state.get(group["params"][0], {})

    def _whole(self, parameter: nn.Parameter, name: str, of_part: Tensor) -> Tensor:
        if of_part.ndim == 0:  # the number of steps
            return of_part.clone()
        return self._whole_state(parameter, name).cpu()

    def _take(self, part: nn.Parameter, parameters: Sequence[nn.Parameter], states: Sequence[SettingsDict]) -> None:
        slots = {
            name: value.clone() if value.ndim == 0 else torch.zeros_like(part) for name, value in states[0].items()
        }
        for parameter, saved in zip(parameters, states, strict=True):
            mapping: Any = getattr(parameter, "_hp_mapping", None)  # None where the part of this process has none of it
            if mapping is None:
                continue
            here, there = mapping.hp_fragment_address, mapping.lp_fragment_address
            for name, value in saved.items():
                if value.ndim:
                    piece = value.reshape(-1).narrow(0, there.start, there.numel)
                    slots[name].narrow(0, here.start, here.numel).copy_(piece)
        self.optimizers[0].state[part] = slots
