"""Where the weights of a method lie while it is trained: whole in every process, or shared out between them."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker
from accelerate.utils import InitProcessGroupKwargs, LoggerType, ProjectConfiguration
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from muybridge.training.config import TrainerConfig
from muybridge.training.optimizers import TrainingOptimizer
from muybridge.training.recomputation import blocks_of, compile_blocks, recompute
from muybridge.training.shards import whole

TRACKERS_FOLDER = "trackers"
"""In the folder of a run, for those that write files."""
_LONGEST_WAIT = timedelta(hours=4)  # while one process makes samples, the others wait for it


def make_accelerator(trackers: list[str | LoggerType | GeneralTracker], folder: str) -> Accelerator:
    """Devices and processes as torch's launcher started them."""
    if not torch.cuda.is_available():
        # accelerate imports DeepSpeed wherever that is installed, and it would look for other devices, and say so.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    # accelerate keeps one precision for the whole program, so each trainer casts by itself.
    return Accelerator(
        mixed_precision="no",
        cpu=not torch.cuda.is_available(),
        log_with=trackers or None,
        project_config=ProjectConfiguration(folder, f"{folder}/{TRACKERS_FOLDER}"),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=_LONGEST_WAIT)],
    )


class Placement:
    """A method whole in every process; where there are several, torch's DDP averages their gradients.

    Attributes:
        method: as it was given; in a context of `gathered` it holds the weights.
        trained: whose parameters the optimizer changes: the method, or a copy of it.
        model: what is called.
    """

    is_sharded = False
    """Whether each process has a part of the weights."""
    saves_together = False
    """Whether all processes must take part in saving."""

    def __init__(self, method: nn.Module, config: TrainerConfig, accelerator: Accelerator) -> None:
        """Move the method to its device."""
        self.method = method
        self.trained = method.to(accelerator.device)
        _arrange(method, config)
        self._accelerator = accelerator
        self.model: nn.Module = method

    def prepare(self, optimizer: TrainingOptimizer) -> TrainingOptimizer:
        """Make what is called in a step, and the optimizer to go on with.

        To be called once parameters and optimizer are as training begins with them.
        """
        self.model = self._accelerator.prepare_model(self.method)
        return optimizer

    def backward_of(self, is_last: bool) -> AbstractContextManager[object]:
        """A context of a batch's forward and backward pass; with the last of a step gradients are averaged."""
        several = self._accelerator.num_processes > 1
        return self._accelerator.no_sync(self.model) if several and not is_last else nullcontext()

    def backward(self, loss: Tensor, is_last: bool) -> None:
        """Add the gradients of a batch to those of the step, of which it may be the last."""
        del is_last
        loss.backward()

    def gradient_of(self, parameter: nn.Parameter) -> Tensor | None:
        """What the batches of a step have added up to."""
        return parameter.grad

    def update(self, optimizer: TrainingOptimizer, scaler: torch.amp.GradScaler, max_norm: float) -> float:
        """Clip the gradients, change the weights, and drop the gradients.

        Returns:
            The norm of all gradients together. Where it is not finite nothing has changed.
        """
        norm = float(whole(nn.utils.clip_grad_norm_(optimizer.parameters, max_norm)))
        # Where one gradient overflows none is used: the scaler's own check sees each optimizer's alone.
        for each in optimizer.optimizers:
            if math.isfinite(norm):
                scaler.step(each)
            each.zero_grad(set_to_none=True)
        return norm

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """While the block runs, `method` holds the weights in the main process. All processes must enter it."""
        yield


class ShardedPlacement(Placement):
    """A copy of the method whose weights are shared out between the processes, block by block, with torch's FSDP2.

    The method itself stays whole in the memory of the CPU of the main process, and takes the weights when they are
    gathered there.
    """

    is_sharded = True
    saves_together = True

    def __init__(self, method: nn.Module, config: TrainerConfig, accelerator: Accelerator) -> None:
        """Share out a copy."""
        self.method = method
        self._accelerator = accelerator
        self.trained = self.model = copy.deepcopy(method)
        if not accelerator.is_main_process:
            method.to("meta")
        _arrange(self.trained, config)  # blocks are compiled before they are shared out
        mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
        # Inputs are left to autocast, which casts what gains by it and nothing else.
        policy = MixedPrecisionPolicy(cast_forward_inputs=False)
        if config.mixed_precision == "bf16":
            policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
        for block in blocks_of(self.trained):
            fully_shard(block, mesh=mesh, mp_policy=policy)
        fully_shard(self.trained, mesh=mesh, mp_policy=policy)
        self.trained.to(accelerator.device)

    def prepare(self, optimizer: TrainingOptimizer) -> TrainingOptimizer:
        """Nothing is left to do."""
        return optimizer

    def backward_of(self, is_last: bool) -> AbstractContextManager[object]:
        """Each batch's gradients are averaged and shared out, so that no process ever holds all of them."""
        return nullcontext()

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """While the block runs, `method` holds the weights in the main process. All processes must enter it."""
        main = self._accelerator.is_main_process
        targets = dict(self.method.named_parameters())
        with torch.no_grad():
            for name, parameter in self.trained.named_parameters():
                if parameter.requires_grad:
                    value = whole(parameter)
                    if main:
                        targets[name].copy_(value)
            if main:
                own = dict(self.method.named_buffers())
                for name, buffer in self.trained.named_buffers():
                    own[name].copy_(whole(buffer))
        if not main:
            yield
            return
        self.method.to(self._accelerator.device)
        try:
            yield
        finally:
            self.method.to("cpu")


def _arrange(method: nn.Module, config: TrainerConfig) -> None:
    recompute(method, config.gradient_checkpointing)
    if config.compile:
        compile_blocks(method)
