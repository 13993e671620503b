"""EasyAnimate: text, pictures and videos to a video, with a transformer that makes all frames together."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from diffusers import SchedulerMixin
from torch import Tensor, nn
from transformers import CLIPVisionModelWithProjection, PreTrainedTokenizerBase, T5EncoderModel

from muybridge.backbones.dit import Transformer3DModel
from muybridge.conditioning.clip_picture import embed_picture
from muybridge.conditioning.pinned_latents import first_picture
from muybridge.conditioning.t5 import MAX_TOKENS, encode_prompts_t5
from muybridge.conditioning.text import EncodedPrompts
from muybridge.errors import ConfigError, NonFiniteError
from muybridge.pipelines.base import Network, Told, require
from muybridge.pipelines.easyanimate.capabilities import (
    Profile,
    capabilities,
    check_profile,
    usual_of,
    warn_of_size,
)
from muybridge.pipelines.easyanimate.family import FAMILY
from muybridge.pipelines.easyanimate.folder import USUAL_FRAMES, load_parts
from muybridge.pipelines.easyanimate.network import finite_states, overflowed, transformer_network
from muybridge.pipelines.make import VideoPipeline
from muybridge.pipelines.prompts import Texts
from muybridge.request import Capabilities, WindowSettings
from muybridge.request.following import Usual
from muybridge.sampling import Scheduler, make_plain_scheduler
from muybridge.sampling.schedulers import EASYANIMATE_BETAS
from muybridge.types import VideoShape
from muybridge.vae import AutoencoderKLMagvit
from muybridge.vae.magvit.codec import VideoCodec

if TYPE_CHECKING:
    from transformers import BaseImageProcessor

_CLIP_APPLY_RATIO = 0.5


class EasyAnimatePipeline(VideoPipeline):
    """Text to video and to picture, image to video, first and last frame, video to video, and inpainting.

    A task is what is given: nothing but text, keyframes, a source video, a mask. Source: EasyAnimate V3 at commit
    d3b8bbb, `easyanimate/pipeline/pipeline_easyanimate_inpaint.py`.
    """

    family = FAMILY
    model_cpu_offload_seq = "text_encoder->image_encoder->transformer->vae"
    _optional_components = ["image_encoder", "image_processor"]

    def __init__(  # noqa: PLR0913, PLR0917  # ConfigMixin saves a pipeline's keyword arguments
        self,
        vae: AutoencoderKLMagvit,
        text_encoder: T5EncoderModel,
        tokenizer: PreTrainedTokenizerBase,
        transformer: Transformer3DModel,
        scheduler: SchedulerMixin,
        image_encoder: CLIPVisionModelWithProjection | None = None,
        image_processor: BaseImageProcessor | None = None,
        default_size: Sequence[int] | None = None,
        default_num_frames: int = USUAL_FRAMES,
        default_steps: int = 25,
        default_guidance: float = 7.0,
        max_tokens: int = MAX_TOKENS,
        clean_captions: bool = True,
        known_frames: int = 3,
        profile: Profile = "reference",
    ) -> None:
        """Assemble from parts; everything after them is saved with the model.

        Args:
            vae: of videos.
            text_encoder: T5.
            tokenizer: of T5.
            transformer: with motion modules, or frames are independent of each other.
            scheduler: its noise levels are those the model was trained on.
            image_encoder: CLIP, for models that take an image embedding.
            image_processor: what that encoder wants of its pictures.
            default_size: (height, width) the model is made for, of a call that names none; another one warns. None
                where that is not known: then calls are 384 x 672.
            default_num_frames: of a call that names none.
            default_steps: likewise.
            default_guidance: likewise.
            max_tokens: tokens read of a prompt.
            clean_captions: whether prompts are cleaned as the captions of EasyAnimate V3 were.
            known_frames: for how many frames a keyframe at either end is held.
            profile: "reference" gives the original's numbers: sampled posteriors, and a second pass over the decoded
                video that hides the seams between its pieces. "clean" takes means and makes no second pass.
        """
        super().__init__()
        check_profile(profile)
        require({f"known_frames must be at least 1; given {known_frames}.": known_frames >= 1})
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            transformer=transformer,
            scheduler=scheduler,
            image_encoder=image_encoder,
            image_processor=image_processor,
        )
        self.register_to_config(
            default_size=None if default_size is None else list(default_size),
            default_num_frames=default_num_frames,
            default_steps=default_steps,
            default_guidance=default_guidance,
            max_tokens=max_tokens,
            clean_captions=clean_captions,
            known_frames=known_frames,
            profile=profile,
        )

    @classmethod
    def from_pretrained(  # type: ignore[override]  # diffusers' takes any keyword; here they are known
        cls, model: str | os.PathLike[str], torch_dtype: torch.dtype = torch.float32, **components: Any
    ) -> EasyAnimatePipeline:
        """Load a published folder, or one written by `save_pretrained`; parts given by keyword are used instead.

        Of a published folder, `model_index.json` and the scheduler are not looked at: they name other classes and other
        settings than the model was trained with.

        Raises:
            CheckpointError: a part is missing, damaged, or does not fit its config.
            ConfigError: a keyword that is not a part of this pipeline.
        """
        pipeline = cls(**load_parts(model, torch_dtype, components))
        pipeline.remember_parts(None if components else str(model))
        return pipeline

    @property
    def backbone(self) -> nn.Module:
        """The transformer."""
        return self.transformer

    @property
    def size_multiple(self) -> int:
        """What height and width must be multiples of."""
        return self.vae.spatial_factor * self.transformer.config["patch_size"]

    @property
    def takes_pictures(self) -> bool:
        """Whether the transformer has channels for pictures and masks."""
        config = self.transformer.config
        return config["in_channels"] > config["latent_channels"]

    @property
    def codec(self) -> VideoCodec:
        """The video VAE, piece by piece."""
        return VideoCodec(self.vae, self.size_multiple)

    @property
    def can(self) -> Capabilities:
        """What goes with a transformer; pictures where it has channels for them."""
        return capabilities(self.takes_pictures)

    @property
    def known_frames(self) -> int:
        """For how many frames a picture at either end is held."""
        return self.config["known_frames"]

    def make_solver(self, name: str) -> Scheduler:
        """As the original makes them, of its noise schedule and the solver's own defaults; or like the model's own."""
        own = dict(self.scheduler.config)
        if all(own.get(key) == value for key, value in EASYANIMATE_BETAS.items()):
            return make_plain_scheduler(name, EASYANIMATE_BETAS)
        return super().make_solver(name)

    def _usual(self, windows: WindowSettings | None) -> Usual:
        usual = usual_of(self.vae, self.config["default_num_frames"], self.config["default_size"], self.size_multiple)
        return replace(usual, is_bounded=windows is None)

    def _check_shape(self, shape: VideoShape) -> None:
        self.codec.latent_shape(shape)
        warn_of_size(shape.height, shape.width, self.config["default_size"])

    def _encode(self, texts: Texts, guided: bool) -> EncodedPrompts:
        negatives = texts.negatives() if guided else None
        max_tokens, clean = self.config["max_tokens"], self.config["clean_captions"]

        def encode() -> EncodedPrompts:
            return encode_prompts_t5(self.tokenizer, self.text_encoder, texts.prompts, negatives, max_tokens, clean)

        return finite_states(self.text_encoder, encode)

    def _profile(self, profile: str | None) -> str:
        chosen: str = self.config["profile"] if profile is None else profile
        check_profile(chosen)
        return chosen

    def _network(self, told: Told) -> Network:
        picture = self._embedded_picture(told)
        if picture is None and told.clip_apply_ratio is not None:
            warnings.warn(
                "clip_apply_ratio has no effect: there is no first picture, or the model has no image encoder.",
                stacklevel=2,
            )
        ratio = _CLIP_APPLY_RATIO if told.clip_apply_ratio is None else told.clip_apply_ratio
        return transformer_network(self.transformer, told, picture, ratio)

    def _explained(self, error: NonFiniteError) -> NonFiniteError:
        return overflowed(error) if self.transformer.dtype is torch.float16 else error

    def _embedded_picture(self, told: Told) -> Tensor | None:
        if self.image_encoder is None or self.transformer.config["clip_channels"] is None:
            return None
        prepared = told.prepared
        if prepared.pinned is None or (picture := first_picture(self.codec, prepared.pinned, prepared.known)) is None:
            return None
        if self.image_processor is None:
            raise ConfigError("This pipeline has an image_encoder without its image_processor; give both.")
        return embed_picture(self.image_processor, self.image_encoder, picture)
