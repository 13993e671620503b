"""Carrying out a run file: each stage trained, its average exported, the next built on it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.demo import models
from muybridge.demo.batches import ClipBatches, StillBatches
from muybridge.errors import ConfigError, TrainingError
from muybridge.motion import MotionAdapter
from muybridge.motion.registry import make_config
from muybridge.pipelines import AnimateDiffPipeline
from muybridge.service.runs import ImageStage, MotionStage, Stage, StageSettings, TrainingRun, load_run
from muybridge.training.methods import (
    ContrastiveTextMethod,
    DiffusionObjective,
    ImageDiffusionMethod,
    ImageVAEMethod,
    MotionMethod,
)
from muybridge.training.trainer import BatchSource, Trainer, TrainerConfig
from muybridge.vae import encode_images

ModelT = TypeVar("ModelT", bound=nn.Module)
StageProgress = Callable[[str, int, int, dict[str, float]], None]
"""Called with (stage, steps done, steps in all, smoothed metrics)."""

_PARTS = {"vae": ["vae"], "text": ["text_encoder"], "image": ["unet", "text_encoder"], "motion": ["motion_adapter"]}
_NEEDS = {"vae": [], "text": [], "image": ["vae", "text"], "motion": ["vae", "text", "image"]}


def run_training(run_file: Path, overrides: list[str], output: Path, progress: StageProgress | None = None) -> Path:
    """Train all stages and assemble the model; stages already finished in `output` are skipped.

    Returns:
        The folder of the pipeline, `output/model`.

    Raises:
        ConfigError: a wrong run file, or a stage that needs one which the run does not have.
        TrainingError: a stage failed.
    """
    run = load_run(run_file, overrides)
    done = {stage.method for stage in run.stages if is_finished(output, stage)}
    for stage in run.stages:
        missing = [need for need in _NEEDS[stage.method] if need not in done]
        if missing:
            raise ConfigError(f"Stage {stage.method!r} needs {', '.join(missing)} before it.")
        if stage.method not in done:
            if stage.processes == 1:
                train_stage(stage, output, progress)
            else:
                _launch(stage, run_file, overrides, output)
        done.add(stage.method)
    return assemble(run, output)


def is_finished(output: Path, stage: Stage) -> bool:
    """Whether the stage's weights have been exported."""
    return (_exported(output, stage.method) / _PARTS[stage.method][-1] / "config.json").is_file()


def train_stage(stage: Stage, output: Path, progress: StageProgress | None = None) -> None:
    """Train one stage in this process (or in this process' share of several) and export its average."""
    torch.manual_seed(stage.seed)
    method, batches = _build(stage, output)
    settings = {name: getattr(stage, name) for name in TrainerConfig.__dataclass_fields__}
    trainer = Trainer(method, batches, TrainerConfig(**settings), output / stage.method)
    report = None if progress is None or not trainer.is_main else _named(progress, stage.method)
    trainer.fit(report)
    if trainer.is_main:
        with trainer.ema.applied():
            _export(method, batches, _exported(output, stage.method))


def _named(progress: StageProgress, stage: str) -> Callable[[int, int, dict[str, float]], None]:
    def report(step: int, steps: int, metrics: dict[str, float]) -> None:
        progress(stage, step, steps, metrics)

    return report


def _exported(output: Path, method: str) -> Path:
    return output / method / "exported"


def _launch(stage: StageSettings, run_file: Path, overrides: list[str], output: Path) -> None:
    method = getattr(stage, "method")  # noqa: B009  # declared by every stage, not by their base
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={stage.processes}"]
    command += ["-m", "muybridge.service.stage_process", str(run_file), method, str(output), *overrides]
    status = subprocess.run(command, check=False).returncode
    if status:
        raise TrainingError(f"Stage {method!r} stopped with status {status}; the same command continues it.")


def _build(stage: Stage, output: Path) -> tuple[nn.Module, BatchSource]:
    tokenizer = models.make_tokenizer()
    if stage.method == "vae":
        return ImageVAEMethod(models.make_vae()), StillBatches(stage.batch_size, stage.seed)
    if stage.method == "text":
        return ContrastiveTextMethod(models.make_clip(tokenizer)), StillBatches(stage.batch_size, stage.seed, tokenizer)
    vae = AutoencoderKL.from_pretrained(_exported(output, "vae") / "vae")
    if isinstance(stage, ImageStage):
        text_encoder = CLIPTextModel.from_pretrained(_exported(output, "text") / "text_encoder")
        objective = DiffusionObjective(models.make_scheduler(), stage.timestep_shift)
        method = ImageDiffusionMethod(models.make_unet(), text_encoder, vae, objective)
        return method, StillBatches(stage.batch_size, stage.seed, tokenizer, stage.caption_dropout)
    return _build_motion(stage, output, vae), ClipBatches(
        stage.batch_size, stage.num_frames, stage.seed, tokenizer, stage.caption_dropout
    )


def _build_motion(stage: MotionStage, output: Path, vae: AutoencoderKL) -> MotionMethod:
    image = _exported(output, "image")
    unet = UNet3DConditionModel.from_unet2d(image / "unet")
    config = make_config(stage.motion.kind, stage.motion.config)
    unet.set_motion_adapter(MotionAdapter.for_sites(unet.motion_sites().values(), stage.motion.kind, config))
    text_encoder = CLIPTextModel.from_pretrained(image / "text_encoder")
    return MotionMethod(unet, text_encoder, vae, DiffusionObjective(models.make_scheduler(), stage.timestep_shift))


def _export(method: nn.Module, batches: BatchSource, folder: Path) -> None:
    method.eval()
    if isinstance(method, ImageVAEMethod):
        method.vae.register_to_config(scaling_factor=_unit_scale(method.vae, batches))
        method.vae.save_pretrained(folder / "vae")
    elif isinstance(method, ContrastiveTextMethod):
        models.text_tower(method.clip).save_pretrained(folder / "text_encoder")
    elif isinstance(method, ImageDiffusionMethod):
        method.unet.save_pretrained(folder / "unet")
        method.text_encoder.save_pretrained(folder / "text_encoder")
    elif isinstance(method, MotionMethod) and method.unet.motion_adapter is not None:
        method.unet.motion_adapter.save_pretrained(folder / "motion_adapter")


def _unit_scale(vae: AutoencoderKL, batches: BatchSource) -> float:
    """The factor that gives latents unit variance, measured on stills the VAE has not seen."""
    pixels = torch.cat([batches(2**31 + i)["pixels"] for i in range(32)])
    with torch.no_grad():
        spread = float(encode_images(vae, pixels).std()) / vae.config["scaling_factor"]
    return round(1 / spread, 5)


def _half(model: ModelT) -> ModelT:
    return nn.Module.to(model, torch.float16)


def assemble(run: TrainingRun, output: Path) -> Path:
    """Put the exported parts together as a pipeline in half precision."""
    image = _exported(output, "image")
    pipeline = AnimateDiffPipeline(
        vae=_half(AutoencoderKL.from_pretrained(_exported(output, "vae") / "vae")),
        text_encoder=_half(CLIPTextModel.from_pretrained(image / "text_encoder")),
        tokenizer=models.make_tokenizer(),
        unet=_half(UNet2DConditionModel.from_pretrained(image / "unet")),
        scheduler=models.make_scheduler(),
        motion_adapter=_half(MotionAdapter.from_pretrained(_exported(output, "motion") / "motion_adapter")),
        default_steps=run.default_steps,
        default_guidance=run.default_guidance,
    )
    folder = output / "model"
    pipeline.save_pretrained(folder)
    return folder
