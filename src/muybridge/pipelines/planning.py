"""How much memory a video will take, before anything is loaded: every stage is run without numbers, and counted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from muybridge.checkpoints import locate_model, read_model_index
from muybridge.checkpoints.parts import unet_settings
from muybridge.checkpoints.skeleton import (
    adapter_settings,
    read_outlines,
    skeleton_adapter,
    skeleton_of_file,
    skeleton_parts,
)
from muybridge.checkpoints.vae_files import own_vae_settings
from muybridge.debug.count_once import CountOnce
from muybridge.debug.tensor_memory import TensorMemory
from muybridge.errors import CheckpointError
from muybridge.pipelines.animatediff.capabilities import USUAL_FRAMES
from muybridge.pipelines.animatediff.network import ControlledUNet
from muybridge.pipelines.easyanimate.folder import is_published_folder, usual_shape
from muybridge.runtime.plan import CHOICES, PlannedRun, PlanSettings, StageNeed, plan_runs
from muybridge.sampling import Guidance
from muybridge.types import ScaleFactors, VideoShape
from muybridge.vae import decode_images
from muybridge.vae.magvit import encode_frames
from muybridge.vae.pieces import set_exact_pieces

_T5_TOKENS = 120
_VAE_FRAMES = 8  # that an image VAE decodes at once


@dataclass(frozen=True)
class VideoPlan:
    """What was planned.

    Attributes:
        family: "AnimateDiffPipeline" or "EasyAnimatePipeline".
        shape: of the video.
        runs: from what costs nothing to what costs most.
    """

    family: str
    shape: VideoShape
    runs: list[PlannedRun]


@dataclass(frozen=True)
class PartsBeside:
    """What is loaded with a model, as arguments of `load_pipeline`."""

    motion_adapter: str | os.PathLike[str] | None = None
    motion_variant: str | None = None
    parts_from: str | os.PathLike[str] | None = None


@dataclass(frozen=True)
class PartialShape:
    """Extent of a video of which not everything is asked for; None is what the model makes by default.

    Attributes:
        num_frames: asked for.
        height: likewise, in pixels.
        width: likewise.
        is_whole: whether all frames are to be made at once also by models that make longer videos in segments.
    """

    num_frames: int | None = None
    height: int | None = None
    width: int | None = None
    is_whole: bool = False

    def filled(self, usual: VideoShape, is_continued: bool) -> VideoShape:
        """What is made at once by a model that makes `usual` by default, and longer videos in segments or not."""
        frames = self.num_frames or usual.num_frames
        if is_continued and not self.is_whole:
            frames = min(frames, usual.num_frames)
        return VideoShape(frames, self.height or usual.height, self.width or usual.width)


def plan_video(
    model: str | os.PathLike[str],
    shape: VideoShape | PartialShape | None = None,
    num_steps: int = 25,
    guided: bool = True,
    device: str = "cuda",
    choices: tuple[PlanSettings, ...] = CHOICES,
    beside: PartsBeside | None = None,
    *,
    enough: int | None = None,
) -> VideoPlan:
    """Predict the peak of every stage under different settings; no weight is loaded, or needs to be there.

    Tensors are counted as in `TensorMemory`: what kernels need inside themselves, and what a process takes before it
    has made a tensor (on a GPU about 0.5 GB), come on top. Decoding is of the "clean" profile, piece by piece. A
    SparseCtrl in the folder counts with its weights, not with what it needs when there are keyframes or sketches.

    Args:
        model: a shipped model, a folder, or a hub id; with a motion adapter beside it also an image model, as a folder
            or a single file.
        shape: of the video; by default what the model makes by default.
        num_steps: denoising steps; they matter for the cost of offloading only.
        guided: whether there is guidance, which has two branches.
        device: where it is to run, "cpu" or any other, such as "cuda": kernels on a CPU need less between layers. It
            does not have to be here. Single files are planned as for a card.
        choices: settings to plan for.
        beside: what is loaded with the model.
        enough: bytes; settings behind the first that takes no more are not planned.

    Raises:
        CheckpointError: no such model, a family that is not known, or settings that describe no network.
        ShapeError: a size or number of frames that the model cannot make.
    """
    beside = beside or PartsBeside()
    source = _source(model, beside)
    stages_of = {"AnimateDiffPipeline": _animatediff, "EasyAnimatePipeline": _easyanimate}.get(source.family)
    if stages_of is None:
        raise CheckpointError(
            f"{model} is a {source.family}; planned can be AnimateDiffPipeline and EasyAnimatePipeline, and an image "
            "model with a motion adapter."
        )
    wanted = shape or source.usual
    if isinstance(wanted, PartialShape):
        wanted = wanted.filled(source.usual, source.family == "EasyAnimatePipeline")

    on_cpu = device == "cpu" and not source.is_file
    # Fake tensors of a CPU take the ways of a CPU through the networks; meta tensors those of other devices.
    with FakeTensorMode() if on_cpu else nullcontext(), torch.device("cpu" if on_cpu else "meta"):

        @cache
        def stages_in(dtype: str) -> tuple[int, Mapping[str, _Stage]]:
            parts = source.make(getattr(torch, dtype), "cpu" if on_cpu else "meta")
            return sum(_weight_bytes(part) for part in parts.values()), stages_of(parts, wanted, guided)

        @cache
        def need(name: str, dtype: str, *deciding: tuple[str, Any]) -> StageNeed:
            return _need(stages_in(dtype)[1][name], PlanSettings(dtype, **dict(deciding)))

        def count(settings: PlanSettings) -> tuple[int, Mapping[str, StageNeed]]:
            everything, stages = stages_in(settings.dtype)
            return everything, {
                name: need(name, settings.dtype, *((each, getattr(settings, each)) for each in stage.decided_by))
                for name, stage in stages.items()
            }

        return VideoPlan(source.family, wanted, plan_runs(count, num_steps, choices, enough))


@dataclass(frozen=True, eq=False)
class _Source:
    """A model that nothing is loaded of.

    Attributes:
        family: its pipeline.
        make: precision and device -> its networks without numbers.
        usual: the video that it makes by default.
        is_file: whether it is a single file.
    """

    family: str
    make: Callable[[torch.dtype, str], dict[str, Any]]
    usual: VideoShape
    is_file: bool = False


def _source(model: str | os.PathLike[str], beside: PartsBeside) -> _Source:
    # Files are read here, since under a `FakeTensorMode` they cannot be.
    adapter = None
    if beside.motion_adapter is not None:
        adapter = adapter_settings(beside.motion_adapter, beside.motion_variant)

    def whole(parts: dict[str, Any], dtype: torch.dtype, on: str) -> dict[str, Any]:
        return parts if adapter is None else {**parts, "motion_adapter": skeleton_adapter(adapter, dtype, on)}

    if Path(model).is_file():
        outlines, name = read_outlines(Path(model)), str(model)

        def make(dtype: torch.dtype, on: str) -> dict[str, Any]:
            return whole(skeleton_of_file(outlines, name, dtype, beside.parts_from), dtype, on)

        side = 1024 if "conditioner.embedders.1.model.text_projection" in outlines else 512
        return _Source("AnimateDiffPipeline", make, VideoShape(USUAL_FRAMES, side, side), is_file=True)
    folder = locate_model(model)
    family = "EasyAnimatePipeline"
    if not is_published_folder(folder):
        family = str(read_model_index(folder).get("_class_name"))
        if family.startswith("AnimateDiff") or (adapter is not None and family.startswith("StableDiffusion")):
            family = "AnimateDiffPipeline"  # diffusers saves them for other tasks too
    usual = usual_shape(folder) if family == "EasyAnimatePipeline" else _usual_of_unet(folder)
    return _Source(family, lambda dtype, on: whole(skeleton_parts(folder, family, dtype, on), dtype, on), usual)


def _usual_of_unet(folder: Path) -> VideoShape:
    side = unet_settings(folder).get("sample_size")
    levels = own_vae_settings(folder).get("block_out_channels")
    if not isinstance(side, int) or not isinstance(levels, list):
        return VideoShape(USUAL_FRAMES, 512, 512)
    pixels = side * 2 ** (len(levels) - 1)
    return VideoShape(USUAL_FRAMES, pixels, pixels)


@dataclass(frozen=True, eq=False)
class _Stage:
    """A stage of making a video.

    Attributes:
        parts: that work in it.
        run: it, under some settings.
        decided_by: the settings besides precision that change what it needs.
    """

    parts: Sequence[nn.Module]
    run: Callable[[PlanSettings], Any]
    decided_by: tuple[str, ...] = ()


def _animatediff(parts: Mapping[str, Any], shape: VideoShape, guided: bool) -> dict[str, _Stage]:
    unet, vae, text_encoder = parts["unet"], parts["vae"], parts["text_encoder"]
    if "motion_adapter" in parts:
        unet.set_motion_adapter(parts["motion_adapter"])
    spatial = 2 ** (len(vae.config["block_out_channels"]) - 1)
    latent = ScaleFactors(spatial).latent_shape(shape, unet.in_channels)
    tokens, width = text_encoder.config.max_position_embeddings, unet.config["cross_attention_dim"]
    branches = 2 if guided else 1
    controls = [part for name, part in parts.items() if name.endswith("_control")]
    second = parts.get("text_encoder_2")
    encoders = [text_encoder] if second is None else [text_encoder, second]

    def encode(_: PlanSettings) -> None:
        for encoder in encoders:
            encoder(input_ids=_ids(branches, tokens))

    def denoise(settings: PlanSettings) -> Tensor:
        latents = _empty(1, latent.channels, latent.num_latent_frames, latent.height, latent.width)
        states = {"encoder_hidden_states": _empty(1, tokens, width, dtype=unet.dtype)}
        if second is not None:
            states["text_embeds"] = _empty(1, second.config.projection_dim, dtype=unet.dtype)
            states["time_ids"] = _empty(1, 6)
        predict = ControlledUNet(unet)
        guidance = Guidance(predict, states, states if guided else None, 7.5, settings.guidance == "batched")
        return guidance(latents, _empty())

    def decode(settings: PlanSettings) -> Tensor:
        set_exact_pieces(vae, settings.tiled_vae)
        frames = min(_VAE_FRAMES, latent.num_latent_frames)
        return decode_images(vae, _empty(frames, latent.channels, latent.height, latent.width))

    return {
        "text": _Stage(encoders, encode),
        "denoise": _Stage([unet, *controls], denoise, ("guidance",)),
        "decode": _Stage([vae], decode, ("tiled_vae",)),
    }


def _easyanimate(parts: Mapping[str, Any], shape: VideoShape, guided: bool) -> dict[str, _Stage]:
    transformer, vae, text_encoder = parts["transformer"], parts["vae"], parts["text_encoder"]
    config, factor = transformer.config, vae.spatial_factor
    frames = vae.num_latent_frames(shape.num_frames)
    latent = (frames, ScaleFactors(factor).latent_shape(shape, 1).height, shape.width // factor)
    takes_pictures = config["in_channels"] > config["latent_channels"]
    image_encoder = None if config["clip_channels"] is None else parts.get("image_encoder")

    def encode(_: PlanSettings) -> None:
        text_encoder(input_ids=_ids(2 if guided else 1, _T5_TOKENS))

    def look(_: PlanSettings) -> None:
        side = parts["image_encoder"].config.image_size
        parts["image_encoder"](_empty(1, 3, side, side, dtype=vae.dtype))

    def conditions(settings: PlanSettings) -> Any:
        # What is encoded is the mask, and the video with black where it is to be made; both piece by piece. Only the
        # second is run: it is like the first, whose latents are there then.
        set_exact_pieces(vae, settings.tiled_vae)
        first = _empty(1, 2 * config["latent_channels"], *latent, dtype=vae.dtype)
        return first, torch.cat(list(encode_frames(vae, _pixels(vae, shape), shape.num_frames)), dim=2)

    def denoise(settings: PlanSettings) -> Tensor:
        with_picture = image_encoder is not None
        return _transformer_step(transformer, latent, with_picture, guided, settings.guidance == "batched")

    def decode(settings: PlanSettings) -> None:
        set_exact_pieces(vae, settings.tiled_vae)
        for _ in vae.decode_chunks(_empty(1, config["latent_channels"], *latent, dtype=vae.dtype)):
            pass

    stages = {
        "text": _Stage([text_encoder], encode),
        "denoise": _Stage([transformer], denoise, ("guidance",)),
        "decode": _Stage([vae], decode, ("tiled_vae",)),
    }
    if takes_pictures:
        stages["conditions"] = _Stage([vae], conditions, ("tiled_vae",))
    if image_encoder is not None:
        stages["picture"] = _Stage([image_encoder], look)
    return stages


def _pixels(vae: Any, shape: VideoShape) -> Iterator[Tensor]:
    count = vae.shape.frames_per_chunk or shape.num_frames
    for start in range(0, shape.num_frames, count):
        pixels = _empty(1, 3, min(count, shape.num_frames - start), shape.height, shape.width)
        yield torch.where(pixels > 0.5, -1.0, pixels).to(vae.dtype)


def _transformer_step(
    transformer: Any, latent: tuple[int, int, int], with_picture: bool, guided: bool, batched: bool
) -> Tensor:
    """One step of EasyAnimate's transformer under guidance."""
    config, dtype = transformer.config, transformer.dtype
    inputs = _transformer_inputs(transformer, latent, with_picture)
    sizes: dict[str, Tensor] = {}
    if transformer.transformer_config.has_size_condition:
        sizes = {"resolution": _empty(1, 2), "aspect_ratio": _empty(1, 1)}

    def predict(latents: Tensor, timestep: Tensor, /, **given: Tensor) -> Tensor:
        own = {name: given.pop(name) for name in sizes}
        prediction = transformer(latents.to(dtype), timestep, **given, added_cond_kwargs=own).sample
        return prediction[:, : config["latent_channels"]].float()

    both = {**inputs, **sizes}
    guidance = Guidance(predict, both, both if guided else None, 6.0, batched)
    return guidance(_empty(1, config["latent_channels"], *latent), _empty())


def _transformer_inputs(transformer: Any, latent: tuple[int, int, int], with_picture: bool) -> dict[str, Tensor]:
    """What one branch of EasyAnimate's transformer is told beside the latents and their size."""
    config, dtype = transformer.config, transformer.dtype
    inputs = {
        "encoder_hidden_states": _empty(1, _T5_TOKENS, config["caption_channels"], dtype=dtype),
        "encoder_attention_mask": _empty(1, _T5_TOKENS, dtype=dtype),
    }
    if config["in_channels"] > config["latent_channels"]:
        inputs["inpaint_latents"] = _empty(1, config["in_channels"] - config["latent_channels"], *latent)
    if with_picture:  # that of the first keyframe becomes tokens behind those of the text
        inputs["clip_encoder_hidden_states"] = _empty(1, config["clip_channels"], dtype=dtype)
        inputs["clip_attention_mask"] = _empty(1, config["clip_tokens"], dtype=dtype)
    return inputs


def _need(stage: _Stage, settings: PlanSettings) -> StageNeed:
    with torch.no_grad(), TensorMemory() as memory, CountOnce(stage.parts, memory):
        stage.run(settings)
    layers = [_weight_bytes(module) for part in stage.parts for module in part.modules() if not list(module.children())]
    return StageNeed(sum(map(_weight_bytes, stage.parts)), max(layers), memory.peak_bytes)


def _weight_bytes(part: nn.Module) -> int:
    tensors = {id(tensor): tensor for tensor in [*part.parameters(), *part.buffers()]}
    return sum(tensor.nbytes for tensor in tensors.values())


def _empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype)


def _ids(count: int, tokens: int) -> Tensor:
    return torch.zeros(count, tokens, dtype=torch.long)
