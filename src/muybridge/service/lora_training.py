"""Training a LoRA from a run file: its method and batches, and the file that comes of it."""

from __future__ import annotations

import shutil
from pathlib import Path

from muybridge.checkpoints.lora import Dialect
from muybridge.demo.lora_batches import TaughtClips
from muybridge.errors import ConfigError
from muybridge.files.atomic import new_file
from muybridge.pipelines import AnimateDiffPipeline
from muybridge.service.runs import LoraStage
from muybridge.service.training_base import load_base, training_scheduler
from muybridge.training.lora import LoraMethod
from muybridge.training.methods import DiffusionObjective, MotionMethod
from muybridge.training.video_methods import VideoDiffusionMethod

LORA_FILE = "pytorch_lora_weights.safetensors"
"""What diffusers and peft look for in the folder of a LoRA."""
_FRAMES_OF_UNET = 8


class LoraFolder:
    """A LoRA as it is now, to be written as a folder."""

    def __init__(self, method: LoraMethod, dialect: Dialect) -> None:
        """`dialect` is that of the file, see `LoraMethod.save`."""
        self._method = method
        self._dialect: Dialect = dialect

    def save_pretrained(self, save_directory: Path, /) -> None:
        """Write the folder.

        Raises:
            OutputError: it cannot be written.
        """
        save_directory.mkdir(parents=True, exist_ok=True)
        self._method.save(save_directory / LORA_FILE, self._dialect)


def prepare_lora(stage: LoraStage) -> tuple[LoraMethod, TaughtClips]:
    """The method of a stage, on the model that it names, and its batches.

    Raises:
        ConfigError: layers that the model does not have, or settings for the other kind of network.
        CheckpointError: the model cannot be loaded.
    """
    base = load_base(stage.base)
    objective = DiffusionObjective(training_scheduler(base), stage.timestep_shift)
    options = (stage.batch_size, stage.seed, base.tokenizer, stage.taught)
    if isinstance(base, AnimateDiffPipeline):
        method = MotionMethod(base.unet, base.text_encoder, base.vae, objective)
        batches = TaughtClips(*options, stage.num_frames or _FRAMES_OF_UNET, stage.caption_dropout)
    else:
        if stage.num_frames is not None:
            raise ConfigError(f"{stage.base} has a transformer, which is trained on whole clips; leave num_frames out.")
        method = VideoDiffusionMethod(base.transformer, base.text_encoder, base.vae, objective)
        batches = TaughtClips(*options, caption_dropout=stage.caption_dropout)
    return LoraMethod(method, stage.layers, stage.rank, stage.alpha, stage.seed), batches


def publish_lora(exported: Path, target: Path) -> Path:
    """Copy the LoRA of a finished stage to where the run hands it out.

    Args:
        exported: the folder of the stage's part.
        target: the file to write; one that is there is replaced.

    Raises:
        OutputError: it cannot be written.
    """
    with new_file(target) as temporary:
        shutil.copyfile(exported / LORA_FILE, temporary)
    return target
