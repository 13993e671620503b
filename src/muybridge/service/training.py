"""Carrying out a run file: each stage trained, its average exported, the next built on it."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ConfigMixin, UNet2DConditionModel
from pydantic_core import to_jsonable_python
from torch import nn
from transformers import CLIPTextModel, T5EncoderModel

from muybridge.backbones.dit import Transformer3DModel
from muybridge.checkpoints.quiet_loading import quiet_loading
from muybridge.demo import models, render
from muybridge.errors import ConfigError, TrainingError
from muybridge.files.atomic import WRITING_ERRORS, new_file, output_error, replace_folder
from muybridge.motion import MotionAdapter
from muybridge.pipelines import AnimateDiffPipeline, EasyAnimatePipeline
from muybridge.service.base_stages import pipeline_with_adapter, pipeline_with_control
from muybridge.service.lora_training import LORA_FILE, publish_lora
from muybridge.service.runs import LoraStage, MotionAdapterStage, SparseControlStage, Stage, TrainingRun, load_run
from muybridge.service.stage_work import StageWork, exported_part
from muybridge.service.stages import check_stage, prepare_stage
from muybridge.training.stopping import stop_signals
from muybridge.training.trainer import CHANGEABLE_SETTINGS, STATE_FILE, Trainer, TrainerConfig, settled_precision
from muybridge.vae import AutoencoderKLMagvit

StageProgress = Callable[[str, int, int, dict[str, float]], None]
"""Called with (stage, steps done, steps in all, smoothed metrics)."""
SETTINGS_FILE = "settings.json"


def run_training(run_file: Path, overrides: list[str], output: Path, progress: StageProgress | None = None) -> Path:
    """Train all stages and assemble what they make; stages already finished in `output` are skipped.

    Args:
        run_file: the YAML file.
        overrides: see `load_run`.
        output: the folder of the run.
        progress: of stages in one process; those of several tell standard error how far they are.

    Returns:
        The folder of the pipeline, `output/model`, or the file of the LoRA, `output/NAME.safetensors`.

    Raises:
        ConfigError: a wrong run file, or other settings than those a stage in `output` has begun with.
        OutputError: `output` cannot be written.
        TrainingError: a stage failed.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the same call continues.
    """
    run = load_run(run_file, overrides)
    run = run.model_copy(update={"stages": [_with_precision(stage, output / stage.method) for stage in run.stages]})
    for stage in run.stages:
        check_stage(stage)
        _check_settings(stage, output / stage.method, is_finished(output, stage))
    with quiet_loading():
        for stage in run.stages:
            if is_finished(output, stage):
                continue
            _record_settings(stage, output / stage.method)
            if stage.processes == 1:
                train_stage(stage, output, progress)
            else:
                _launch(stage, run_file, overrides, output)
        return assemble(run, output)


def is_finished(output: Path, stage: Stage) -> bool:
    """Whether the stage's weights have been exported."""
    names = ("config.json", LORA_FILE)
    folders = [exported_part(output, stage.method, part) for part in stage.parts]
    return all(any((folder / name).is_file() for name in names) for folder in folders)


def train_stage(stage: Stage, output: Path, progress: StageProgress | None = None) -> None:
    """Train one stage in this process (or in this process' share of several) and export its average."""
    stage = _with_precision(stage, output / stage.method)
    torch.manual_seed(stage.seed)
    work = prepare_stage(stage, output)
    settings = {name: getattr(stage, name) for name in TrainerConfig.__dataclass_fields__}
    trainer = Trainer(work.method, work.batches, TrainerConfig(**settings), output / stage.method)

    def report(step: int, steps: int, metrics: dict[str, float]) -> None:
        if progress is not None and trainer.is_main:
            progress(stage.method, step, steps, metrics)

    trainer.fit(report)
    if trainer.is_main:
        with trainer.ema.applied():
            _export(work, exported_part(output, stage.method))


def _export(work: StageWork, folder: Path) -> None:
    work.method.eval()
    with _new_folder(folder) as temporary:
        for name, part in work.trained_parts().items():
            part.save_pretrained(temporary / name)


def _launch(stage: Stage, run_file: Path, overrides: list[str], output: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={stage.processes}"]
    command += ["-m", "muybridge.service.stage_process", str(run_file), stage.method, str(output), *overrides]
    with stop_signals() as stop:
        # In a group of its own, so that Ctrl-C reaches the processes once and through here only.
        launcher = subprocess.Popen(command, process_group=0)
        told = False
        while launcher.poll() is None:
            if stop.requested and not told:
                launcher.terminate()
                told = True
            with contextlib.suppress(subprocess.TimeoutExpired):
                launcher.wait(timeout=0.5)
    if stop.requested:
        raise KeyboardInterrupt
    if launcher.returncode:
        raise TrainingError(
            f"Stage {stage.method!r} stopped with status {launcher.returncode}; the reason stands above. "
            "Unless the settings are wrong, the same command continues it."
        )


def assemble(run: TrainingRun, output: Path) -> Path:
    """Put the exported parts together as a pipeline in half precision; a LoRA becomes a file as it was trained."""
    last = run.stages[-1]
    if isinstance(last, LoraStage):
        return publish_lora(exported_part(output, last.method, "lora"), output / f"{run.name}.safetensors")
    pipeline = _pipeline(run, output)
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            nn.Module.to(part, torch.float16)
        if isinstance(part, ConfigMixin):
            part.register_to_config(_name_or_path="")  # the run's folder means nothing to others and may name a user
    folder = output / "model"
    with _new_folder(folder) as temporary:
        pipeline.save_pretrained(temporary)
    return folder


def _pipeline(run: TrainingRun, output: Path) -> AnimateDiffPipeline | EasyAnimatePipeline:
    match run.stages[-1]:
        case MotionAdapterStage() as stage:
            return pipeline_with_adapter(run, stage, output)
        case SparseControlStage() as stage:
            return pipeline_with_control(run, stage, output)
        case _:
            return (_easyanimate if run.family == "easyanimate" else _animatediff)(run, output)


def _animatediff(run: TrainingRun, output: Path) -> AnimateDiffPipeline:
    return AnimateDiffPipeline(
        vae=AutoencoderKL.from_pretrained(exported_part(output, "vae", "vae")),
        text_encoder=CLIPTextModel.from_pretrained(exported_part(output, "image", "text_encoder")),
        tokenizer=models.make_tokenizer(),
        unet=UNet2DConditionModel.from_pretrained(exported_part(output, "image", "unet")),
        scheduler=models.make_scheduler(),
        motion_adapter=MotionAdapter.from_pretrained(exported_part(output, "motion", "motion_adapter")),
        default_steps=run.default_steps,
        default_guidance=run.default_guidance,
    )


def _easyanimate(run: TrainingRun, output: Path) -> EasyAnimatePipeline:
    methods = [stage.method for stage in run.stages]
    vae_from = "video-decoder" if "video-decoder" in methods else "video-vae"
    network_from = "video-refine" if "video-refine" in methods else "video"
    return EasyAnimatePipeline(
        vae=AutoencoderKLMagvit.from_pretrained(exported_part(output, vae_from, "vae")),
        text_encoder=T5EncoderModel.from_pretrained(exported_part(output, network_from, "text_encoder")),
        tokenizer=models.make_tokenizer(),
        transformer=Transformer3DModel.from_pretrained(exported_part(output, network_from, "transformer")),
        scheduler=models.make_scheduler(),
        default_size=(render.FRAME_SIZE, render.FRAME_SIZE),
        default_num_frames=render.CLIP_FRAMES,
        default_steps=run.default_steps,
        default_guidance=run.default_guidance,
        max_tokens=models.MAX_TOKENS,
        clean_captions=False,
        known_frames=1,
        profile="clean",
    )


def _check_settings(stage: Stage, folder: Path, finished: bool) -> None:
    before = _recorded_settings(folder)
    if before is None or not (finished or (folder / STATE_FILE).is_file()):
        return
    now = stage.model_dump(mode="json")
    before = {**_default_settings(stage), **before}  # what there was no setting for was as it is by default
    free = CHANGEABLE_SETTINGS - {"steps"} if finished else CHANGEABLE_SETTINGS
    if changed := sorted(name for name in (before.keys() & now.keys()) - free if before[name] != now[name]):
        state = "is finished" if finished else "has begun"
        raise ConfigError(
            f"Stage {stage.method!r} in {folder.parent} {state} with other settings ({', '.join(changed)}). Choose "
            "another output folder to start anew, or the old settings to continue."
        )


def _recorded_settings(folder: Path) -> dict[str, Any] | None:
    path = folder / SETTINGS_FILE
    if not path.is_file():
        return None
    try:
        return dict(json.loads(path.read_text()))
    except (ValueError, TypeError, OSError) as error:
        raise ConfigError(f"{path} is not what this program wrote. Choose another output folder.") from error


def _with_precision(stage: Stage, folder: Path) -> Stage:
    """The stage with the precision that it is trained in, as its record says it."""
    began_with = (_recorded_settings(folder) or {}).get("mixed_precision")
    return stage.model_copy(update={"mixed_precision": settled_precision(stage.mixed_precision, began_with)})


def _default_settings(stage: Stage) -> dict[str, Any]:
    fields = {name: field for name, field in type(stage).model_fields.items() if not field.is_required()}
    return {n: to_jsonable_python(field.get_default(call_default_factory=True)) for n, field in fields.items()}


def _record_settings(stage: Stage, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error
    with new_file(folder / SETTINGS_FILE) as temporary:
        temporary.write_text(stage.model_dump_json(indent=2) + "\n")


@contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """A folder that takes the place of `path` when the block ends well, and vanishes when it does not."""
    temporary = path.with_name(path.name + ".part")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        yield temporary
        replace_folder(temporary, path)
    except WRITING_ERRORS as error:
        raise output_error(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
