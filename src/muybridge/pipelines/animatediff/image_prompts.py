"""Image prompts of a pipeline: load an adapter, and turn pictures into conditions of the U-Net."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from transformers import CLIPVisionModelWithProjection

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.backbones.unet.image_prompt import attach_image_attentions, detach_image_attentions
from muybridge.checkpoints import locate_weights
from muybridge.checkpoints.image_prompt_files import ImagePromptAdapter, read_image_prompt_adapter
from muybridge.conditioning.image_tokens import ImageTokens, encode_image_prompt
from muybridge.conditioning.prepared import Parts
from muybridge.errors import ConfigError
from muybridge.pipelines.make import VideoPipeline
from muybridge.weights.loading import load_folder


@dataclass(frozen=True, eq=False)
class _Loaded:
    adapter: ImagePromptAdapter
    encoder: CLIPVisionModelWithProjection
    processor: Any

    def to(self, device: torch.device) -> None:
        self.adapter.projection.to(device)
        torch.nn.Module.to(self.encoder, device)

    def tokens(self, pictures: Sequence[Image.Image], guided: bool, count: int, parts: Parts) -> ImageTokens:
        """Of the same pictures for each of `count` videos."""
        device = parts.working_device
        self.to(device)
        found = encode_image_prompt(self.adapter, self.processor, self.encoder, pictures, guided)
        if parts.backbone.device != device:  # where networks rest elsewhere between their turns, so does this one
            self.to(torch.device("cpu"))
        return found.for_videos(count, device, parts.backbone.dtype)


class ImagePromptHost(VideoPipeline):
    """A pipeline whose U-Net can take pictures beside the text, with an IP-Adapter."""

    unet: UNet3DConditionModel
    _image_prompt_adapter: _Loaded | None = None

    def load_image_prompt_adapter(
        self,
        path: str | os.PathLike[str],
        image_encoder: str | os.PathLike[str] | CLIPVisionModelWithProjection | None = None,
    ) -> None:
        """Load an IP-Adapter in place of any there is; calls then take `image_prompt`.

        The U-Net's own weights stay as they are, and calls without a picture give what they gave before. The adapter is
        not saved with the pipeline. Load it before offloading layer by layer is switched on.

        Args:
            path: a file such as `ip-adapter_sd15.safetensors` or `ip-adapter-plus_sd15.bin` (no code in it is run),
                here or on the hub, as in `h94/IP-Adapter/models/ip-adapter_sd15.safetensors`.
            image_encoder: the CLIP image tower that the adapter was trained with, or its folder; by default the folder
                `image_encoder` beside the file, where published adapters have it.

        Raises:
            CheckpointError: a file or folder that cannot be read, is something else, is incomplete, or is for another
                U-Net; nothing is loaded then.
            ConfigError: no image encoder, or one of another width than the adapter's.
        """
        path = locate_weights(path, beside="image_encoder" if image_encoder is None else None)
        adapter = read_image_prompt_adapter(path, self.unet)
        encoder = _image_encoder(Path(path), image_encoder, self.unet.dtype)
        _check_widths(Path(path).name, adapter, encoder)
        detach_image_attentions(self.unet)
        attach_image_attentions(self.unet, adapter.attentions)
        self._image_prompt_adapter = _Loaded(adapter, encoder, _processor(cast("int", encoder.config.image_size)))

    def unload_image_prompt_adapter(self) -> None:
        """Take the image prompt adapter off, if there is one; the U-Net is bit for bit what it was."""
        detach_image_attentions(self.unet)
        self._image_prompt_adapter = None
        self._network_files = {
            role: file for role, file in self._network_files.items() if role not in ("image_prompt", "image_encoder")
        }

    @contextlib.contextmanager
    def _without_image_prompt_adapter(self) -> Iterator[None]:
        taken = detach_image_attentions(self.unet)
        try:
            yield
        finally:
            attach_image_attentions(self.unet, taken)


def _image_encoder(
    path: Path, given: str | os.PathLike[str] | CLIPVisionModelWithProjection | None, dtype: torch.dtype
) -> CLIPVisionModelWithProjection:
    if isinstance(given, CLIPVisionModelWithProjection):
        return given
    folder = path.parent / "image_encoder" if given is None else locate_weights(given)
    if not folder.is_dir():
        raise ConfigError(
            f"There is no folder {folder} with the CLIP image encoder of this adapter; "
            "give its folder as image_encoder."
        )
    name = "CLIPVisionModelWithProjection"
    return load_folder(CLIPVisionModelWithProjection.from_pretrained, folder, name, {"dtype": dtype}).eval()


def _check_widths(name: str, adapter: ImagePromptAdapter, encoder: CLIPVisionModelWithProjection) -> None:
    config = encoder.config
    found = config.projection_dim if adapter.features == "embedding" else config.hidden_size
    if found != adapter.features_width:
        what = "an embedding" if adapter.features == "embedding" else "patches"
        raise ConfigError(
            f"{name} reads {what} of CLIP {adapter.features_width} wide; this image encoder makes it {found} wide. Use "
            "the image encoder that is published beside the adapter."
        )


def _processor(size: int) -> Any:
    from transformers import CLIPImageProcessorPil

    return CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
