"""The record of EasyAnimate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from muybridge.pipelines.family import (
    Family,
    FullSize,
    LoraTargets,
    Planning,
    Recognition,
    Training,
    deferred,
)

if TYPE_CHECKING:
    from muybridge.motion import MotionHost

_HERE = "muybridge.pipelines.easyanimate"


def _full_size() -> MotionHost:
    from muybridge.backbones.dit import Transformer3DModel

    return Transformer3DModel()


TRAINING = Training(
    latents=deferred(f"{_HERE}.learning:latents"),
    told=deferred(f"{_HERE}.learning:told"),
    text=deferred(f"{_HERE}.learning:text"),
    check=deferred(f"{_HERE}.learning:check"),
)

FAMILY = Family(
    name="EasyAnimatePipeline",
    supported="EasyAnimatePipeline",
    recognise=Recognition(
        folder=deferred(f"{_HERE}.folder:recognised_folder"),
        networks={
            "Transformer3DModel": ("transformer", "easyanimate-transformer"),
            "AutoencoderKLMagvit": ("vae", "easyanimate-vae"),
        },
    ),
    load=deferred(f"{_HERE}.loading:load"),
    planning=Planning(
        skeleton=deferred(f"{_HERE}.planning:skeleton"),
        stages=deferred(f"{_HERE}.planning:stages"),
        facts=deferred(f"{_HERE}.facts:facts"),
    ),
    lora=LoraTargets(
        "transformer",
        version="easyanimate_v3",
        architecture="easyanimate-v3",
        refusals={
            "official": (
                "lora_alpha_mode 'official' is AnimateDiff's, which passes alphas over; EasyAnimate's own program "
                "scales by alpha / rank, which is 'kohya'."
            )
        },
    ),
    training=TRAINING,
    full_size=FullSize("dit", "EasyAnimate V3", _full_size),
)
