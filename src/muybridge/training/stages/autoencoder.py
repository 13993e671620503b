"""The stage that trains the VAE of a model that exists, or a VAE of videos that begins as one of pictures."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from muybridge.errors import ConfigError
from muybridge.training.data import BatchSource, TrainingData
from muybridge.training.losses.settings import VAELossSettings
from muybridge.training.stages.registry import register_stage
from muybridge.training.stages.stage import LastStage, RunSettings, SavablePart, StageWork, exported_part

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

    from muybridge.pipelines import VideoPipeline
    from muybridge.vae import AutoencoderKLMagvit

_MEASURED_FROM, _MEASURED = 2**31, 8
"""Batches that are not trained on, of which the size of latents is measured."""


@register_stage
class AutoencoderStage(LastStage):
    """Train a VAE of pictures or of videos, with errors of pixels, likeness, a bound on latents, and discriminators."""

    parts: ClassVar[tuple[str, ...]] = ("vae",)
    product: ClassVar[str] = "a VAE"
    has_defaults: ClassVar[bool] = False

    method: Literal["autoencoder"]
    base: str = "demo/easyanimate"
    """The model whose VAE it is, or begins as: a shipped one, a folder, or a hub id."""
    kind: Literal["image", "slice", "magvit"] | None = None
    """Of pictures, of videos in pieces of 8 frames (EasyAnimate V3), or in pieces of 9 (V2). The model's own if not
    given; one of videos can begin as one of pictures."""
    train: Literal["all", "decoder"] = "all"
    """With the decoder alone latents mean what they meant, and fit the model's network as before."""
    num_frames: int = Field(default=8, ge=1)
    """Of a clip at a time."""
    loss: VAELossSettings = VAELossSettings()

    @field_validator("loss")
    @classmethod
    def _judged_in_time(cls, loss: VAELossSettings, info: ValidationInfo) -> VAELossSettings:
        adversarial, steps = loss.adversarial, info.data.get("steps")
        if adversarial is not None and steps is not None and adversarial.start >= steps:
            raise ValueError(
                f"loss.adversarial.start is {adversarial.start}, and there are {steps} steps, so discriminators would "
                "take no part; let them start earlier, or leave adversarial out"
            )
        return loss

    def check(self, data: TrainingData) -> None:
        """Whether the model is there."""
        from muybridge.training.stages.base_model import check_base

        check_base(self.base)

    def prepare(self, output: Path, data: TrainingData) -> StageWork:
        """Build what is trained, and its batches.

        Raises:
            ConfigError: a kind that the model's VAE cannot be, or frames that it does not take.
            CheckpointError: the model or a file of the loss cannot be loaded.
        """
        from muybridge.pipelines import load_pipeline
        from muybridge.training.methods.autoencoder import AutoencoderMethod, NumberedSteps
        from muybridge.training.stages.base_model import wanted_clips

        base = load_pipeline(self.base)
        vae = self._vae(base)
        is_new = vae is not base.vae
        wanted = wanted_clips(base, self, 0.0, self.num_frames)
        clips = data.clips(wanted)
        method = AutoencoderMethod(vae.train(), self.loss, self.train == "decoder")

        def trained_parts() -> dict[str, SavablePart]:
            if is_new:
                _scale(vae, clips)
            return {"vae": vae}

        def seen(clips: BatchSource) -> BatchSource:
            return NumberedSteps(clips, self.processes * self.accumulate)

        return StageWork(method, seen(clips), trained_parts, seen=seen)

    def publish(self, run: RunSettings, output: Path) -> Path:
        """Copy the folder of the VAE to `output/vae`; one that is there is replaced."""
        from muybridge.files.new_folder import replaced_folder

        target = output / "vae"
        with replaced_folder(target) as temporary:
            shutil.copytree(exported_part(output, self.method, "vae"), temporary, dirs_exist_ok=True)
        return target

    def _vae(self, base: VideoPipeline) -> AutoencoderKL | AutoencoderKLMagvit:
        from diffusers import AutoencoderKL

        from muybridge.vae import AutoencoderKLMagvit
        from muybridge.vae.magvit.inflating import inflated_vae

        vae = base.vae
        own = "image"
        if isinstance(vae, AutoencoderKLMagvit):
            own = "slice" if vae.config["slice_compression_vae"] else "magvit"
        if self.kind in (None, own):
            return vae
        if isinstance(vae, AutoencoderKL) and self.train == "all":
            return inflated_vae(vae, in_slices=self.kind == "slice")
        raise ConfigError(
            f"The VAE of {self.base} is of the kind {own}, and cannot be trained as {self.kind}"
            f"{' with the decoder alone' if own == 'image' else ''}; leave kind out, or give base another model."
        )


def _scale(vae: AutoencoderKL | AutoencoderKLMagvit, clips: BatchSource) -> None:
    import torch

    from muybridge.training.methods.vae import scale_to_unit
    from muybridge.vae.magvit.batches import encode_videos

    found = []
    with torch.no_grad():
        for index in range(_MEASURED):
            found.append(encode_videos(vae, clips(_MEASURED_FROM + index)["pixels"].to(vae.device)).flatten())  # type: ignore[arg-type]
    scale_to_unit(vae, torch.cat(found))
