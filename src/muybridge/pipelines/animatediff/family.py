"""The record of AnimateDiff."""

from __future__ import annotations

from typing import TYPE_CHECKING

from muybridge.pipelines.family import (
    Family,
    FullSize,
    LoraTargets,
    Planning,
    PromptFiles,
    Recognition,
    Training,
    deferred,
)

if TYPE_CHECKING:
    from muybridge.motion import MotionHost

_HERE = "muybridge.pipelines.animatediff"


def _full_size() -> MotionHost:
    from muybridge.backbones.unet import UNet3DConditionModel

    return UNet3DConditionModel()


TRAINING = Training(
    latents=deferred(f"{_HERE}.learning:latents"),
    told=deferred(f"{_HERE}.learning:told"),
    text=deferred(f"{_HERE}.learning:text"),
    check=deferred(f"{_HERE}.learning:check"),
    prepare_image_model=deferred(f"{_HERE}.learning:prepare_image_model"),
    frames=8,
    whole_clip_share=0.25,
)

FAMILY = Family(
    name="AnimateDiffPipeline",
    supported=(
        "AnimateDiffPipeline, and StableDiffusionPipeline or StableDiffusionXLPipeline together with a motion adapter "
        "(motion_adapter, or --motion-adapter), both also as diffusers saves them for other tasks, where they have a "
        "U-Net of these"
    ),
    recognise=Recognition(
        folder=deferred(f"{_HERE}.recognising:recognised_folder"),
        file=lambda _: True,  # what loads it says what else it is
        networks={
            "UNet3DConditionModel": ("base-model", "unet"),
            "SparseControlNetModel": ("sparse-control", "sparsectrl"),
        },
    ),
    load=deferred(f"{_HERE}.loading:load"),
    planning=Planning(
        skeleton=deferred(f"{_HERE}.skeleton:skeleton"),
        stages=deferred(f"{_HERE}.planning:stages"),
        facts=deferred(f"{_HERE}.facts:facts"),
    ),
    lora=LoraTargets("unet"),
    training=TRAINING,
    full_size=FullSize("unet", "SD 1.5 U-Net", _full_size),
    prompt_files=PromptFiles(
        option="animatediff-config",
        help="A prompt file of AnimateDiff's own, with --model as its base and -o as its folder.",
        base="the Stable Diffusion 1.5 that its jobs are based on",
        run=deferred(f"{_HERE}.prompt_files:run_jobs"),
    ),
)
