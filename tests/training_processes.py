"""Methods that several processes train together, and a program that each of these processes runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, distributed, nn

from muybridge.training.config import TrainerConfig
from muybridge.training.monitoring.held_out import HeldOutLoss
from muybridge.training.optimizers import OptimizerSettings
from muybridge.training.schedules import ScheduleSettings
from muybridge.training.trainer import Trainer

WEIGHTS_FILE = "weights.pt"


class Block(nn.Module):
    """A residual block whose matrices two processes cannot halve."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.outer(torch.tanh(self.inner(x)))


class Network(nn.Module):
    """Blocks between two layers, after one that is frozen."""

    _no_split_modules = ["Block"]

    def __init__(self, width: int = 15) -> None:
        super().__init__()
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.first = nn.Linear(4, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(3))
        self.last = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.frozen(x))
        for block in self.blocks:
            x = block(x)
        return self.last(x)


class PlainMethod(nn.Module):
    """The network learns a fixed linear map from noisy samples."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = Network()

    def forward(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        inputs = batch["inputs"]
        noisy = inputs + 0.1 * torch.randn(inputs.shape, generator=generator)
        return {"loss": (self.network(noisy) - inputs[:, :2].flip(1)).float().square().mean()}


class PlainMethodWithRates(PlainMethod):
    """A part of it learns at a rate of its own."""

    rate_factors: ClassVar = {"network.first": 0.5}


class BreakingMethod(PlainMethod):
    """Whose loss has no gradient."""

    def forward(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": super().forward(batch, generator)["loss"] + (0 * self.network.first.bias.sum()).sqrt()}


def samples(index: int) -> dict[str, Any]:
    inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(index))
    return {"inputs": inputs, "ids": [f"sample {index}"]}


def clips(index: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(index)
    return {
        "pixels": torch.rand(1, 8, 3, 16, 16, generator=generator) * 2 - 1,
        "input_ids": torch.randint(0, 12, (1, 6), generator=generator),
        "attention_mask": torch.ones(1, 6, dtype=torch.long),
        "unknown": torch.ones(1, 8, dtype=torch.bool),
        "frame_positions": torch.arange(8),
    }


def transformer_method(lora: bool = False) -> nn.Module:
    from tests.tiny_models import make_easyanimate

    from muybridge.pipelines.easyanimate.family import TRAINING
    from muybridge.training.methods.denoise import DenoisingMethod
    from muybridge.training.methods.lora import LoraMethod, LoraParts, LoraShape
    from muybridge.training.objective.diffusion import DiffusionObjective
    from muybridge.training.stages.base_model import networks_of, training_scheduler

    pipeline = make_easyanimate()
    method = DenoisingMethod(networks_of(pipeline), DiffusionObjective(training_scheduler(pipeline)), TRAINING)
    return LoraMethod(method, LoraParts("linear"), LoraShape(rank=2)) if lora else method


def unet_method() -> nn.Module:
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from muybridge.backbones.unet import UNet3DConditionModel
    from muybridge.motion import MotionAdapter, TemporalConfig
    from muybridge.pipelines.animatediff.family import TRAINING
    from muybridge.training.methods.adapters import MotionMethod
    from muybridge.training.methods.denoise import TrainedNetworks
    from muybridge.training.objective.diffusion import DiffusionObjective

    torch.manual_seed(0)
    text: dict[str, Any] = {"vocab_size": 12, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    vae: dict[str, Any] = {
        "block_out_channels": (8,),
        "down_block_types": ("DownEncoderBlock2D",),
        "up_block_types": ("UpDecoderBlock2D",),
        "norm_num_groups": 4,
    }
    unet = UNet3DConditionModel.from_unet2d(
        UNet2DConditionModel(
            block_out_channels=(32, 32),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=16,
            attention_head_dim=4,
        )
    )
    config = TemporalConfig(num_heads=4, trained_frames=8)
    unet.set_motion_adapter(MotionAdapter.for_sites(unet.motion_sites().values(), "temporal", config))
    networks = TrainedNetworks(
        unet,
        CLIPTextModel(CLIPTextConfig(**text, num_attention_heads=2, bos_token_id=0, eos_token_id=1)),
        AutoencoderKL(**vae),
    )
    objective = DiffusionObjective(DDIMScheduler(prediction_type="v_prediction", clip_sample=False))
    return MotionMethod(networks, objective, TRAINING)


METHODS = {
    "plain": PlainMethod,
    "plain with rates": PlainMethodWithRates,
    "breaking": BreakingMethod,
    "transformer": transformer_method,
    "lora": lambda: transformer_method(lora=True),
    "unet": unet_method,
}


class Eye:
    """An observer that also looks at updates."""

    every = 2
    wants_updates = True

    def observe(self, trainer: Trainer, step: int) -> dict[str, float]:
        del step
        norm = sum(float(p.square().sum()) for p in trainer.method.parameters() if p.requires_grad)
        sizes = trainer.last_update.items()
        return {"norm": norm, **{f"gradient/{name}": size.gradient_norm for name, size in sizes}}


def train(folder: Path, kind: str, until: int | None = None, **settings: Any) -> Trainer:
    """Train a method of a kind, and leave its averaged weights in the folder."""
    settings["optimizer"] = OptimizerSettings(**settings.get("optimizer", {}))
    usual: dict[str, Any] = {"steps": 8, "learning_rate": 0.02, "max_gradient_norm": 0.5, "log_every": 1}
    usual |= {"schedule": ScheduleSettings(warmup_steps=2), "mixed_precision": "no", "trackers": ()}
    plain = isinstance(method := METHODS[kind](), PlainMethod)
    batches = samples if plain else clips
    trainer = Trainer(method, batches, TrainerConfig(**usual | settings), folder)
    looking = [] if plain else [HeldOutLoss(clips, clips, every=1, count=1, noises=1)]
    trainer.fit(observers=[Eye(), *looking], until=until)
    with trainer.evaluated():
        if trainer.is_main:
            trained = {n: p.detach().clone() for n, p in trainer.method.named_parameters() if p.requires_grad}
            torch.save(trained, folder / WEIGHTS_FILE)
    return trainer


def main(given: str) -> None:
    """Train all cases of a JSON list of settings for `train`, one after the other."""
    torch.set_num_threads(1)
    for case in json.loads(given):
        train(Path(case.pop("folder")), **case)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
