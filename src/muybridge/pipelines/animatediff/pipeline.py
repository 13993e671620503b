"""AnimateDiff: a Stable Diffusion model and a motion adapter, from a prompt to a video."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from diffusers import AutoencoderKL, SchedulerMixin, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, PreTrainedTokenizerBase

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.backbones.unet.sparse_control import SparseControlModel
from muybridge.checkpoints import parts
from muybridge.checkpoints.locate import locate_model
from muybridge.conditioning.sparse_control import read_sparse_control
from muybridge.conditioning.text import EncodedPrompts
from muybridge.errors import ConfigError
from muybridge.motion import MotionAdapter
from muybridge.pipelines.animatediff.capabilities import capabilities, usual_of
from muybridge.pipelines.animatediff.embeddings import EmbeddingHost
from muybridge.pipelines.animatediff.family import FAMILY
from muybridge.pipelines.animatediff.image_prompts import ImagePromptHost
from muybridge.pipelines.animatediff.network import unet_network
from muybridge.pipelines.animatediff.parts import (
    check_channels,
    check_text_encoders,
    part_loaders,
    refuse_on_sdxl,
)
from muybridge.pipelines.animatediff.text import encode_texts
from muybridge.pipelines.base import Network, Told
from muybridge.pipelines.precision import in_float32
from muybridge.pipelines.prompts import Texts
from muybridge.processor import multiplies
from muybridge.request import Capabilities, WindowSettings
from muybridge.request.following import Usual
from muybridge.request.prompt_syntax import Embedding
from muybridge.types import ScaleFactors
from muybridge.vae.frames import FrameCodec

_CONTROLS = {"keyframes": ("rgb", "keyframe_control"), "sketches": ("scribble", "sketch_control")}
"""Of a SparseCtrl by its role, its kind and the name of the part."""


class AnimateDiffPipeline(ImagePromptHost, EmbeddingHost):
    """Text to video with a U-Net of Stable Diffusion 1.5 or XL that holds motion modules.

    A diffusers pipeline: folders, device moves, offload of whole models and progress bars work as there. Without a
    motion adapter each frame is a picture of its own.
    """

    family = FAMILY
    model_cpu_offload_seq = "text_encoder->text_encoder_2->unet->vae"
    # They run beside the U-Net in every step.
    _exclude_from_cpu_offload = ["keyframe_control", "sketch_control"]
    _optional_components = ["motion_adapter", "keyframe_control", "sketch_control", "text_encoder_2", "tokenizer_2"]

    def __init__(  # noqa: PLR0913, PLR0917  # diffusers makes a pipeline of its parts by these names
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: PreTrainedTokenizerBase,
        unet: UNet3DConditionModel | UNet2DConditionModel,
        scheduler: SchedulerMixin,
        motion_adapter: MotionAdapter | None = None,
        keyframe_control: SparseControlModel | None = None,
        sketch_control: SparseControlModel | None = None,
        default_steps: int = 25,
        default_guidance: float = 7.5,
        text_encoder_2: CLIPTextModelWithProjection | None = None,
        tokenizer_2: PreTrainedTokenizerBase | None = None,
        force_zeros_for_empty_prompt: bool = True,
    ) -> None:
        """Assemble from parts; an image U-Net is turned into a video one, sharing its weights.

        `default_steps` and `default_guidance` are what a call uses when it names none; they are saved with the model.
        `text_encoder_2` and `tokenizer_2` are of Stable Diffusion XL, and so is `force_zeros_for_empty_prompt`: without
        a negative prompt, its text states are zeros instead of those of an empty text.

        Raises:
            ConfigError: the adapter, the text encoders or a SparseCtrl do not fit the U-Net.
        """
        super().__init__()
        if isinstance(unet, UNet2DConditionModel):
            unet = UNet3DConditionModel.from_unet2d(unet)
        check_channels(unet, vae)
        check_text_encoders(unet, text_encoder, text_encoder_2, tokenizer_2)
        is_sdxl = text_encoder_2 is not None
        refuse_on_sdxl(is_sdxl, keyframe_control=keyframe_control, sketch_control=sketch_control)
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
            motion_adapter=unet.motion_adapter,
            keyframe_control=keyframe_control,
            sketch_control=sketch_control,
            text_encoder_2=text_encoder_2,
            tokenizer_2=tokenizer_2,
        )
        if motion_adapter is not None:
            self.set_motion_adapter(motion_adapter)
        self.register_to_config(default_steps=default_steps, default_guidance=default_guidance)
        if is_sdxl:
            self.register_to_config(force_zeros_for_empty_prompt=force_zeros_for_empty_prompt)

    @classmethod
    def from_pretrained(  # type: ignore[override]  # diffusers' takes any keyword; here they are known
        cls, model: str | os.PathLike[str], torch_dtype: torch.dtype = torch.float32, **components: Any
    ) -> AnimateDiffPipeline:
        """Load a folder (or shipped model, or hub id); parts given by keyword are used instead of the folder's.

        The folder may be a pipeline of Stable Diffusion 1.5 or XL; then give `motion_adapter`, or the frames stay
        stills, and a scheduler of the noise levels that it was trained on (`make_scheduler("ddim")` for 1.5), or let
        `load_pipeline` choose it.

        Raises:
            CheckpointError: a part is missing, damaged, of another class, or does not fit its config.
            ConfigError: a keyword that is not a part of this pipeline.
        """
        folder = locate_model(model)
        index = parts.read_model_index(folder)
        names = {"vae", "text_encoder", "tokenizer", "unet", "scheduler", *cls._optional_components}
        if unknown := sorted(components.keys() - names):
            raise ConfigError(
                f"{', '.join(unknown)} is no part of this pipeline; its parts: {', '.join(sorted(names))}."
            )
        loaders = part_loaders(folder, index, torch_dtype)
        loaded = {name: components[name] if name in components else load() for name, load in loaders.items()}
        saved = ("default_steps", "default_guidance", "force_zeros_for_empty_prompt")
        settings = {key: index[key] for key in saved if key in index}
        pipeline = cls(**{**components, **loaded}, **settings)
        pipeline.remember_parts(None if components else str(model))
        return pipeline

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        safe_serialization: bool = True,
        variant: str | None = None,
        max_shard_size: int | str | None = None,
        push_to_hub: bool = False,
        use_flashpack: bool = False,
        **kwargs: Any,
    ) -> None:
        """Write a folder that `from_pretrained` reads: the image U-Net and the motion adapter lie side by side."""
        adapter = self.remove_motion_adapter()
        try:
            self.register_modules(motion_adapter=adapter)
            with self._without_image_prompt_adapter():
                super().save_pretrained(
                    save_directory, safe_serialization, variant, max_shard_size, push_to_hub, use_flashpack, **kwargs
                )
        finally:
            if adapter is not None:
                self.set_motion_adapter(adapter)

    def set_motion_adapter(self, adapter: MotionAdapter) -> None:
        """Attach an adapter in place of the present one; it is moved to the device and precision of the U-Net."""
        self.check_motion_loras(adapter)
        for module in adapter.children():  # `adapter.to` of diffusers would log a warning about nothing
            module.to(self.unet.device, self.unet.dtype)
        self.unet.set_motion_adapter(adapter)
        self.register_modules(motion_adapter=adapter)

    def set_sparse_control(self, model: SparseControlModel) -> None:
        """Take a SparseCtrl for keyframes ("rgb") or for sketches ("scribble"), as its kind says.

        It is moved to the device and precision of the U-Net.

        Raises:
            ConfigError: the pipeline is Stable Diffusion XL, which there is no SparseCtrl for.
        """
        refuse_on_sdxl(self.is_sdxl, **{f"a SparseCtrl ({model.kind})": model})
        nn.Module.to(model, self._execution_device, self.unet.dtype)
        name = "keyframe_control" if model.kind == "rgb" else "sketch_control"
        self.register_modules(**{name: model})

    def remove_motion_adapter(self) -> MotionAdapter | None:
        """Take the adapter off; what is left draws independent stills."""
        adapter = self.unet.remove_motion_adapter()
        self.register_modules(motion_adapter=None)
        return adapter

    @property
    def is_sdxl(self) -> bool:
        """Whether this is Stable Diffusion XL, which has two text encoders and is told sizes."""
        return self.text_encoder_2 is not None

    @property
    def scale_factors(self) -> ScaleFactors:
        """Pixels per latent, as the VAE has it."""
        return ScaleFactors(spatial=2 ** (len(self.vae.config["block_out_channels"]) - 1))

    @property
    def backbone(self) -> UNet3DConditionModel:
        """The U-Net."""
        return self.unet

    @property
    def codec(self) -> FrameCodec:
        """The VAE, frame by frame; in float32 where it needs that, or where the processor is slow otherwise."""
        return FrameCodec(self.vae, self._precise_vae)

    @property
    def can(self) -> Capabilities:
        """Everything that goes with a U-Net; Stable Diffusion XL has no networks beside it, and is told sizes."""
        return capabilities(self.text_encoder_2)

    def network_for(self, role: str) -> Any:
        """A SparseCtrl for "keyframes" or "sketches", an IP-Adapter for "image_prompt"."""
        networks = {
            "keyframes": self.keyframe_control,
            "sketches": self.sketch_control,
            "image_prompt": self._image_prompt_adapter,
        }
        return networks.get(role)

    def load_network(self, role: str, path: str, beside: Mapping[str, str] | None = None) -> None:
        """Load a SparseCtrl or an IP-Adapter from a file or folder; "image_encoder" beside that is its CLIP.

        Raises:
            ConfigError: an unknown role, or a SparseCtrl for something else.
            CheckpointError: it cannot be loaded.
        """
        if role == "image_prompt":
            self.load_image_prompt_adapter(path, (beside or {}).get("image_encoder"))
        elif role in _CONTROLS:
            kind, name = _CONTROLS[role]
            model = read_sparse_control(path, self.unet.dtype)
            if model.kind != kind:
                raise ConfigError(f"{path} is a SparseCtrl for {model.kind}, and {role} need one for {kind}.")
            self.set_sparse_control(model)
            self._remembered = {**(self._remembered or {}), name: model}
        elif role != "image_encoder":
            known = ", ".join((*_CONTROLS, "image_prompt", "image_encoder"))
            raise ConfigError(f"There is no network for {role!r} here. Known: {known}.")
        self._network_files = {**self._network_files, role: path}

    def _usual(self, windows: WindowSettings | None) -> Usual:
        return usual_of(self.unet, self.scale_factors, windows)

    def _known_embeddings(self) -> Mapping[str, Embedding]:
        return self._embeddings_by_name()

    def _encode(self, texts: Texts, guided: bool) -> EncodedPrompts:
        first = (self.tokenizer, self.text_encoder)
        second = (self.tokenizer_2, self.text_encoder_2) if self.is_sdxl else None
        return encode_texts(texts, first, second, guided, self.config.get("force_zeros_for_empty_prompt", False))

    def _network(self, told: Told) -> Network:
        return unet_network(self.unet, told)

    def _precise_vae(self) -> AbstractContextManager[None]:
        is_slow = self.vae.device.type == "cpu" and not multiplies(self.vae.dtype)
        return in_float32(self.vae, is_slow or (self.is_sdxl and self.vae.config["force_upcast"]))
