"""How much memory a video will take, before anything is loaded: every stage is run without numbers, and counted."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from muybridge.checkpoints import locate_model, read_model_index
from muybridge.checkpoints.easyanimate import is_published_folder
from muybridge.checkpoints.skeleton import skeleton_parts
from muybridge.debug.tensor_memory import TensorMemory
from muybridge.errors import CheckpointError
from muybridge.pipelines.animatediff_conditions import ControlledUNet
from muybridge.runtime.plan import CHOICES, PlannedRun, PlanSettings, StageNeed, plan_runs
from muybridge.sampling import Guidance
from muybridge.types import ScaleFactors, VideoShape
from muybridge.vae import decode_images

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


def plan_video(
    model: str | os.PathLike[str],
    shape: VideoShape,
    num_steps: int = 25,
    guided: bool = True,
    device: str = "cuda",
    choices: tuple[PlanSettings, ...] = CHOICES,
) -> VideoPlan:
    """Predict the peak of every stage under different settings; no weight is loaded, or needs to be there.

    Tensors are counted as in `TensorMemory`: what kernels need inside themselves, and what a process takes before it
    has made a tensor (on a GPU about 0.5 GB), come on top. Decoding is of the "clean" profile, piece by piece. A
    SparseCtrl in the folder counts with its weights, not with what it needs when there are keyframes or sketches.

    Args:
        model: a shipped model, a folder, or a hub id.
        shape: of the video.
        num_steps: denoising steps; they matter for the cost of offloading only.
        guided: whether there is guidance, which has two branches.
        device: where it is to run, "cpu" or any other, such as "cuda": kernels on a CPU need less between layers. It
            does not have to be here.
        choices: settings to plan for.

    Raises:
        CheckpointError: no such model, a family that is not known, or settings that describe no network.
        ShapeError: a size or number of frames that the model cannot make.
    """
    folder = locate_model(model)
    family = "EasyAnimatePipeline"
    if not is_published_folder(folder):
        family = str(read_model_index(folder).get("_class_name"))
        if family.startswith("AnimateDiff"):  # as diffusers saves them for other tasks too
            family = "AnimateDiffPipeline"
    stages = {"AnimateDiffPipeline": _animatediff, "EasyAnimatePipeline": _easyanimate}.get(family)
    if stages is None:
        raise CheckpointError(f"{folder} is a {family}; planned can be AnimateDiffPipeline and EasyAnimatePipeline.")

    def count(settings: PlanSettings) -> tuple[int, Mapping[str, StageNeed]]:
        # Fake tensors of a CPU take the ways of a CPU through the networks; meta tensors those of other devices.
        on_cpu = device == "cpu"
        with FakeTensorMode() if on_cpu else nullcontext(), torch.device("cpu" if on_cpu else "meta"):
            parts = skeleton_parts(folder, family, getattr(torch, settings.dtype), "cpu" if on_cpu else "meta")
            everything = sum(_weight_bytes(part) for part in parts.values())
            return everything, stages(parts, shape, settings, guided)

    return VideoPlan(family, shape, plan_runs(count, num_steps, choices))


def _animatediff(
    parts: Mapping[str, Any], shape: VideoShape, settings: PlanSettings, guided: bool
) -> dict[str, StageNeed]:
    unet, vae, text_encoder = parts["unet"], parts["vae"], parts["text_encoder"]
    if "motion_adapter" in parts:
        unet.set_motion_adapter(parts["motion_adapter"])
    if settings.tiled_vae:
        vae.enable_tiling()
    spatial = 2 ** (len(vae.config["block_out_channels"]) - 1)
    latent = ScaleFactors(spatial).latent_shape(shape, unet.in_channels)
    tokens, width = text_encoder.config.max_position_embeddings, unet.config["cross_attention_dim"]
    branches = 2 if guided else 1
    controls = [part for name, part in parts.items() if name.endswith("_control")]
    second = parts.get("text_encoder_2")
    encoders = [text_encoder] if second is None else [text_encoder, second]

    def encode() -> None:
        for encoder in encoders:
            encoder(input_ids=_ids(branches, tokens))

    def denoise() -> Tensor:
        latents = _empty(1, latent.channels, latent.num_latent_frames, latent.height, latent.width)
        states = {"encoder_hidden_states": _empty(1, tokens, width, dtype=unet.dtype)}
        if second is not None:
            states["text_embeds"] = _empty(1, second.config.projection_dim, dtype=unet.dtype)
            states["time_ids"] = _empty(1, 6)
        predict = ControlledUNet(unet)
        guidance = Guidance(predict, states, states if guided else None, 7.5, settings.guidance == "batched")
        return guidance(latents, _empty())

    def decode() -> Tensor:
        frames = min(_VAE_FRAMES, latent.num_latent_frames)
        return decode_images(vae, _empty(frames, latent.channels, latent.height, latent.width))

    return {
        "text": _need(encoders, encode),
        "denoise": _need([unet, *controls], denoise),
        "decode": _need([vae], decode),
    }


def _easyanimate(
    parts: Mapping[str, Any], shape: VideoShape, settings: PlanSettings, guided: bool
) -> dict[str, StageNeed]:
    transformer, vae, text_encoder = parts["transformer"], parts["vae"], parts["text_encoder"]
    if settings.tiled_vae:
        vae.enable_tiling()
    config, factor = transformer.config, vae.spatial_factor
    frames = vae.num_latent_frames(shape.num_frames)
    latent = (frames, ScaleFactors(factor).latent_shape(shape, 1).height, shape.width // factor)
    takes_pictures = config["in_channels"] > config["latent_channels"]

    def conditions() -> Any:
        # What is encoded is the mask, and the video with black where it is to be made.
        pixels = _empty(1, 3, shape.num_frames, shape.height, shape.width)
        mask = vae.encode(pixels.to(vae.dtype)).latent_dist.mode()
        masked = torch.where(pixels > 0.5, -1.0, pixels).to(vae.dtype)
        return mask, vae.encode(masked).latent_dist.mode()

    def denoise() -> Tensor:
        dtype = transformer.dtype
        inputs = {"encoder_hidden_states": _empty(1, _T5_TOKENS, config["caption_channels"], dtype=dtype)}
        inputs["encoder_attention_mask"] = _empty(1, _T5_TOKENS, dtype=dtype)
        if takes_pictures:
            inputs["inpaint_latents"] = _empty(1, config["in_channels"] - config["latent_channels"], *latent)
        sizes: dict[str, Tensor] = {}
        if transformer.transformer_config.has_size_condition:
            sizes = {"resolution": _empty(1, 2), "aspect_ratio": _empty(1, 1)}

        def predict(latents: Tensor, timestep: Tensor, /, **given: Tensor) -> Tensor:
            own = {name: given.pop(name) for name in sizes}
            prediction = transformer(latents.to(dtype), timestep, **given, added_cond_kwargs=own).sample
            return prediction[:, : config["latent_channels"]].float()

        both = {**inputs, **sizes}
        guidance = Guidance(predict, both, both if guided else None, 6.0, settings.guidance == "batched")
        return guidance(_empty(1, config["latent_channels"], *latent), _empty())

    def decode() -> None:
        for _ in vae.decode_chunks(_empty(1, config["latent_channels"], *latent, dtype=vae.dtype)):
            pass

    needs = {
        "text": _need([text_encoder], lambda: text_encoder(input_ids=_ids(2 if guided else 1, _T5_TOKENS))),
        "denoise": _need([transformer], denoise),
        "decode": _need([vae], decode),
    }
    return needs if not takes_pictures else {**needs, "conditions": _need([vae], conditions)}


def _need(parts: list[nn.Module], run: Callable[[], Any]) -> StageNeed:
    with torch.no_grad(), TensorMemory() as memory:
        run()
    layers = [_weight_bytes(module) for part in parts for module in part.modules() if not list(module.children())]
    return StageNeed(sum(map(_weight_bytes, parts)), max(layers), memory.peak_bytes)


def _weight_bytes(part: nn.Module) -> int:
    tensors = {id(tensor): tensor for tensor in [*part.parameters(), *part.buffers()]}
    return sum(tensor.nbytes for tensor in tensors.values())


def _empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype)


def _ids(count: int, tokens: int) -> Tensor:
    return torch.zeros(count, tokens, dtype=torch.long)
