"""The record of the family, which Muybridge finds by an entry point."""

from __future__ import annotations

from muybridge.pipelines.family import Family, LoraTargets, Planning, Recognition, Training, deferred

FAMILY = Family(
    name="PixArtFramesPipeline",
    supported="PixArtFramesPipeline, and PixArtAlphaPipeline together with a motion adapter",
    recognise=Recognition(folder=deferred("pixart_frames.folder:recognised_folder")),
    load=deferred("pixart_frames.folder:load"),
    planning=Planning(
        skeleton=deferred("pixart_frames.planning:skeleton"), stages=deferred("pixart_frames.planning:stages")
    ),
    lora=LoraTargets("transformer"),
    training=Training(
        latents=deferred("pixart_frames.learning:latents"), told=deferred("pixart_frames.learning:told"), frames=8
    ),
)
